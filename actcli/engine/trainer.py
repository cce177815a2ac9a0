"""Train a model on shards: what a training is, epoch by epoch.

Everything random is a function of (seed, step): the loader's views, mixup, and what dropout draws. A run that was
killed continues from its last checkpoint to the very weights that an undisturbed run has.
"""

import shlex
import signal
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric

from actcli.engine.checkpoints import load_checkpoint, save_checkpoint
from actcli.engine.clock import StepClock
from actcli.engine.hardware import Hardware, describe_crowd, launch
from actcli.engine.memory import told_what_to_lower
from actcli.engine.metrics import Accuracies, summarise
from actcli.engine.preparation import Prepared, prepare
from actcli.engine.progress import Progress
from actcli.engine.recipes import Recipe
from actcli.engine.reporting import EpochReport, Reporter, Silent, StepReport
from actcli.engine.run_files import RunFiles, missing_bytes
from actcli.engine.runs import BEST_WEIGHTS, LAST_CHECKPOINT, RunConfig, writing_run
from actcli.engine.schedules import StepPlace
from actcli.engine.scoring import score_split
from actcli.engine.signals import Interrupted, StopWish, stop_wish
from actcli.engine.splits import check_shared
from actcli.engine.step import Layout, StepState
from actcli.engine.tally import Tally
from actcli.engine.tracking import clip_grid
from actcli.errors import ActcliError
from actcli.files import check_writable, folder_lock
from actcli.loaders import Batch
from actcli.loaders.iterating import LoaderState

_EARLY_BATCHES = 2
"""Batches that are validated before the first epoch."""
_LOOK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps after which the losses of a device are looked at; looking makes a GPU wait."""


class _TrainingState(StepState):
    """What a checkpoint holds."""

    progress: dict[str, object]
    loader: LoaderState
    layout: dict[str, int]


def train(
    config: RunConfig, run_dir: Path, hardware: Hardware, reporter: Reporter, *, resume: bool = False
) -> list[EpochReport]:
    """Run a training to its end.

    Args:
        config: What to train on what.
        run_dir: Folder of the run; ``config.yaml`` is written once everything fits together.
        hardware: Where.
        reporter: Hears of progress, on the first process only.
        resume: Continue from the run's last checkpoint, or start where it has none yet.

    Returns:
        One report per epoch.

    Raises:
        ActcliError: Something does not fit together, or the loss is no longer a number.
    """
    recipe = Recipe.from_dict(config.recipe.to_dict(), "the recipe")  # made by hand in Python, it was not checked yet
    check_shared(recipe.batch_size, hardware.devices)  # before so many processes are started
    if crowd := describe_crowd(hardware):
        reporter.note(crowd)
    fabric = launch(hardware, recipe.precision)
    reporter = reporter if fabric.is_global_zero else Silent()
    with ExitStack() as stack:
        wish = stack.enter_context(stop_wish(reporter.note))
        prepared = prepare(replace(config, recipe=recipe), hardware, fabric, reporter.note)
        training = Training(prepared, run_dir, hardware, reporter, wish)
        stack.enter_context(writing_run(run_dir))
        stack.enter_context(training)
        if fabric.is_global_zero:  # only now, so that a training that does not fit together leaves no folder
            check_writable(run_dir, missing_bytes(run_dir, recipe, training.num_values))
            stack.enter_context(folder_lock(run_dir, "Another training"))
            # from here on nobody else writes what is read below
            if not resume and (run_dir / LAST_CHECKPOINT).exists():
                raise ActcliError(
                    f"{run_dir} is a run already. Continue it with --resume, or choose another --run-dir."
                )
        if resume:
            training.restore()
        if fabric.is_global_zero:
            training.open_run()
        return training.run()


class Training:
    """The epochs of one training, on one process."""

    def __init__(
        self, prepared: Prepared, run_dir: Path, hardware: Hardware, reporter: Reporter, wish: StopWish
    ) -> None:
        self.prepared, self.recipe = prepared, prepared.config.recipe
        self.step, self.train_loader, self.val_loader = prepared.step, prepared.train_loader, prepared.val_loader
        self.fabric: Fabric = prepared.step.fabric
        self.stopwatch = prepared.step.stopwatch
        self.run_dir, self.hardware, self.reporter, self.wish = run_dir, hardware, reporter, wish
        self.progress = Progress()
        self.files: RunFiles | None = None
        """On the first process, once the run is open."""
        self.saved_at = time.monotonic()
        self.tally = Tally()
        self.clock = StepClock()
        self.foretold = False

    def __enter__(self) -> "Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.train_loader.close()
        self.val_loader.close()
        if self.files:
            self.files.close()

    @property
    def num_values(self) -> int:
        """Numbers that the weights consist of."""
        return sum(int(value.numel()) for value in self.step.plain_model.state_dict().values())

    def open_run(self) -> None:
        """Write what the run is, on the first process."""
        history, done = self.progress.history, self._place.number
        self.files = RunFiles(
            self.run_dir, self.prepared.config, self.prepared.card, history, done, complete=self._complete
        )

    def run(self) -> list[EpochReport]:
        """All epochs that are left."""
        self.stopwatch.start()
        if not self._place.number:
            self._validate(_EARLY_BATCHES)
        has_work = not self._complete
        while not self._complete:
            self._run_epoch()
            self.reporter.epoch(self._close_epoch())
            self._save()
            self._stop_if_wished()
        if self.files:  # a run that was killed after its last epoch lacks only this
            self.files.finished()
        if has_work:
            self.reporter.finished(self.stopwatch.table())
        return self.progress.history

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        self.step.model.train()
        self.train_loader.set_epoch(self.progress.epoch)
        self.clock.start()
        for batch in self.clock.waits(self.train_loader, self.stopwatch):
            place = self._place
            with self.stopwatch.measure("host to device"):
                batch = batch.to(self.fabric.device, non_blocking=True)
            self._show_clips(batch, place)
            if self.recipe.compile and self.clock.is_new:
                self.reporter.note("torch.compile works on the first step now, which may take some minutes")
            with told_what_to_lower(self._clips_in_words, self.step.micro_batch, self._continue_with):
                self.tally.add(self.step.run(batch, place, self._foretell))
            self.progress.step += 1
            self.clock.count(len(batch) * self.fabric.world_size)
            if self._time_to_look():
                self._look()
                self._report_step(place)
                if place.ends_update(self.recipe.accumulate):
                    self._save_if_due()

    @property
    def _place(self) -> StepPlace:
        """Of the next step."""
        return StepPlace(self.progress.epoch, self.progress.step, len(self.train_loader))

    @property
    def _complete(self) -> bool:
        return self.progress.epoch >= self.recipe.epochs

    @property
    def _clips_in_words(self) -> str:
        return f"clips of {self.recipe.num_frames} frames of {self.recipe.size or self.step.spec.size} pixels"

    @property
    def _continue_with(self) -> str:
        return f"actcli train --resume --run-dir {shlex.quote(str(self.run_dir))}"

    def _show_clips(self, batch: Batch, place: StepPlace) -> None:
        """Keep a picture of the very first batch, as the network sees it."""
        if self.files and not place.number:
            inputs, _ = self.step.inputs(batch, place)
            self.files.picture("train/clips", clip_grid(inputs[0]), place.number)

    def _foretell(self, clips_done: int) -> None:
        """Tell after the first pass what an epoch will take; a step may be long on a small machine."""
        compiling = self.recipe.compile and self.clock.is_new
        if self.foretold or compiling:
            return
        self.foretold = True
        seconds = self.clock.working_seconds * self.train_loader.order.batch_size / clips_done
        num_steps = len(self.train_loader)
        self.reporter.foretold(seconds * num_steps, seconds * self._steps_left())

    def _steps_left(self) -> int:
        return self.recipe.epochs * len(self.train_loader) - self._place.number

    def _time_to_look(self) -> bool:
        every = _LOOK_EVERY.get(self.fabric.device.type, 1)
        return self.progress.step % every == 0 or self.progress.step == len(self.train_loader)

    def _look(self) -> None:
        """Count what the device did since the last look, and how long it took."""
        self.tally.count(self.progress)
        self.stopwatch.settle()

    def _report_step(self, place: StepPlace) -> None:
        progress, clock = self.progress, self.clock
        pace = clock.seconds_per_step
        report = StepReport(
            epoch=progress.epoch,
            step=progress.step,
            num_steps=place.num_steps,
            num_epochs=self.recipe.epochs,
            loss=progress.loss_sum / progress.seen,
            clips_per_second=clock.clips_per_second,
            waiting=clock.waiting,
            seconds_left=None if pace is None else self._steps_left() * pace,
            epoch_seconds=None if pace is None else place.num_steps * pace,
        )
        self.reporter.step(report)
        if self.files and place.ends_update(self.recipe.accumulate):
            self.files.step(report, place.number + 1)

    def _close_epoch(self) -> EpochReport:
        progress = self.progress
        self.tally.check_weights(self.step, self.progress)
        loss_sum, correct, seen = self._totals()
        rate = self.recipe.learning_rate_at(replace(self._place, step=progress.step - 1))
        report = EpochReport(progress.epoch, rate, loss_sum / seen, correct / seen)
        if self._validation_due():
            report = report.validated(self._validate())
        progress.history.append(report)
        top1 = report.val_top1
        is_best = top1 is not None and (top1 > progress.best_top1 or not (self.run_dir / BEST_WEIGHTS).exists())
        if top1 is not None and is_best:
            progress.best_top1 = top1
        if self.files:
            self.files.epoch(progress.history, self.step.scored_model, self._place.number, is_best=is_best)
        progress.begin_epoch()
        return report

    def _totals(self) -> tuple[float, int, int]:
        """Loss, right guesses and clips of this epoch so far, summed over all processes."""
        progress = self.progress
        own = torch.tensor([progress.loss_sum, progress.correct, progress.seen], dtype=torch.float64)
        loss_sum, correct, seen = torch.as_tensor(self.fabric.all_reduce(own, reduce_op="sum")).tolist()
        return loss_sum, int(correct), int(seen)

    def _validation_due(self) -> bool:
        done = self.progress.epoch + 1
        return done % self.recipe.validate_every == 0 or done == self.recipe.epochs

    def _validate(self, num_batches: int | None = None) -> Accuracies:
        model = self.step.scored_model
        if self.fabric.world_size > 1:  # the statistics of batch norm are those of the first process, as in the files
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        told = self._validating if num_batches is None else None
        with self.stopwatch.measure("validation"):
            scores = score_split(
                model, self.val_loader, self.step.spec, self.fabric, num_batches=num_batches, progress=told
            )
        return summarise(scores)

    def _validating(self, done: int, total: int) -> None:
        self.reporter.validating(done, total)
        if self.wish and self.fabric.world_size == 1:  # one of several processes cannot leave without the others
            self._save()
            self._stop()

    # -- stopping and going on ------------------------------------------------------------------------------------

    def _save_if_due(self) -> None:
        """Save where somebody wants to stop, or the last checkpoint is old; all processes have to agree."""
        stop, due = self._any(bool(self.wish), time.monotonic() - self.saved_at > 60 * self.hardware.checkpoint_minutes)
        if stop or due:
            self._save()
        if stop:
            self._stop()

    def _stop_if_wished(self) -> None:
        [stop] = self._any(bool(self.wish))
        if stop and not self._complete:
            self._stop()

    def _any(self, *wishes: bool) -> list[bool]:
        """Of each wish, whether some process has it."""
        own = torch.tensor(wishes, dtype=torch.int32, device=self.fabric.device)
        counts: list[int] = torch.as_tensor(self.fabric.all_reduce(own, reduce_op="sum")).tolist()
        return [count > 0 for count in counts]

    def _stop(self) -> None:
        progress = self.progress
        where = f"epoch {progress.epoch + 1}, after step {progress.step} of {len(self.train_loader)}"
        stopped = Interrupted(
            f"stopped in {where}; everything up to there is kept in {self.run_dir}. Continue with: "
            f"{self._continue_with}"
        )
        stopped.signal_number = self.wish.signal_number or signal.SIGTERM
        raise stopped

    def _save(self) -> None:
        self._look()
        self.tally.check_weights(self.step, self.progress)
        totals = self._totals()
        if self.fabric.is_global_zero:
            state: _TrainingState = {
                "progress": self.progress.to_plain(*totals),
                **self.step.state_dict(),
                "loader": self.train_loader.state_dict(),
                "layout": asdict(self.step.layout),
            }
            with self.stopwatch.measure("checkpoints"):
                save_checkpoint(self.run_dir / LAST_CHECKPOINT, state)
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """Go to the run's last checkpoint, where it has one.

        Raises:
            ActcliError: It is damaged, or of another training.
        """
        path = self.run_dir / LAST_CHECKPOINT
        if not path.exists():
            self.reporter.note(f"{self.run_dir} has no checkpoint; the training begins at its first step")
            return
        state = cast(_TrainingState, load_checkpoint(path))
        try:
            self.progress = Progress.from_plain(state["progress"])
            self.step.load_state_dict(state)
            loader, before = state["loader"], Layout(**state["layout"])
        except (ActcliError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ActcliError(f"{path} is no checkpoint of this training ({error}). Start a new run.") from error
        if not self.fabric.is_global_zero:  # the sums saved are those of all processes; the first goes on with them
            self.progress.loss_sum, self.progress.correct, self.progress.seen = 0.0, 0, 0
        self.train_loader.load_state_dict(loader)  # refuses other clips, at the end of an epoch as well
        self._adopt(before)
        if not self._complete:
            self.reporter.note(f"continuing in epoch {self.progress.epoch + 1}, after step {self.progress.step}")

    def _adopt(self, before: Layout) -> None:
        """Say, and write down, what is other than it was."""
        change = self.step.layout.changed_since(before)
        if change is None or self._complete:
            return
        config = self.prepared.config
        where = f"{change}; from epoch {self.progress.epoch + 1}, step {self.progress.step + 1} on"
        self.prepared = replace(self.prepared, config=replace(config, changes=(*config.changes, where)))
        self.reporter.note(change)
