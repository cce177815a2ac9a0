"""What ``train`` decides before it trains: the recipe's numbers, a new run or one that is continued, all split sets."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path
from typing import Any

import torch

from actcli.engine.hardware import Hardware, available_memory, training_device
from actcli.engine.largest import largest_batch
from actcli.engine.memory import micro_batch_size, step_memory
from actcli.engine.overrides import override_recipe, settle_pretrained
from actcli.engine.recipes import find_recipe, load_recipe
from actcli.engine.reporting import EpochReport, Reporter
from actcli.engine.run_files import run_bytes
from actcli.engine.runs import (
    CONFIG_NAME,
    RunConfig,
    RunState,
    find_same,
    is_finished,
    list_runs,
    read_state,
    run_name,
)
from actcli.engine.trainer import train
from actcli.errors import ActcliError
from actcli.files import check_writable, nearest_folder
from actcli.models import create_model, profile_model
from actcli.models.profile import example_inputs
from actcli.shards import WHOLE, ShardSet, Subset, select_shards
from actcli.words import counted

Note = Callable[[str], None]
_TIMED_CLIPS = 2


@dataclass(frozen=True)
class TrainRequest:
    """What to train on what, as the user says it."""

    shards: str
    """Folder or URL of the shards."""
    model: str | None = None
    """Model; its recipe for the dataset is taken."""
    recipe: str | None = None
    """Name of a recipe, or a YAML file."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe that are replaced; None leaves a field alone."""
    settings: Sequence[str] = ()
    """Further changes, as ``field=value``."""
    init: str | None = None
    """Weights the training starts from."""
    new_head: bool = False
    """With ``init``: start a new classifier."""
    split_id: str = "1"
    """Split set."""
    joined: Sequence[str] = ()
    """Further folders of shards, whose classes are joined by name."""
    subset: Subset = WHOLE
    """Which clips to train on."""
    micro_batch: int | None = None
    """Clips per forward and backward pass; by the memory at hand unless given."""


@dataclass(frozen=True)
class Run:
    """A training that is about to begin or to go on."""

    config: RunConfig
    """What is trained on what."""
    run_dir: Path
    """Where."""
    resume: bool
    """Whether it goes on from a checkpoint."""

    def plan(self, hardware: Hardware) -> "TrainingPlan":
        """What it would take on this machine.

        Raises:
            ActcliError: As ``plan_training``, or nothing can be written where the run would be.
        """
        plan = plan_training(self.config, hardware)
        check_writable(nearest_folder(self.run_dir), plan.disk_bytes)
        return plan

    def train(self, hardware: Hardware, reporter: Reporter) -> list[EpochReport]:
        """Train to the end."""
        return train(self.config, self.run_dir, hardware, reporter, resume=self.resume)


def make_config(request: TrainRequest, note: Note = lambda _: None) -> RunConfig:
    """The configuration of a new run.

    Raises:
        ActcliError: There is no such model, recipe or file, or a number is wrong.
    """
    shards = select_shards((request.shards, *request.joined), request.subset)
    card = shards.card
    if request.recipe is None and request.model is None:
        raise ActcliError("say which model to train: actcli train --model tsm. All of them: actcli models")
    if request.new_head and request.init is None:
        raise ActcliError("new_head (--new-head) replaces the classifier of weights; give them with init (--init).")
    if request.micro_batch is not None and request.micro_batch < 1:
        raise ActcliError(f"micro_batch is {request.micro_batch}; it has to be at least 1.")
    recipe = load_recipe(request.recipe) if request.recipe else find_recipe(str(request.model), card.name.split("+")[0])
    if request.model is not None and recipe.model != request.model:
        raise ActcliError(f"recipe {recipe.name} is for {recipe.model}, not {request.model}; leave out the model.")
    recipe = override_recipe(recipe, request.changes, request.settings)
    if request.init is None:
        recipe = settle_pretrained(recipe, explicit=request.changes.get("pretrained") is not None, note=note)
    return RunConfig(
        recipe,
        card.name,
        _everywhere(request.shards),
        split_id=request.split_id,
        init=request.init,
        new_head=request.new_head,
        micro_batch=request.micro_batch,
        joined=tuple(map(_everywhere, request.joined)),
        subset=request.subset,
    )


def with_largest_batch(config: RunConfig, hardware: Hardware, note: Note = lambda _: None) -> RunConfig:
    """The same training with the largest batch whose clips go through the network at once on this machine.

    Raises:
        ActcliError: Several processes were started already, which would look at the same time.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ActcliError(
            "the batch size (--find-batch-size) is found by one process; look without torchrun first, then give the "
            "clips of all processes together with --batch-size."
        )
    recipe, card = config.recipe, config.open_shards().card
    most = card.splits(config.split_id).get("train", 0) // hardware.devices
    clips = largest_batch(recipe, len(card.classes), training_device(hardware), most)
    batch_size = clips * hardware.devices
    hint = "" if recipe.scale_lr else "; the learning rate stays, see --scale-lr"
    note(f"batches of {batch_size} clips, {clips} at once on each device, in place of {recipe.batch_size}{hint}")
    return replace(config, recipe=replace(recipe, batch_size=batch_size), micro_batch=clips)


def _everywhere(shards: str) -> str:
    """The same shards from whatever folder a later command is given in."""
    return shards if "://" in shards else str(Path(shards).absolute())


def split_set_requests(request: TrainRequest) -> list[TrainRequest]:
    """The same training on every split set of the dataset."""
    return [replace(request, split_id=split_id) for split_id in ShardSet.open(request.shards).card.split_sets]


def new_run(config: RunConfig, runs: Path, run_dir: Path | None, note: Note = lambda _: None) -> Run:
    """A run that begins now.

    Raises:
        ActcliError: ``run_dir`` is a run already.
    """
    target = run_dir or runs / run_name(config.recipe, config.dataset, config.split_id, datetime.now())
    if (target / "config.yaml").exists():
        raise ActcliError(f"{target} is a run already. Continue it with --resume, or choose another --run-dir.")
    interrupted = find_same(runs, config, finished=False) if run_dir is None else None
    if interrupted is not None:
        note(f"{interrupted} was interrupted with these settings; to continue it instead, add --resume")
    return Run(config, target, resume=False)


def same_run(config: RunConfig, runs: Path, note: Note = lambda _: None, epochs: int | None = None) -> Run:
    """The run with exactly these settings, to be continued or finished already; a new one where there is none.

    ``epochs`` takes it further, or less far, than its settings say.
    """
    for finished in (False, True):
        found = find_same(runs, config, finished=finished)
        if found is not None:
            return continued_run(found, epochs)
    if list_runs(runs):
        note("no run has these settings; starting a new one")
    return new_run(replace(config, recipe=replace(config.recipe, epochs=epochs or config.recipe.epochs)), runs, None)


def newest_on_all_split_sets(runs: Path) -> list[RunConfig]:
    """The settings of the newest run, on every split set of its dataset.

    Raises:
        ActcliError: There is no run, or it cannot be read.
    """
    config = RunConfig.read(newest_run(runs)).settings()
    return [replace(config, split_id=split_id) for split_id in config.open_shards().card.split_sets]


def newest_run(runs: Path) -> Path:
    """The newest unfinished run; where all are finished, the newest of all.

    Raises:
        ActcliError: There is no run.
    """
    found = list_runs(runs)
    if not found:
        raise ActcliError(f"there is no run in {runs} to continue. Start one: actcli train --model tsm")
    unfinished = [run for run in found if not is_finished(run)]
    return (unfinished or found)[-1]


def continued_run(run_dir: Path, epochs: int | None = None, micro_batch: int | None = None) -> Run:
    """A run that goes on where it stopped, perhaps to another number of epochs or in smaller passes.

    Raises:
        ActcliError: It did more epochs already.
    """
    state = read_state(run_dir)
    config, done = state.config, len(state.epochs)
    if epochs is not None and epochs < done:
        raise ActcliError(f"{run_dir} has done {counted(done, 'epoch')} already; epochs has to be more than that.")
    before, changes = config.recipe.epochs, config.changes
    if epochs not in (None, before):
        changes = (*changes, f"{epochs} epochs instead of {before}, from epoch {done + 1} on")
    recipe = replace(config.recipe, epochs=epochs or config.recipe.epochs)
    config = replace(
        config,
        recipe=recipe,
        micro_batch=micro_batch or config.micro_batch,
        changes=changes,
    )
    return Run(config, run_dir, resume=True)


def continued_same(config: RunConfig, run_dir: Path, epochs: int | None = None) -> Run:
    """The run in ``run_dir``, which has to have the settings of ``config``; only ``epochs`` may differ.

    Raises:
        ActcliError: It was started with other settings, or did more epochs already.
    """
    found = RunConfig.read(run_dir)
    recipe = replace(found.recipe, epochs=config.recipe.epochs)
    if replace(found, recipe=recipe).settings() != config.settings():
        raise ActcliError(
            f"{run_dir} was started with other settings than these; its {CONFIG_NAME} has them. Give the same ones, "
            f"or choose another folder for a new run (--run-dir)."
        )
    return continued_run(run_dir, epochs)


def list_states(runs: Path) -> list[RunState | ActcliError]:
    """How far each run came, oldest first; where a run cannot be read, why."""

    def state(run_dir: Path) -> RunState | ActcliError:
        try:
            return read_state(run_dir)
        except ActcliError as error:
            return error

    return [state(run_dir) for run_dir in list_runs(runs)]


def describe_finished(run: Run) -> str | None:
    """What to say of a run that has nothing left to do, or None."""
    state = read_state(run.run_dir)
    if not state.finished or run.config.recipe.epochs > len(state.epochs):
        return None
    best = "" if state.best_top1 is None else f", best top-1 {100 * state.best_top1:.2f} %"
    return (
        f"{run.run_dir} is finished: {counted(len(state.epochs), 'epoch')}{best}. Extend it with: actcli train "
        f"--resume --run-dir {run.run_dir} --epochs {2 * len(state.epochs)}"
    )


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would take."""

    num_clips: Mapping[str, int]
    """Clips per split of the split set."""
    steps_per_epoch: int
    """Updates of the loader, the incomplete batch left out."""
    epochs: int
    """Passes over the training split."""
    parameters: int
    """Trained values."""
    gflops: float
    """Multiply-accumulates of one clip, forward, in units of 1e9."""
    micro_batch: int
    """Clips through the network at once on this machine."""
    memory_bytes: int
    """What that takes."""
    free_bytes: int
    """What is free."""
    disk_bytes: int
    """What the run's folder will hold at most."""
    clip_seconds: float
    """Time of a training step per clip on this machine, reading and validation left out."""

    def rows(self) -> list[tuple[str, str]]:
        """As a table: what, value."""
        clips = ", ".join(f"{split} {count}" for split, count in self.num_clips.items())
        epoch_seconds = self.clip_seconds * self.num_clips["train"]
        epoch, whole = (timedelta(seconds=ceil(seconds)) for seconds in (epoch_seconds, epoch_seconds * self.epochs))
        return [
            ("clips", clips),
            ("steps", f"{self.steps_per_epoch} an epoch, {self.steps_per_epoch * self.epochs} in all"),
            ("parameters", f"{self.parameters / 1e6:.1f} M"),
            ("GFLOPs per clip", f"{self.gflops:.1f} forward, about three times that for a training step"),
            ("clips at once", str(self.micro_batch)),
            ("memory", f"{self.memory_bytes / 1e9:.1f} GB of {self.free_bytes / 1e9:.1f} GB free"),
            ("disk", f"{self.disk_bytes / 1e9:.2f} GB"),
            ("time", f"about {epoch} an epoch, {whole} in all (h:min:s; a step timed, reading left out)"),
        ]


def plan_training(config: RunConfig, hardware: Hardware) -> TrainingPlan:
    """What ``config`` would take on this machine: counted, and timed on two clips of noise.

    Raises:
        ActcliError: There is no such split set, or its training clips do not fill one batch.
    """
    recipe = config.recipe
    card = config.open_shards().card
    splits = card.splits(config.split_id) | {
        split: count
        for split, count in config.open_shards(tests=True).card.splits(config.split_id).items()
        if split != "train"
    }
    if splits.get("train", 0) < recipe.batch_size:
        raise ActcliError(
            f"{splits.get('train', 0)} training clips do not fill one batch of {recipe.batch_size}. Lower batch_size "
            f"(--batch-size)."
        )
    options = {"num_classes": len(card.classes), "num_frames": recipe.num_frames, **recipe.model_options}
    profile = profile_model(recipe.model, size=recipe.size, **options)
    memory = step_memory(recipe.model, recipe.size or profile.input_shapes[0][-1], **options)
    device = training_device(hardware)
    free = available_memory(device)
    micro_batch = config.micro_batch or micro_batch_size(recipe.batch_size, memory.fitting_clips(free))
    return TrainingPlan(
        num_clips=splits,
        steps_per_epoch=splits.get("train", 0) // recipe.batch_size,
        epochs=recipe.epochs,
        parameters=profile.parameters,
        gflops=profile.macs / 1e9,
        micro_batch=micro_batch,
        memory_bytes=memory.of(micro_batch),
        free_bytes=free,
        disk_bytes=run_bytes(recipe, profile.parameters),
        clip_seconds=_clip_seconds(device, min(_TIMED_CLIPS, micro_batch), recipe.model, recipe.size, **options),
    )


def _clip_seconds(device: torch.device, num_clips: int, name: str, size: int | None, **options: Any) -> float:
    """What a training step takes per clip, measured on clips of noise after one step to warm up."""
    with device:
        model = create_model(name, **options).train().to(memory_format=torch.channels_last)
        inputs = example_inputs(model, batch_size=num_clips, size=size)
        labels = torch.zeros(num_clips, dtype=torch.long)

    def step() -> None:
        loss, _ = model.training_loss(inputs, labels, torch.nn.CrossEntropyLoss())
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device

    step()
    before = time.perf_counter()
    step()
    return (time.perf_counter() - before) / num_clips
