"""Two processes train the network that one process trains, and score each clip once."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from actcli.engine.evaluator import RunChoice, evaluate, options_for_run
from actcli.engine.protocols import AskedViews
from actcli.engine.results import read_scores
from actcli.engine.runs import read_state

from .helpers import HARDWARE, STILL, run, start_script, tiny_config, weights_of

SCRIPT = """
import sys
from dataclasses import replace
from pathlib import Path
import pytest
import torch
from safetensors.torch import save_file
from engine.helpers import HARDWARE, Reporter
from narrow import use_narrow_networks
from actcli.engine.evaluator import RunChoice, evaluate, options_for_run
from actcli.engine.hardware import launch
from actcli.engine.preparation import prepare
from actcli.engine.protocols import AskedViews
from actcli.engine.runs import RunConfig
from actcli.engine.signals import StopWish
from actcli.engine import trainer

torch.set_num_threads(1)
use_narrow_networks(pytest.MonkeyPatch())
run_dir = Path(sys.argv[1])
config = RunConfig.read(run_dir)
fabric = launch(HARDWARE, "32-true")

class Stopped(trainer.Training):
    def _report_step(self, place):
        if (self.progress.epoch, self.progress.step) == (1, 3):
            raise KeyboardInterrupt

try:
    often = replace(HARDWARE, checkpoint_minutes=0)
    prepared = prepare(config, often, fabric, print)
    with Stopped(prepared, run_dir, often, Reporter(), StopWish()) as training:
        training.open_run() if fabric.is_global_zero else None
        training.run()
except KeyboardInterrupt:
    fabric.barrier()
prepared = prepare(config, HARDWARE, fabric, print)
with trainer.Training(prepared, run_dir, HARDWARE, Reporter(), StopWish()) as training:
    training.restore()
    assert (training.progress.epoch, training.progress.step) == (1, 2)
    training.open_run() if fabric.is_global_zero else None
    training.run()
    weights = {name: value.contiguous() for name, value in training.step.plain_model.named_parameters()}
    save_file(weights, run_dir / f"rank{fabric.global_rank}.safetensors")
fabric.barrier()
options = options_for_run(RunChoice(run_dir), out_dir=run_dir / "scores", views=AskedViews(size=32), batch_size=1)
evaluate(options, HARDWARE)
torch.distributed.destroy_process_group()
"""
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


@pytest.fixture(scope="module")
def odd_shards(make_tiny_shards):
    """18 training clips and 3 validation clips, which two processes cannot share evenly."""
    return make_tiny_shards(21)


@pytest.fixture(scope="module")
def config(odd_shards):
    return tiny_config(odd_shards, "vit", batch_size=4, augmentation=STILL, accumulate=2)


@pytest.fixture(scope="module")
def alone(config, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("alone")
    run(config, run_dir)
    options = options_for_run(RunChoice(run_dir), out_dir=run_dir / "scores", views=AskedViews(size=32), batch_size=1)
    evaluate(options, HARDWARE)
    return run_dir


def test_two_processes_that_were_stopped_train_and_score_like_one(config, alone, tmp_path):
    run_dir = tmp_path / "run"
    config.write(run_dir)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = start_script(tmp_path / "script.py", run_dir, launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr

    first, second = (load_file(run_dir / f"rank{rank}.safetensors") for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    expected = weights_of(alone)
    for name, value in first.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-5)

    found, single = read_scores(run_dir / "scores"), read_scores(alone / "scores")
    assert len(single.keys) == 3
    np.testing.assert_array_equal(found.keys, single.keys)
    np.testing.assert_allclose(found.logits, single.logits, rtol=1e-2, atol=1e-3)

    for epoch, expected_epoch in zip(read_state(run_dir).epochs, read_state(alone).epochs, strict=True):
        assert asdict(epoch) == pytest.approx(asdict(expected_epoch), rel=1e-3)
