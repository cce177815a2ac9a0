"""What a recipe can ask of a training beside the published numbers, each in the smallest run that shows it."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.optim.optimizer import register_optimizer_step_post_hook

from actcli.engine import largest, trainer
from actcli.engine.checkpoints import load_checkpoint
from actcli.engine.hardware import launch
from actcli.engine.largest import largest_batch
from actcli.engine.memory import step_memory
from actcli.engine.optimizer import build_optimizer
from actcli.engine.overrides import override_recipe
from actcli.engine.runs import LAST_CHECKPOINT, RunConfig
from actcli.engine.schedules import Schedule
from actcli.engine.signals import Interrupted
from actcli.engine.step import TrainingStep
from actcli.engine.tracking import check_trackers, clip_grid
from actcli.engine.training import continued_run, with_largest_batch
from actcli.errors import ActcliError
from actcli.models import create_model, load_weights

from .helpers import HARDWARE, RESNET, STANDING_STILL, STILL, VIT, Reporter, run, tiny_config, tiny_recipe, weights_of
from .test_runs import Stopper


@pytest.fixture(scope="module")
def start(tiny_shards, tmp_path_factory):
    """Weights of the tiny transformer before any step."""
    run_dir = tmp_path_factory.mktemp("start")
    run(tiny_config(tiny_shards, "vit", learning_rate=STANDING_STILL, epochs=1, batch_size=16), run_dir)
    return weights_of(run_dir)


# -- optimisers --------------------------------------------------------------------------------------------------------


def groups_of(model, **changes):
    """Name -> (learning rate, weight decay) of the optimiser's groups."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(model, tiny_recipe(model.config["name"], **changes))
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def test_each_layer_of_a_transformer_learns_slower_than_the_one_above_it():
    model = create_model("tokshift", num_classes=3, num_frames=2, **VIT)
    groups = groups_of(model, optimizer="adamw", layer_decay=0.5, learning_rate=1.0, weight_decay=0.1)
    assert groups["backbone.head.weight"] == (1.0, 0.1)
    assert groups["backbone.blocks.11.mlp.fc2.weight"] == (0.5, 0.1)
    assert groups["backbone.blocks.0.mlp.fc2.weight"] == (0.5**12, 0.1)
    assert groups["backbone.patch_embed.proj.weight"] == (0.5**13, 0.1)


def test_adamw_decays_matrices_only_and_sgd_everything_as_published():
    model = create_model("vit", num_classes=3, num_frames=2, **VIT)
    spared = {"backbone.cls_token", "backbone.pos_embed", "backbone.norm.weight", "backbone.head.bias"}
    adamw, sgd = (groups_of(model, optimizer=name, weight_decay=0.1) for name in ("adamw", "sgd"))
    assert {adamw[name][1] for name in spared} == {0.0}
    assert {decay for _, decay in sgd.values()} == {0.1}


def test_layers_of_a_network_that_is_no_transformer_are_refused():
    model = create_model("tsm", num_classes=3, num_frames=2, **RESNET)
    with pytest.raises(ActcliError, match="tsm is no transformer, which layer_decay is for"):
        groups_of(model, layer_decay=0.5)


def test_a_run_with_adamw_an_average_and_a_rate_per_step_goes_on_to_the_same_bytes(tiny_shards, tmp_path):
    config = tiny_config(
        tiny_shards,
        "vit",
        optimizer="adamw",
        layer_decay=0.75,
        ema=0.9,
        schedule=Schedule("cosine", per="step", warmup_epochs=1),
    )
    run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "stopped", reporter=Stopper((1, 1)))
    run(RunConfig.read(tmp_path / "stopped"), tmp_path / "stopped", resume=True)
    whole, stopped = ((tmp_path / name / LAST_CHECKPOINT).read_bytes() for name in ("whole", "stopped"))
    assert whole == stopped


# -- the average -------------------------------------------------------------------------------------------------------


def test_the_moving_average_is_what_is_saved(start, tiny_shards, tmp_path):
    common = {"epochs": 1, "batch_size": 9, "augmentation": STILL}
    run(tiny_config(tiny_shards, "vit", **common), tmp_path / "plain")
    run(tiny_config(tiny_shards, "vit", ema=0.75, **common), tmp_path / "average")
    state = load_checkpoint(tmp_path / "average" / LAST_CHECKPOINT)
    name = "backbone.head.weight"
    saved, last = weights_of(tmp_path / "average")[name], weights_of(tmp_path / "plain")[name]
    assert torch.equal(state["model"][name], last)
    assert torch.equal(state["average"][f"module.{name}"], saved)
    assert not torch.equal(saved, last)
    assert load_weights(tmp_path / "average" / "checkpoints" / "best.safetensors")[1]["ema"] == 0.75


# -- what learns, and how it is computed -------------------------------------------------------------------------------


def test_with_a_frozen_backbone_the_classifier_alone_changes(tiny_shards, tmp_path):
    frozen = tiny_config(tiny_shards, freeze="backbone", epochs=1, partial_bn=True, fast_classifier=True)
    run(replace(frozen, recipe=replace(frozen.recipe, learning_rate=STANDING_STILL)), tmp_path / "start")
    run(frozen, tmp_path / "probe")
    start, probe = weights_of(tmp_path / "start"), weights_of(tmp_path / "probe")
    changed = {name for name, value in start.items() if not torch.equal(value, probe[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(("name", "options"), [("vit", VIT), ("tsm", RESNET), ("stmulnet", {})])
def test_features_of_a_frozen_backbone_have_no_gradients(name, options):
    with torch.device("meta"):
        model = create_model(name, num_classes=3, num_frames=2, **options).train()
    model.freeze_backbone()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all("classifier" in name or "head" in name for name in trained)
    assert {rule.name for rule in model.parameter_policy()} == trained
    model.train()
    assert not any(module.training for network in model.frame_networks() for module in network.modules())


def test_a_compiled_step_trains_the_same_network(tiny_shards, tmp_path, monkeypatch):
    calls = []

    def compiled(method):  # what torch compiles is tested by torch; here, that it is this that is called
        calls.append(method.__name__)
        return lambda *arguments: method(*arguments)

    monkeypatch.setattr(torch, "compile", compiled)
    common = {"epochs": 1, "batch_size": 9}
    run(tiny_config(tiny_shards, "vit", **common), tmp_path / "eager")
    assert calls == []
    reporter = Reporter()
    run(tiny_config(tiny_shards, "vit", compile=True, **common), tmp_path / "compiled", reporter=reporter)
    assert calls == ["training_loss"]
    assert [note for note in reporter.notes if "compile" in note] == [
        "torch.compile works on the first step now, which may take some minutes"
    ]
    eager, found = weights_of(tmp_path / "eager"), weights_of(tmp_path / "compiled")
    assert all(torch.equal(found[name], value) for name, value in eager.items())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_half_precision_with_sixteen_bits_is_refused_on_a_cpu():
    with pytest.raises(ActcliError, match="16-mixed needs a CUDA device; on the CPU choose bf16-mixed"):
        launch(HARDWARE, "16-mixed")


# -- the rate of a larger batch ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "rate"), [(None, 0.01), ("linear", 0.04), ("sqrt", 0.02)])
def test_the_rate_grows_with_the_clips_of_an_update_by_the_named_rule(rule, rate):
    recipe = override_recipe(tiny_recipe(batch_size=4), {"batch_size": 8, "accumulate": 2, "scale_lr": rule})
    assert recipe.base_rate == pytest.approx(rate)
    assert override_recipe(recipe, {}).base_rate == recipe.base_rate


def test_the_largest_batch_is_what_fits_at_once(tiny_shards, monkeypatch):
    memory = step_memory({"name": "tsm", "num_classes": 6, "num_frames": 2, **RESNET}, 32)
    monkeypatch.setattr(largest, "available_memory", lambda device: int(memory.of(11) / 0.75) + 1)
    notes = []
    config = with_largest_batch(tiny_config(tiny_shards), HARDWARE, notes.append)
    assert (config.recipe.batch_size, config.micro_batch) == (8, 8)  # nine tenths of 11, and a multiple of 8
    assert notes == [
        "batches of 8 clips, 8 at once on each device, in place of 4; the learning rate stays, see --scale-lr"
    ]
    assert largest_batch(config.recipe, 6, torch.device("cpu"), most=5) == 5


# -- before the first epoch, and when it goes wrong --------------------------------------------------------------------


def test_a_validation_that_cannot_work_fails_before_the_first_step(tiny_shards, tmp_path, monkeypatch):
    def fails(*arguments, num_batches, **others):
        assert num_batches == 2
        raise ActcliError("no such view")

    monkeypatch.setattr(trainer, "score_split", fails)
    reporter = Reporter()
    with pytest.raises(ActcliError, match="no such view"):
        run(tiny_config(tiny_shards), tmp_path, reporter=reporter)
    assert reporter.steps == []


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_too_little_memory_says_what_to_lower(tiny_shards, tmp_path, monkeypatch, error):
    def loss(*_):
        raise error

    monkeypatch.setattr(TrainingStep, "_forward", loss)
    config = replace(tiny_config(tiny_shards), micro_batch=4)
    with pytest.raises(ActcliError, match=r"memory for 4 clips of 2 frames of 32 pixels .*--micro-batch 2, --frames"):
        run(config, tmp_path)


def test_a_run_goes_on_in_smaller_passes(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, "vit", augmentation=STILL)
    run(config, tmp_path / "whole")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "cut", reporter=Stopper((0, 3)))
    smaller = continued_run(tmp_path / "cut", micro_batch=2)
    smaller.train(HARDWARE, Reporter())
    [change] = RunConfig.read(tmp_path / "cut").changes
    assert "in 2 parts instead of 1" in change
    assert change.endswith("from epoch 1, step 4 on")
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    for name, value in whole.items():
        torch.testing.assert_close(cut[name], value, rtol=1e-4, atol=1e-6)


def test_weights_that_are_no_numbers_are_never_kept(tiny_shards, tmp_path):
    updates = []

    def spoil(optimizer, *_):
        updates.append(1)
        if len(updates) == 3:
            optimizer.param_groups[0]["params"][0].data.fill_(float("nan"))

    handle = register_optimizer_step_post_hook(spoil)
    try:
        with pytest.raises(ActcliError, match=r"the weights became NaN in epoch 1, step 3, on the clips 0000"):
            run(tiny_config(tiny_shards, "vit"), tmp_path, replace(HARDWARE, checkpoint_minutes=0))
    finally:
        handle.remove()
    state = load_checkpoint(tmp_path / LAST_CHECKPOINT)
    assert state["progress"]["step"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_weights_of_every_second_epoch_are_kept(tiny_shards, tmp_path):
    run(tiny_config(tiny_shards, "vit", epochs=5, batch_size=18, keep_every=2, validate_every=5), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("epoch-*"))
    assert kept == ["epoch-0002.safetensors", "epoch-0004.safetensors"]
    assert load_weights(tmp_path / "checkpoints" / kept[0])[1]["epoch"] == 1


def test_a_csv_file_has_each_point_once_after_a_run_went_on(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, "vit", log=("csv",))
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path, reporter=Killed((1, 2)))
    run(RunConfig.read(tmp_path), tmp_path, resume=True)
    with (tmp_path / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["name"] == "train/loss"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [int(row["step"]) for row in rows if row["name"] == "epoch/val_top1"] == [4, 8]
    assert not (tmp_path / "tensorboard").exists()


class Killed(Reporter):
    """Ends the training without a checkpoint."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def step(self, report):
        if (report.epoch, report.step) == self.at:
            raise KeyboardInterrupt


def test_tensorboard_shows_the_first_clips_as_the_network_sees_them(tiny_shards, tmp_path):
    run(tiny_config(tiny_shards, "vit", epochs=1, batch_size=9), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    [image] = events.Images("train/clips")
    assert (image.width, image.height) == (2 * 34 + 2, 8 * 34 + 2)  # 8 clips of 2 frames, with margins of 2 pixels


def test_a_grid_has_a_row_for_each_clip_and_a_column_for_each_frame():
    clips = torch.zeros(3, 2, 10, 4, 4)  # flow: its first x component is shown
    clips[1, 0, 0] = 1.0
    grid = clip_grid(clips)
    assert grid.shape == (3 * 6 + 2, 2 * 6 + 2, 3)
    np.testing.assert_array_equal(grid[9:11, 3:5], 255)
    assert grid[:8].max() == 0


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_a_service_takes_the_curves(name, tiny_shards, tmp_path, monkeypatch):
    for variable, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "TRACKIO_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(variable, value)
    pytest.importorskip(name, reason=f"{name} is an optional extra", exc_type=ImportError)
    run(tiny_config(tiny_shards, "vit", epochs=1, batch_size=9, log=(name,)), tmp_path / "run")
    suffix = {"trackio": ".db", "wandb": ".wandb"}[name]
    assert [path.suffix for path in tmp_path.rglob(f"*{suffix}")] == [suffix]


def test_a_service_that_is_not_installed_is_named_before_anything_is_built(tiny_shards, tmp_path, monkeypatch):
    monkeypatch.setattr("actcli.engine.tracking.find_spec", lambda name: None)
    with pytest.raises(ActcliError, match=r"wandb, which is not installed. Install it with: pip install wandb"):
        run(tiny_config(tiny_shards, log=("tensorboard", "wandb")), tmp_path)
    check_trackers(("tensorboard", "csv"))


def test_the_end_of_a_training_says_where_its_time_went(tiny_shards, tmp_path):
    reporter = Reporter()
    run(tiny_config(tiny_shards, "vit", epochs=1, batch_size=9), tmp_path, reporter=reporter)
    rows = {name: seconds for name, seconds, _ in reporter.times.rows()}
    assert sum(rows.values()) == pytest.approx(reporter.times.total)
    assert min(rows[name] for name in ("forward", "backward", "optimiser", "validation", "checkpoints")) > 0
    assert "%" in reporter.times.advice()


def test_every_option_of_a_recipe_survives_its_file(tiny_shards, tmp_path):
    changes = {"optimizer": "adamw", "ema": 0.9, "log": ["csv", "tensorboard"], "schedule": {"per": "step"}}
    config = replace(tiny_config(tiny_shards), recipe=override_recipe(tiny_recipe(), changes))
    config.write(tmp_path)
    assert RunConfig.read(tmp_path) == config
    assert (config.recipe.log, config.recipe.schedule.per) == (("csv", "tensorboard"), "step")


@pytest.mark.gpu
@pytest.mark.parametrize("changes", [{"precision": "16-mixed"}, {"precision": "bf16-mixed", "compile": True}])
def test_a_gpu_trains_in_half_precision_and_compiled(tiny_shards, tmp_path, changes):
    history = run(tiny_config(tiny_shards, epochs=1, **changes), tmp_path, replace(HARDWARE, accelerator="cuda"))
    assert history[0].train_loss == pytest.approx(1.79, abs=0.5)
    assert all(value.isfinite().all() for value in weights_of(tmp_path).values())
