"""A training learns, counts its updates, and can be killed at any step."""

import json
import signal
from dataclasses import replace
from hashlib import sha256

import pytest
import torch
from torch.nn import Conv2d
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from actcli.engine import preparation
from actcli.engine.hardware import Hardware, launch
from actcli.engine.history import is_finished, read_history
from actcli.engine.recipes import Protocol
from actcli.engine.runs import LAST_CHECKPOINT, RunConfig, find_same, list_runs, weights_path
from actcli.engine.schedules import Schedule
from actcli.errors import ActcliError
from actcli.models import backbones, load_weights
from actcli.models.backbones.resnet import resnet18
from actcli.shards import ShardSet

from .helpers import HARDWARE, RESNET, STANDING_STILL, STILL, Reporter, run, start_script, tiny_config, weights_of

KILLED = """
import os, signal, sys
from pathlib import Path
import pytest
import torch
from engine.helpers import HARDWARE, Reporter, train
from narrow import use_narrow_networks
from actcli.engine.runs import RunConfig
from dataclasses import replace

class Killer(Reporter):
    def step(self, report):
        if (report.epoch, report.step) == (int(sys.argv[2]), int(sys.argv[3])):
            os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
use_narrow_networks(pytest.MonkeyPatch())
run_dir = Path(sys.argv[1])
train(RunConfig.read(run_dir), run_dir, replace(HARDWARE, checkpoint_minutes=0), Killer())
"""


@pytest.fixture(scope="module")
def finished_run(tiny_shards, tmp_path_factory):
    """A run of two epochs."""
    run_dir = tmp_path_factory.mktemp("runs") / "finished"
    reporter = Reporter()
    history = run(tiny_config(tiny_shards), run_dir, reporter=reporter)
    return run_dir, reporter, history


@pytest.fixture
def count_updates():
    """Number of optimiser steps so far."""
    steps = []
    handle = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    yield lambda: len(steps)
    handle.remove()


def assert_same_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    assert set(first) == set(second)
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def assert_close_weights(first, second):
    first, second = weights_of(first), weights_of(second)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], rtol=1e-4, atol=1e-6)


# -- a whole run -------------------------------------------------------------------------------------------------------


def test_the_loss_goes_down_on_clips_seen_often(tiny_shards, tmp_path, monkeypatch):
    monkeypatch.setitem(backbones._BUILDERS, "resnet18", resnet18)  # learns in fewer steps than the narrow one
    history = run(
        tiny_config(
            tiny_shards,
            model_options={**RESNET, "dropout": 0.0},
            epochs=8,
            batch_size=6,
            augmentation=STILL,
            validate_every=8,
        ),
        tmp_path,
    )
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert history[-1].train_top1 > 0.8


def test_a_run_leaves_weights_history_and_the_mark_of_its_end(finished_run):
    run_dir, reporter, history = finished_run
    assert is_finished(run_dir)
    assert list(read_history(run_dir)[0]) == history == reporter.epochs
    lines = [json.loads(line) for line in (run_dir / "history.jsonl").read_text().splitlines()]
    assert [line["train_loss"] for line in lines] == [report.train_loss for report in history]
    assert (run_dir / "finished").read_text().split()[0] == sha256((run_dir / "history.jsonl").read_bytes()).hexdigest()
    model, metadata = load_weights(weights_path(run_dir))
    assert len(metadata["classes"]) == model.config["num_classes"] == 6
    assert (metadata["sampling"], metadata["dataset"]) == ("segments", "tiny")
    assert list((run_dir / "tensorboard").glob("events.*"))


def test_every_step_is_reported(finished_run):
    _, reporter, _ = finished_run
    assert [(report.epoch, report.step, report.num_steps) for report in reporter.steps] == [
        (epoch, step, 4) for epoch in (0, 1) for step in (1, 2, 3, 4)
    ]
    assert reporter.epochs[0].train_loss == pytest.approx(reporter.steps[3].loss)
    assert all(0 <= report.waiting <= 1 for report in reporter.steps)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(finished_run, tiny_shards, tmp_path):
    run(tiny_config(tiny_shards), tmp_path / "same")
    assert_same_weights(finished_run[0], tmp_path / "same")
    run(tiny_config(tiny_shards, seed=20260131), tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_weights(finished_run[0], tmp_path / "other")


def test_dropout_is_active_and_drawn_from_the_seed(finished_run, tiny_shards, tmp_path):
    run(tiny_config(tiny_shards, model_options={**RESNET, "dropout": 0.0}), tmp_path)
    with pytest.raises(AssertionError):
        assert_same_weights(finished_run[0], tmp_path)


def test_the_best_weights_are_those_of_the_best_validation(tiny_shards, tmp_path):
    history = run(tiny_config(tiny_shards, epochs=4, learning_rate=0.05), tmp_path)
    accuracies = [report.val_top1 for report in history]
    _, metadata = load_weights(weights_path(tmp_path, "best"))
    assert metadata["epoch"] == accuracies.index(max(accuracies))
    assert load_weights(weights_path(tmp_path, "last"))[1]["epoch"] == 3


def test_validation_comes_every_so_many_epochs_and_at_the_end(tiny_shards, tmp_path):
    history = run(tiny_config(tiny_shards, epochs=3, validate_every=2, batch_size=9), tmp_path)
    assert [report.val_top1 is not None for report in history] == [False, True, True]


def test_validation_looks_at_as_many_views_as_the_recipe_says(tiny_shards, tmp_path):
    reporter = Reporter()
    config = tiny_config(tiny_shards, epochs=1, validation=Protocol(clips=2, crops=3), batch_size=12)
    history = run(config, tmp_path, reporter=reporter)
    assert reporter.validations == [(1, 3), (2, 3), (3, 3)]  # 12 views are 2 of the 6 clips
    assert 0 <= history[0].val_top1 <= 1


def test_the_learning_rate_follows_the_schedule(tiny_shards, tmp_path):
    schedule = Schedule("step", milestones=(1,))
    history = run(tiny_config(tiny_shards, schedule=schedule, batch_size=9, validate_every=2), tmp_path)
    assert [report.learning_rate for report in history] == pytest.approx([0.01, 0.001])


def test_a_rate_of_zero_leaves_the_weights_alone(tiny_shards, tmp_path):
    for epochs in (1, 2):
        run(tiny_config(tiny_shards, "vit", learning_rate=STANDING_STILL, epochs=epochs), tmp_path / str(epochs))
    assert_same_weights(tmp_path / "1", tmp_path / "2")


# -- updates -----------------------------------------------------------------------------------------------------------


def test_two_accumulated_half_batches_are_one_batch(tiny_shards, tmp_path, count_updates):
    run(tiny_config(tiny_shards, "vit", batch_size=8, augmentation=STILL), tmp_path / "whole")
    assert count_updates() == 4
    run(tiny_config(tiny_shards, "vit", batch_size=4, accumulate=2, augmentation=STILL), tmp_path / "halves")
    assert count_updates() == 4 + 4
    assert_close_weights(tmp_path / "whole", tmp_path / "halves")


def test_the_last_update_of_an_epoch_averages_the_batches_that_are_left(tiny_shards, tmp_path, count_updates):
    run(tiny_config(tiny_shards, "vit", batch_size=16, augmentation=STILL), tmp_path / "whole")
    assert count_updates() == 2
    run(tiny_config(tiny_shards, "vit", batch_size=8, accumulate=3, augmentation=STILL), tmp_path / "left")
    assert count_updates() == 2 + 2
    assert_close_weights(tmp_path / "whole", tmp_path / "left")


def test_four_steps_in_groups_of_three_are_two_updates(tiny_shards, tmp_path, count_updates):
    run(tiny_config(tiny_shards, accumulate=3, epochs=1), tmp_path)
    assert count_updates() == 2


def test_gradients_are_clipped_to_the_norm(tiny_shards, tmp_path):
    common = {"epochs": 1, "batch_size": 16, "weight_decay": 0.0, "multipliers": False, "augmentation": STILL}
    run(tiny_config(tiny_shards, "vit", learning_rate=STANDING_STILL, **common), tmp_path / "start")
    run(tiny_config(tiny_shards, "vit", learning_rate=1.0, clip_norm=0.125, **common), tmp_path / "clipped")
    start, moved = weights_of(tmp_path / "start"), weights_of(tmp_path / "clipped")
    distance = sum(float(((moved[name] - start[name]) ** 2).sum()) for name in start) ** 0.5
    assert distance == pytest.approx(0.125, rel=1e-3)


def test_label_smoothing_raises_the_least_loss(tiny_shards, tmp_path):
    losses = {}
    for smoothing in (0.0, 0.5):
        config = tiny_config(tiny_shards, "vit", label_smoothing=smoothing, epochs=1, augmentation=STILL, batch_size=16)
        losses[smoothing] = run(config, tmp_path / str(smoothing))[0].train_loss
    assert losses[0.5] != losses[0.0]


@pytest.mark.parametrize("changes", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_mixed_clips_train_and_mix_alike_for_the_same_seed(tiny_shards, tmp_path, changes):
    config = tiny_config(tiny_shards, epochs=1, batch_size=8, **changes)
    first, second = (run(config, tmp_path / name)[0] for name in ("a", "b"))
    assert first == second
    plain = run(tiny_config(tiny_shards, epochs=1, batch_size=8), tmp_path / "plain")[0]
    assert first.train_loss != plain.train_loss


def test_mixed_precision_multiplies_in_half_precision_and_trains(tiny_shards, tmp_path):
    kinds = set()

    def hook(module, inputs, output):
        if isinstance(module, Conv2d) and output.device.type != "meta":
            kinds.add((module.training, output.dtype))

    handle = register_module_forward_hook(hook)
    history = run(tiny_config(tiny_shards, epochs=1, precision="bf16-mixed"), tmp_path)
    handle.remove()
    assert kinds == {(True, torch.bfloat16), (False, torch.bfloat16)}
    assert history[0].train_loss == pytest.approx(1.79, abs=0.5)
    assert all(value.dtype != torch.bfloat16 for value in weights_of(tmp_path).values())


@pytest.mark.parametrize("multipliers", [True, False])
def test_partial_batch_norm_keeps_the_statistics_of_all_norms_but_the_first(tiny_shards, tmp_path, multipliers):
    run(tiny_config(tiny_shards, partial_bn=True, multipliers=multipliers, epochs=1), tmp_path)
    weights = weights_of(tmp_path)
    assert not torch.equal(weights["backbone.bn1.running_mean"], torch.zeros(64))
    later = [name for name in weights if name.endswith("running_mean") and "layer" in name]
    assert len(later) == 19
    assert all(not weights[name].any() for name in later)


# -- killed and continued ----------------------------------------------------------------------------------------------


def test_a_killed_run_continues_to_the_weights_of_an_undisturbed_one(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, accumulate=2, mixup=0.2)
    undisturbed = run(config, tmp_path / "undisturbed")

    config.write(tmp_path / "killed")
    (tmp_path / "killed.py").write_text(KILLED)
    done = start_script(tmp_path / "killed.py", tmp_path / "killed", 1, 4)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not is_finished(tmp_path / "killed")
    assert find_same(tmp_path, config, finished=False) == tmp_path / "killed"

    reporter = Reporter()
    continued = run(config, tmp_path / "killed", reporter=reporter, resume=True)
    assert reporter.notes[-1] == "continuing in epoch 2, after step 2"
    assert continued == undisturbed
    assert_same_weights(tmp_path / "undisturbed", tmp_path / "killed")


def test_resuming_a_finished_run_does_nothing(finished_run, tiny_shards):
    run_dir, _, history = finished_run
    reporter = Reporter()
    assert run(tiny_config(tiny_shards), run_dir, reporter=reporter, resume=True) == history
    assert reporter.steps == []


@pytest.fixture
def interrupted(tiny_shards, tmp_path):
    """A run stopped by its reporter after step 2 of the second epoch (``stop(step)``)."""

    def stop(at):
        class Stopper(Reporter):
            def step(self, report):
                if (report.epoch, report.step) == at:
                    raise KeyboardInterrupt

        config = tiny_config(tiny_shards)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "run", replace(HARDWARE, checkpoint_minutes=0), Stopper())
        return config, tmp_path / "run"

    return stop


@pytest.mark.parametrize(("at", "left_at"), [((1, 1), "epoch 2, after step 0"), ((0, 2), "epoch 1, after step 1")])
def test_a_run_that_was_stopped_continues_to_the_same_weights(interrupted, finished_run, at, left_at):
    config, run_dir = interrupted(at)
    reporter = Reporter()
    assert run(config, run_dir, reporter=reporter, resume=True) == finished_run[2]
    assert reporter.notes[-1] == f"continuing in {left_at}"
    assert_same_weights(finished_run[0], run_dir)


@pytest.mark.parametrize("at", [(1, 3), (1, 1)])  # the checkpoint is one inside an epoch, or that of its end
def test_a_run_is_not_continued_on_other_clips(interrupted, make_tiny_shards, at):
    config, run_dir = interrupted(at)
    other = replace(config, shards=make_tiny_shards(30))
    with pytest.raises(ActcliError, match=r"belongs to another setup: clips \(was 18, is 24\)"):
        run(other, run_dir, resume=True)


def test_a_torn_checkpoint_is_named(interrupted):
    config, run_dir = interrupted((1, 3))
    path = run_dir / LAST_CHECKPOINT
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ActcliError, match=r"last\.ckpt is no checkpoint of actcli, or is damaged"):
        run(config, run_dir, resume=True)


def test_without_a_checkpoint_a_resumed_run_starts(tiny_shards, finished_run, tmp_path):
    run(tiny_config(tiny_shards), tmp_path, resume=True)
    assert_same_weights(finished_run[0], tmp_path)


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_a_loss_that_is_no_number_stops_the_run(tiny_shards, tmp_path):
    with pytest.raises(ActcliError, match=r"the loss became (nan|inf) in epoch 1, step 2, on the clips 0000.*lower"):
        run(tiny_config(tiny_shards, learning_rate=1e30, clip_norm=None), tmp_path)
    assert not is_finished(tmp_path)


def test_a_batch_larger_than_the_split_is_refused(tiny_shards, tmp_path, monkeypatch):
    """Before a network is made, since the weights of one may have to be downloaded first."""
    monkeypatch.setattr(preparation, "build_model", None)
    with pytest.raises(ActcliError, match=r"18 training clips do not fill one batch of 19.*Lower batch_size"):
        run(tiny_config(tiny_shards, batch_size=19), tmp_path)


def test_a_fast_classifier_without_multipliers_is_refused(tiny_shards, tmp_path):
    with pytest.raises(ActcliError, match="fast_classifier is a multiplier"):
        run(tiny_config(tiny_shards, fast_classifier=True, multipliers=False), tmp_path)


def test_a_switch_that_a_model_does_not_have_is_refused(tiny_shards, tmp_path):
    with pytest.raises(ActcliError, match="policy of vit has no switch partial_bn"):
        run(tiny_config(tiny_shards, "vit", partial_bn=True), tmp_path)


def test_an_unknown_device_is_refused():
    with pytest.raises(ActcliError, match=r"accelerator is 'tpu'; allowed are: auto, cpu, cuda"):
        launch(Hardware("tpu"), "32-true")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(ActcliError, match="no CUDA device"):
        launch(Hardware("cuda"), "32-true")


# -- starting from weights ---------------------------------------------------------------------------------------------


def other_classes(finished_run, tmp_path, shards):
    """Shards of the same clips with two more classes."""
    from pathlib import Path

    folder = tmp_path / "shards"
    folder.mkdir()
    for file in Path(shards).iterdir():
        (folder / file.name).symlink_to(file)
    card = ShardSet.open(shards).card
    (folder / "dataset.json").unlink()
    (folder / "dataset.json").write_text(replace(card, classes=(*card.classes, "standing", "waving")).to_json())
    return str(folder)


def test_weights_of_other_classes_need_a_new_head(finished_run, tiny_shards, tmp_path):
    shards = other_classes(finished_run, tmp_path, tiny_shards)
    init = str(weights_path(finished_run[0]))
    config = replace(tiny_config(shards, learning_rate=STANDING_STILL, epochs=1), init=init)
    with pytest.raises(ActcliError, match=r"has 6 classes, dataset tiny has 8\.\s+Start a new classifier"):
        run(config, tmp_path / "refused")
    reporter = Reporter()
    run(replace(config, new_head=True), tmp_path / "fine", reporter=reporter)
    assert reporter.notes[0] == f"starting from {init}, with a new classifier"
    weights, start = weights_of(tmp_path / "fine"), weights_of(finished_run[0], "best")
    assert weights["classifier.weight"].shape == (8, start["classifier.weight"].shape[1])
    assert torch.equal(weights["backbone.conv1.weight"], start["backbone.conv1.weight"])
    assert load_weights(weights_path(tmp_path / "fine"))[0].config["num_classes"] == 8


def test_weights_of_the_same_classes_go_on_where_they_were(finished_run, tiny_shards, tmp_path):
    init = str(weights_path(finished_run[0]))
    config = replace(tiny_config(tiny_shards, learning_rate=STANDING_STILL, epochs=1), init=init)
    run(config, tmp_path)
    found, start = weights_of(tmp_path), weights_of(finished_run[0], "best")
    assert torch.equal(found["classifier.weight"], start["classifier.weight"])


def test_weights_of_another_network_are_refused(finished_run, tiny_shards, tmp_path):
    config = replace(tiny_config(tiny_shards, "vit"), init=str(weights_path(finished_run[0])))
    with pytest.raises(ActcliError, match=r"holds a tsm, which does not fit the recipe's vit"):
        run(config, tmp_path)


# -- run folders -------------------------------------------------------------------------------------------------------


def test_the_configuration_of_a_run_comes_back_as_it_was(tiny_shards, tmp_path):
    config = replace(tiny_config(tiny_shards, augmentation=STILL), split_id="2", init="some.safetensors", new_head=True)
    config.write(tmp_path)
    assert RunConfig.read(tmp_path) == config


def test_runs_are_listed_in_the_order_they_were_made_in(tiny_shards, tmp_path):
    for name in ("b", "a", "c"):
        tiny_config(tiny_shards).write(tmp_path / name)
    (tmp_path / "no run").mkdir()
    assert [path.name for path in list_runs(tmp_path)] == ["b", "a", "c"]
    assert list_runs(tmp_path / "absent") == []


def test_a_folder_that_is_no_run_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("- 3\n")
    with pytest.raises(ActcliError, match="is no run"):
        RunConfig.read(tmp_path)


def test_a_run_of_another_version_is_no_run_to_continue(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards)
    for name in ("mine", "older"):
        config.write(tmp_path / name)
    text = (tmp_path / "older" / "config.yaml").read_text()
    (tmp_path / "older" / "config.yaml").write_text(text.replace("epochs:", "num_epochs:"))
    assert find_same(tmp_path, config, finished=False) == tmp_path / "mine"


def test_a_run_without_weights_says_how_to_go_on(tiny_shards, tmp_path):
    tiny_config(tiny_shards).write(tmp_path)
    with pytest.raises(ActcliError, match=r"no best weights yet.*--resume\s+--run-dir"):
        weights_path(tmp_path)
