"""Training and evaluation with every call that touches the disk failing once: right result or error, no false success.

In the suite one call of each kind fails; ``ACTCLI_ALL_FAULTS=1`` lets each of them fail in every way.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
from torch import nn

from actcli.engine.evaluator import RunChoice, evaluate, options_for_run
from actcli.engine.hardware import Hardware
from actcli.engine.training import Run, continued_run
from actcli.errors import ActcliError
from actcli.models import InputSpec, registry
from actcli.models.base import SegmentModel

from .helpers import Reporter, tiny_config

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import calls_of, failing, points_of

HARDWARE = Hardware("cpu", workers=0, loader="cpu", checkpoint_minutes=0)


@pytest.fixture
def speck(monkeypatch):
    """A model of 48 weights, of which a training takes no time."""

    def speck(*, num_classes: int, num_frames: int = 2, backbone: str = "speck") -> SegmentModel:
        network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        network.num_features = 4
        spec = InputSpec("rgb", (0.5,) * 3, (0.25,) * 3, size=32, scale_size=32)
        return SegmentModel(network, spec, num_classes=num_classes, num_frames=num_frames, dropout=0.5)

    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    registry.register(backbones=("speck",), source=None)(speck)


@pytest.fixture
def config(tiny_shards, speck):
    """Two epochs of two steps."""
    return tiny_config(tiny_shards, "speck", model_options={}, batch_size=9)


def train(config, run_dir, reporter=None):
    """What the user types: the training, or where there is one already, to go on with it."""
    is_begun = (run_dir / "config.yaml").exists()
    run = continued_run(run_dir) if is_begun else Run(config, run_dir, resume=False)
    return run.train(HARDWARE, reporter or Reporter())


def content(path):
    """The bytes of a file; of safetensors with the header in order, which that library writes in a random one."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def contents(folder):
    """Every file but the lock and the curves, whose events have times."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".actcli-lock"]
    return {str(path.relative_to(folder)): content(path) for path in files if path.parent.name != "tensorboard"}


def succeeds(work, number, error, below):
    with failing(number, error, below):
        try:
            work()
        except ActcliError as failure:
            assert str(failure).count("\n") == 0
            return False
    return True


class Stopped(Exception):
    """The end of a process, in the middle of the second epoch."""


class Stopping(Reporter):
    def step(self, report):
        if report.epoch == 1:
            raise Stopped


def begin_and_stop(config, run_dir):
    """Leave what a training leaves that was killed after its third step of four."""
    with pytest.raises(Stopped):
        train(config, run_dir, Stopping())


def check_every_fault(work, prepare, folder):
    """For each call and error: no false success, and the same work afterwards gives the whole result."""

    def again():
        shutil.rmtree(folder, ignore_errors=True)
        prepare()

    again()
    calls = calls_of(work, folder)
    whole, points, num_errors = contents(folder), points_of(calls), 0
    for number, error in points:
        again()
        if not succeeds(work, number, error, folder):
            num_errors += 1
            work()
        assert contents(folder) == whole, (calls[number], error)
    assert num_errors > len(points) / 2
    return whole, {call.name for call in calls}


def test_whatever_the_disk_does_a_training_is_right_or_an_error_and_goes_on(config, tmp_path):
    run_dir = tmp_path / "run"
    whole, calls = check_every_fault(lambda: train(config, run_dir), lambda: None, run_dir)
    assert set(whole) >= {"config.yaml", "history.jsonl", "checkpoints/last.ckpt", "checkpoints/best.safetensors"}
    assert calls >= {"open", "write", "fsync", "replace", "mkdir", "utime"}


def test_whatever_the_disk_does_a_training_that_goes_on_is_right_or_an_error(config, tmp_path):
    train(config, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, tmp_path / "stopped", Stopping())
    run_dir = tmp_path / "run"
    whole, calls = check_every_fault(
        lambda: train(config, run_dir), lambda: shutil.copytree(tmp_path / "stopped", run_dir), run_dir
    )
    assert whole == contents(tmp_path / "whole")
    assert calls >= {"open", "read", "write", "fsync", "replace", "unlink"}


def test_whatever_the_disk_does_an_evaluation_is_right_or_an_error(config, tmp_path):
    train(config, tmp_path / "trained")
    run_dir = tmp_path / "run"

    def work():
        evaluate(options_for_run(RunChoice(run_dir)), HARDWARE)

    whole, calls = check_every_fault(work, lambda: shutil.copytree(tmp_path / "trained", run_dir), run_dir)
    assert {Path(name).name for name in whole} >= {"scores.parquet", "metrics.json", "report.html"}
    assert calls >= {"open", "read", "write", "fsync", "replace", "mkdir"}
