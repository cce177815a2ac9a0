"""Tiny datasets that the tests of this folder share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from actcli.ingest import ExtractOptions, make_synthetic


@pytest.fixture(scope="session")
def tiny_raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of 8 frames, 64 x 48, in train and val folders of six classes."""
    return make_synthetic(tmp_path_factory.mktemp("raw") / "tiny", num_clips=24, size=(64, 48), num_frames=8)


@pytest.fixture
def tiny_options(tiny_raw: Path, tmp_path: Path) -> Callable[..., ExtractOptions]:
    """Options for the tiny dataset, serial and into ``tmp_path / "frames"`` unless told otherwise."""

    def make(**changes: object) -> ExtractOptions:
        given: dict[str, object] = {
            "dataset": "tiny",
            "raw_dir": tiny_raw,
            "frames_dir": tmp_path / "frames",
            "executor": "serial",
        }
        return ExtractOptions(**(given | changes))  # type: ignore[arg-type]

    return make
