"""What ``train`` decides before it trains: the recipe's numbers, a new run or one that is continued, all split sets."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

from actcli.engine.checkpoints import load_checkpoint
from actcli.engine.dry_run import TrainingPlan, plan_training
from actcli.engine.hardware import Hardware, training_device
from actcli.engine.history import is_finished
from actcli.engine.largest import largest_batch
from actcli.engine.overrides import override_recipe, settle_pretrained
from actcli.engine.recipes import find_recipe, load_recipe
from actcli.engine.reporting import EpochReport, Reporter
from actcli.engine.runs import (
    CONFIG_NAME,
    LAST_CHECKPOINT,
    RunConfig,
    RunState,
    find_same,
    list_runs,
    read_state,
    run_name,
)
from actcli.engine.trainer import train
from actcli.errors import ActcliError
from actcli.files import check_writable, nearest_folder
from actcli.shards import WHOLE, ShardSet, Subset, select_shards
from actcli.words import counted

Note = Callable[[str], None]
_MAX_NAMED = 4
"""Settings that differ which an error names."""


@dataclass(frozen=True)
class TrainRequest:
    """What to train on what, as the user says it."""

    shards: str
    """Folder or URL of the shards."""
    model: str | None = None
    """Model; its recipe for the dataset is taken."""
    recipe: str | None = None
    """Name of a recipe, or a YAML file."""
    changes: Mapping[str, object] = field(default_factory=dict)
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

    def plan(self, hardware: Hardware) -> TrainingPlan:
        """What it would take on this machine.

        Raises:
            ActcliError: As ``plan_training``; the index or the last checkpoint is damaged; nothing can be written where
                the run would be.
        """
        self.config.open_shards().index("train", self.config.split_id)
        if self.resume and (self.run_dir / LAST_CHECKPOINT).exists():
            load_checkpoint(self.run_dir / LAST_CHECKPOINT)
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
    if (target / CONFIG_NAME).exists():
        raise ActcliError(f"{target} is a run already. Continue it with --resume, or choose another --run-dir.")
    interrupted = find_same(runs, config, finished=False) if run_dir is None else None
    if interrupted is not None:
        note(f"{interrupted} was interrupted with these settings; to continue it instead, add --resume")
    return Run(config, target, resume=False)


def same_run(config: RunConfig, runs: Path, note: Note = lambda _: None, epochs: int | None = None) -> Run:
    """The run with exactly these settings, to be continued or finished already; a new one where there is none.

    ``epochs`` takes it further, or less far, than its settings say; it goes on in the passes that ``config`` asks for.
    """
    for finished in (False, True):
        found = find_same(runs, config, finished=finished)
        if found is not None:
            return continued_run(found, epochs, config.micro_batch)
    if list_runs(runs):
        note("no run has these settings; starting a new one")
    return new_run(_with_epochs(config, epochs), runs, None)


@dataclass(frozen=True)
class RunPlace:
    """Where runs are, and what is to become of those that are there."""

    runs: Path
    """Folder of all runs."""
    run_dir: Path | None = None
    """Folder of the run; with ``all_splits`` that of ``split1``, ``split2``, …"""
    resume: bool = False
    """Whether a run that is there goes on."""
    all_splits: bool = False
    """Whether there is a run for every split set."""
    epochs: int | None = None
    """Epochs to which a run goes on."""
    micro_batch: int | None = None
    """Clips of a pass with which a run goes on."""

    def before(self) -> RunConfig | None:
        """The settings of the single run that is named and goes on, if it was begun."""
        if not self.resume or self.run_dir is None or not (self.run_dir / CONFIG_NAME).exists():
            return None
        return RunConfig.read(self.run_dir)

    def runs_that_go_on(self, note: Note = lambda _: None) -> list[Run]:
        """What ``--resume`` alone means: the run that is named, or the newest; with ``all_splits`` on every split set.

        Raises:
            ActcliError: There is no run, or it cannot go on.
        """
        if not self.all_splits:
            return [continued_run(self.run_dir or newest_run(self.runs), self.epochs, self.micro_batch)]
        newest = newest_run(self.run_dir, "split*") if self.run_dir else newest_run(self.runs)
        settings = replace(RunConfig.read(newest).settings(), micro_batch=self.micro_batch)
        split_sets = settings.open_shards().card.split_sets
        return [self.run_of(replace(settings, split_id=split_id), note) for split_id in split_sets]

    def run_of(self, config: RunConfig, note: Note = lambda _: None) -> Run:
        """The run of these settings, one that goes on or a new one.

        Raises:
            ActcliError: The folder that is named is that of a run, which may not go on or has other settings.
        """
        folder = self.run_dir / f"split{config.split_id}" if self.run_dir and self.all_splits else self.run_dir
        if not self.resume:
            return new_run(config, self.runs, folder, note)
        if folder is None:
            return same_run(config, self.runs, note, self.epochs)
        if (folder / CONFIG_NAME).exists():
            return continued_same(config, folder, self.epochs)
        return new_run(_with_epochs(config, self.epochs), self.runs, folder, note)


def _with_epochs(config: RunConfig, epochs: int | None) -> RunConfig:
    return replace(config, recipe=replace(config.recipe, epochs=epochs or config.recipe.epochs))


def runs_to_train(
    request: TrainRequest, place: RunPlace, largest_on: Hardware | None = None, note: Note = lambda _: None
) -> list[Run]:
    """The trainings that a request means, on one split set or on all.

    Args:
        request: What to train on what.
        place: Where.
        largest_on: Take the largest batch that fits there.
        note: Told what the user should know.

    Raises:
        ActcliError: A number is wrong, or a run that is there has other settings.
    """
    before = place.before()
    if before is not None and place.run_dir is not None:
        return [continued_same(settings_as_asked(before, request), place.run_dir, place.epochs)]
    configs = [make_config(part, note) for part in (split_set_requests(request) if place.all_splits else [request])]
    if largest_on is not None:
        configs = [with_largest_batch(config, largest_on, note) for config in configs]
    return [place.run_of(config, note) for config in configs]


def newest_run(runs: Path, names: str = "*") -> Path:
    """The newest unfinished run that is called so; where all are finished, the newest of all.

    Raises:
        ActcliError: There is no run.
    """
    found = [run for run in list_runs(runs) if run.match(names)]
    if not found:
        raise ActcliError(f"there is no run in {runs} to continue. Start one: actcli train --model tsm")
    unfinished = [run for run in found if not is_finished(run)]
    return (unfinished or found)[-1]


def continued_run(run_dir: Path, epochs: int | None = None, micro_batch: int | None = None) -> Run:
    """A run that goes on where it stopped, perhaps to another number of epochs or in smaller passes.

    Raises:
        ActcliError: It did more epochs already.
    """
    return _going_on(read_state(run_dir), epochs, micro_batch)


def continued_same(config: RunConfig, run_dir: Path, epochs: int | None = None) -> Run:
    """The run in ``run_dir``, which has to have the settings of ``config``; only ``epochs`` and passes may differ.

    Raises:
        ActcliError: It was started with other settings, or did more epochs already.
    """
    state = read_state(run_dir)
    wanted = _with_epochs(config, state.config.recipe.epochs)
    differing = _differences(asdict(state.config.settings()), asdict(wanted.settings()))
    more = f", and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
    if differing:
        raise ActcliError(
            f"{run_dir} was started with {', and '.join(differing[:_MAX_NAMED])}{more}; leave out what differs, or "
            f"choose another folder for a new run (--run-dir)."
        )
    return _going_on(state, epochs, config.micro_batch)


def _going_on(state: RunState, epochs: int | None, micro_batch: int | None) -> Run:
    config, done = state.config, len(state.epochs)
    if epochs is not None and epochs < done:
        raise ActcliError(
            f"{state.run_dir} has done {counted(done, 'epoch')} already; epochs has to be more than that."
        )
    before, changes = config.recipe.epochs, config.changes
    if epochs not in (None, before):
        changes = (*changes, f"{epochs} epochs instead of {before}, from epoch {done + 1} on")
    passes = config.micro_batch if micro_batch is None else micro_batch
    return Run(replace(_with_epochs(config, epochs), micro_batch=passes, changes=changes), state.run_dir, resume=True)


def settings_as_asked(before: RunConfig, request: TrainRequest) -> RunConfig:
    """The settings ``before`` with what ``request`` says in their place; what it leaves open stays as it is.

    A request that names a model or a recipe says everything, and leaves nothing open.

    Raises:
        ActcliError: A number is wrong.
    """
    if request.model or request.recipe:
        return make_config(request)
    return replace(
        before,
        recipe=override_recipe(before.recipe, request.changes, request.settings),
        shards=_everywhere(request.shards),
        joined=tuple(map(_everywhere, request.joined)),
        subset=before.subset if request.subset == WHOLE else request.subset,
        split_id=request.split_id,
        init=request.init or before.init,
        new_head=request.new_head or before.new_head,
        micro_batch=request.micro_batch or before.micro_batch,
    )


def _differences(before: Mapping[str, object], now: Mapping[str, object], place: str = "") -> list[str]:
    """``batch_size 8, not 16`` for each field that differs, also inside fields."""
    found = []
    for name, value in before.items():
        other = now.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            found += _differences(value, other, "" if name == "recipe" else f"{place}{name}.")
        elif value != other:
            found.append(f"{place}{name} {value!r}, not {other!r}")
    return found + [f"no {place}{name}" for name in now if name not in before]


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
        f"--resume --run-dir {shlex.quote(str(run.run_dir))} --epochs {2 * len(state.epochs)}"
    )
