"""A workspace on which every command was run once."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from narrow import use_narrow_networks
from typer.testing import CliRunner

from actcli.cli import app
from actcli.cli._console import console, error_console
from actcli.ingest import make_synthetic

TINY = "--backbone resnet18 --pretrained none --size 32 --frames 4 --batch-size 4 --epochs 1 --workers 0 --device cpu"


@pytest.fixture(autouse=True, scope="session")
def wide_and_single_threaded():
    """Tables are not cut, and small networks use one thread."""
    console.width = error_console.width = 300
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="package")
def narrow_networks():
    """Of the commands that run in this process; what trains once for all tests has the same scope."""
    with pytest.MonkeyPatch.context() as patch:
        use_narrow_networks(patch)
        yield


@pytest.fixture(scope="session")
def actcli():
    """``actcli("eval", "--crops", 3)`` or ``actcli("eval --crops 3")`` runs a command."""

    def run(*arguments):
        words = [
            word
            for argument in arguments
            for word in (str(argument).split() if " " in str(argument) else [str(argument)])
        ]
        return CliRunner().invoke(app, words)

    return run


@pytest.fixture(scope="package")
def raw_workspace(tmp_path_factory):
    """A workspace with raw data: 18 training clips and 6 validation clips of 8 frames, 64 x 48."""
    root = tmp_path_factory.mktemp("workspace")
    make_synthetic(root / "raw" / "tiny", num_clips=24, size=(64, 48), num_frames=8)
    return root


@pytest.fixture(scope="package")
def done(raw_workspace, actcli):
    """The four commands and what they said."""
    space = f"--workspace {raw_workspace}"
    results = SimpleNamespace(
        root=Path(raw_workspace),
        space=space,
        extract=actcli(f"extract --dataset tiny --short-side 0 --executor serial {space}"),
        shard=actcli(f"shard {space}"),
        train=actcli(f"train --model tsm {TINY} {space}"),
        eval=actcli(f"eval --crops 3 --clips 2 --workers 0 --device cpu {space}"),
    )
    (results.run,) = (results.root / "runs").iterdir()
    results.evaluation = results.run / "eval" / "val-2x3-32of36-tsm-1-best"
    return results


@pytest.fixture
def shards_copy(done, tmp_path):
    """A workspace with a copy of the shards alone, to be damaged."""
    import shutil

    shutil.copytree(done.root / "shards", tmp_path / "shards")
    return tmp_path
