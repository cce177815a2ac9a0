"""Tiny datasets that the tests of this folder share."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from actcli.ingest import ExtractOptions, make_synthetic

PATIENCE = ("NUM_REDIS_GET_RETRIES", "gcs_server_port_wait_time_s", "gcs_server_request_timeout_seconds")
os.environ |= {f"RAY_{name}": "250" for name in (*PATIENCE, "worker_register_timeout_seconds")}
os.environ |= {"RAY_memory_monitor_refresh_ms": "0"}  # what other tests take of the memory is no reason to kill workers


@pytest.fixture(scope="session")
def ray_home() -> Iterator[None]:
    """Ray keeps the address of a cluster in its folder, where a Ray that starts meanwhile finds it: to each its own."""
    ray = pytest.importorskip("ray")
    services = ray._private.services
    look_once = services.get_node

    def look(*arguments: object) -> object:
        """What a node that has started is; Ray itself looks for half a minute."""
        deadline = time.monotonic() + 250
        while True:
            try:
                return look_once(*arguments)
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory("", "ray-", "/tmp", True) as folder:
        patch.setattr(services, "get_node", look)
        patch.setenv("RAY_TMPDIR", folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield
        ray.shutdown()  # which otherwise goes on writing to the folder


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
