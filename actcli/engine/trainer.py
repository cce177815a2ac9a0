"""Train a model on shards: build, run, close.

Everything random is a function of (seed, step): the loader's views, mixup, and what dropout draws. A run that was
killed continues from its last checkpoint to the very weights that an undisturbed run has.
"""

import math
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from actcli.engine.checkpoints import load_checkpoint, save_checkpoint
from actcli.engine.clock import StepClock
from actcli.engine.curves import Curves
from actcli.engine.hardware import Hardware, available_memory, launch
from actcli.engine.initial import build_model
from actcli.engine.inputs import model_inputs, seed_step
from actcli.engine.memory import StepMemory, micro_batch_size, step_memory
from actcli.engine.metrics import summarise
from actcli.engine.optimizer import build_mixup, build_optimizer
from actcli.engine.protocols import AskedViews, choose_views
from actcli.engine.recipes import Recipe
from actcli.engine.reporting import EpochReport, Reporter, StepReport
from actcli.engine.runs import (
    BEST_WEIGHTS,
    FINISHED_NAME,
    LAST_CHECKPOINT,
    LAST_WEIGHTS,
    RunConfig,
    write_history,
)
from actcli.engine.scoring import score_split
from actcli.engine.signals import Interrupted, StopWish, stop_wish
from actcli.engine.splits import open_test, open_training
from actcli.errors import ActcliError
from actcli.files import check_writable, folder_lock, remove_leftovers
from actcli.loaders import Batch, Loader
from actcli.models import VideoModel, save_weights
from actcli.shards import ShardSet

_RUN_COPIES = 6
"""Sets of weights in the folder of a run: best, last, the checkpoint with momentum, and that again while written."""
_LOOK_EVERY = {"cpu": 1, "cuda": 10}
"""Steps after which the losses of a device are looked at; looking makes a GPU wait."""


@dataclass
class _Progress:
    """Where the training is; part of every checkpoint."""

    epoch: int = 0
    step: int = 0
    """Batches done in this epoch."""
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    """Clips of this epoch so far, on this process."""
    best_top1: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)
    """The reports of the epochs that were done."""


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
    fabric = launch(hardware, recipe.precision)
    with ExitStack() as stack:
        wish = stack.enter_context(stop_wish(reporter.note))
        training = _Training(replace(config, recipe=recipe), run_dir, hardware, fabric, reporter, resume, wish)
        stack.enter_context(training)
        if fabric.is_global_zero:  # only now, so that a training that does not fit together leaves no folder
            check_writable(run_dir, training.disk_bytes)
            stack.enter_context(folder_lock(run_dir, "Another training"))
            training.open_run()
        return training.run()


class _Training:
    """One training on one process."""

    def __init__(
        self,
        config: RunConfig,
        run_dir: Path,
        hardware: Hardware,
        fabric: Fabric,
        reporter: Reporter,
        resume: bool,
        wish: StopWish,
    ) -> None:
        self.recipe, self.run_dir, self.wish = config.recipe, run_dir, wish
        self.hardware, self.fabric, self.reporter = hardware, fabric, reporter
        shards = ShardSet.open(config.shards)
        self.classes = shards.card.classes
        rgb = shards.card.extraction.get("rgb")
        self.extraction = dict(rgb.settings) if rgb else None
        model = build_model(config, self.classes, self._note)
        self.spec = model.input_spec
        self.config = config = self._cut_batches(config, model)
        self.train_loader, self.val_loader = self._open_loaders(shards)
        optimizer = build_optimizer(model, self.recipe)
        # two-dimensional networks run fastest channels-last, on CPUs and on tensor cores
        model = model.to(memory_format=torch.channels_last)
        self.plain_model = model
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.model.mark_forward_method("training_loss")
        self.criterion = nn.CrossEntropyLoss(label_smoothing=self.recipe.label_smoothing)
        self.mixup = build_mixup(self.recipe, len(self.classes))
        self.progress = _Progress()
        if resume and (run_dir / LAST_CHECKPOINT).exists():
            self._restore()
        elif resume:
            self._note(f"{run_dir} has no checkpoint; the training begins at its first step")
        self.curves: Curves | None = None
        self.saved_at = time.monotonic()
        self.unseen: list[_Unseen] = []
        self.clock = StepClock()
        self.foretold = False

    def __enter__(self) -> "_Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.train_loader.close()
        self.val_loader.close()
        if self.curves:
            self.curves.close()

    @property
    def disk_bytes(self) -> int:
        """What the folder of the run will take at most beside what it holds, files that are being written included."""
        num_values = sum(int(value.numel()) for value in self.plain_model.state_dict().values())
        held = sum(path.stat().st_size for path in (self.run_dir / "checkpoints").glob("*"))
        return _RUN_COPIES * 4 * num_values - held

    def open_run(self) -> None:
        """Write what the run is, on the first process."""
        remove_leftovers(self.run_dir)
        remove_leftovers(self.run_dir / "checkpoints")
        self.config.write(self.run_dir)
        if not self._complete():
            (self.run_dir / FINISHED_NAME).unlink(missing_ok=True)
        self.curves = self._open_curves()

    def run(self) -> list[EpochReport]:
        """All epochs that are left."""
        while self.progress.epoch < self.recipe.epochs:
            self._run_epoch()
            report = self._close_epoch()
            if self.fabric.is_global_zero:
                self.reporter.epoch(report)
            self._save()
            self._stop_if_wished()
        if self.fabric.is_global_zero:
            (self.run_dir / FINISHED_NAME).touch()
        return [EpochReport(**line) for line in self.progress.history]

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        progress, recipe = self.progress, self.recipe
        rate = recipe.schedule.learning_rate(recipe.learning_rate, progress.epoch, recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]
        self.model.train()
        self.train_loader.set_epoch(progress.epoch)
        self.clock.start()
        for batch in self.clock.waits(self.train_loader):
            self._step(batch.to(self.fabric.device, non_blocking=True))
            self.clock.count(len(batch) * self.fabric.world_size)
            if self._time_to_look():
                self._look()
                self._report_step()
                if self._at_update():
                    self._save_if_due()

    def _step(self, batch: Batch) -> None:
        progress, recipe = self.progress, self.recipe
        num_steps = len(self.train_loader)
        group_start = progress.step - progress.step % recipe.accumulate
        group_size = min(recipe.accumulate, num_steps - group_start)
        seed_step(recipe.seed, progress.epoch * num_steps + progress.step, self.fabric.global_rank)
        inputs, targets = self._mixed(model_inputs(batch, self.spec), batch.labels, progress.epoch * num_steps)
        progress.step += 1
        parts = zip(*(torch.split(tensor, self.micro_batch) for tensor in (*inputs, targets)), strict=True)
        num_left, losses, logits = len(batch), [], []
        for *part, part_targets in parts:
            num_left -= len(part_targets)
            with self.fabric.no_backward_sync(self.model, enabled=num_left > 0 or not self._at_update()):
                loss, part_logits = self.model.training_loss(tuple(part), part_targets, self.criterion)
                share = len(part_targets) / len(batch)
                self.fabric.backward(loss * (share / group_size))
            losses.append(loss.detach() * share)
            logits.append(part_logits.detach())
            self._foretell(len(batch) - num_left, len(batch))
        if self._at_update():
            self._update()
        self.unseen.append(_Unseen(torch.stack(losses).sum(), torch.cat(logits), batch.labels, batch.keys))

    def _foretell(self, clips_done: int, num_clips: int) -> None:
        """Tell after the first pass what an epoch will take; a step may be long on a small machine."""
        if self.foretold or not self.fabric.is_global_zero:
            return
        self.foretold = True
        seconds = self.clock.working_seconds * num_clips / clips_done
        epoch_seconds = seconds * len(self.train_loader)
        steps_left = len(self.train_loader) * (self.recipe.epochs - self.progress.epoch) - self.progress.step + 1
        self.reporter.foretold(epoch_seconds, seconds * steps_left)

    def _update(self) -> None:
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.recipe.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    @property
    def micro_batch(self) -> int:
        """Clips per forward and backward pass."""
        assert self.config.micro_batch is not None
        return self.config.micro_batch

    def _at_update(self) -> bool:
        """Whether the batches so far make whole updates."""
        step = self.progress.step
        return step % self.recipe.accumulate == 0 or step == len(self.train_loader)

    def _time_to_look(self) -> bool:
        every = _LOOK_EVERY.get(self.fabric.device.type, 1)
        return self.progress.step % every == 0 or self.progress.step == len(self.train_loader)

    def _mixed(self, inputs: tuple[Tensor, ...], labels: Tensor, first: int) -> tuple[tuple[Tensor, ...], Tensor]:
        if self.mixup is None:
            return inputs, labels
        return self.mixup(inputs, labels, first + self.progress.step)

    def _look(self) -> None:
        """Count the steps that the device did since the last look; refuse a loss that is no number."""
        progress = self.progress
        first = progress.step - len(self.unseen) + 1
        for step, seen in enumerate(self.unseen, first):
            loss = float(seen.loss)
            if not math.isfinite(loss):
                raise ActcliError(
                    f"the loss became {loss} in epoch {progress.epoch + 1}, step {step}, on the clips "
                    f"{', '.join(f'{key:09d}' for key in seen.keys.tolist())}. The last checkpoint is from before. "
                    f"Try a lower learning rate (--learning-rate) or the precision 32-true (--precision)."
                )
            progress.loss_sum += loss * len(seen.labels)
            progress.correct += int((seen.logits.argmax(1) == seen.labels).sum())
            progress.seen += len(seen.labels)
        self.unseen.clear()

    def _save_if_due(self) -> None:
        """Save where somebody wants to stop, or the last checkpoint is old; all processes have to agree."""
        wishes = torch.tensor(
            [bool(self.wish), time.monotonic() - self.saved_at > 60 * self.hardware.checkpoint_minutes],
            dtype=torch.int32,
            device=self.fabric.device,
        )
        stop, due = torch.as_tensor(self.fabric.all_reduce(wishes, reduce_op="sum")).tolist()
        if stop or due:
            self._save()
        if stop:
            self._stop()

    def _stop_if_wished(self) -> None:
        wish = torch.tensor(bool(self.wish), dtype=torch.int32, device=self.fabric.device)
        if int(torch.as_tensor(self.fabric.all_reduce(wish, reduce_op="sum"))) and not self._complete():
            self._stop()

    def _complete(self) -> bool:
        return self.progress.epoch >= self.recipe.epochs

    def _stop(self) -> None:
        progress = self.progress
        where = f"epoch {progress.epoch + 1}, after step {progress.step} of {len(self.train_loader)}"
        stopped = Interrupted(
            f"stopped in {where}; everything up to there is kept in {self.run_dir}. Continue with: "
            f"actcli train --resume --run-dir {self.run_dir}"
        )
        stopped.signal_number = self.wish.signal_number or signal.SIGTERM
        raise stopped

    def _report_step(self) -> None:
        if not self.fabric.is_global_zero:
            return
        progress, clock, num_steps = self.progress, self.clock, len(self.train_loader)
        loss = progress.loss_sum / progress.seen
        steps_left = (self.recipe.epochs - progress.epoch) * num_steps - progress.step
        pace = clock.seconds_per_step
        self.reporter.step(
            StepReport(
                progress.epoch,
                progress.step,
                num_steps,
                self.recipe.epochs,
                loss,
                clock.clips_per_second,
                clock.waiting,
                None if pace is None else steps_left * pace,
                None if pace is None else num_steps * pace,
            )
        )
        if self.curves and self._at_update():
            points = {
                "train/loss": loss,
                "train/clips_per_second": clock.clips_per_second,
                "train/share_of_time_waiting_for_data": clock.waiting,
            }
            self.curves.add(progress.epoch * num_steps + progress.step, points)

    def _close_epoch(self) -> EpochReport:
        progress, recipe = self.progress, self.recipe
        loss_sum, correct, seen = self._totals()
        scores = self._validate() if self._validation_due() else None
        rate = recipe.schedule.learning_rate(recipe.learning_rate, progress.epoch, recipe.epochs)
        values = {f"val_{name}": value for name, value in (scores or {}).items()}
        report = EpochReport(progress.epoch, rate, loss_sum / seen, correct / seen, **values)
        progress.history.append(report.__dict__)
        if self.fabric.is_global_zero:
            self._write_epoch(report)
        progress.epoch += 1
        progress.step, progress.loss_sum, progress.correct, progress.seen = 0, 0.0, 0, 0
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

    def _validate(self) -> dict[str, float]:
        return summarise(
            score_split(self.plain_model, self.val_loader, self.spec, self.fabric, progress=self._validating)
        )

    def _validating(self, done: int, total: int) -> None:
        if self.fabric.is_global_zero:
            self.reporter.validating(done, total)
        if self.wish and self.fabric.world_size == 1:  # one of several processes cannot leave without the others
            self._save()
            self._stop()

    def _write_epoch(self, report: EpochReport) -> None:
        write_history(self.run_dir, [EpochReport(**line) for line in self.progress.history])
        if self.curves:
            points = {f"epoch/{name}": value for name, value in report.__dict__.items() if value is not None}
            self.curves.add(report.epoch, points)
        self._save_weights(LAST_WEIGHTS)
        top1 = report.val_top1
        if top1 is not None and (top1 > self.progress.best_top1 or not (self.run_dir / BEST_WEIGHTS).exists()):
            self.progress.best_top1 = top1
            self._save_weights(BEST_WEIGHTS)

    # -- building and state ---------------------------------------------------------------------------------------

    def _note(self, text: str) -> None:
        if self.fabric.is_global_zero:
            self.reporter.note(text)

    def _cut_batches(self, config: RunConfig, model: VideoModel) -> RunConfig:
        """Settle how many clips go through the network at once, on all processes alike; say so if not all do."""
        batch_size = max(1, self.recipe.batch_size // self.fabric.world_size)
        memory = step_memory(**model.config, size=self.recipe.size or self.spec.size)
        if config.micro_batch is None:
            fitting = memory.fitting_clips(available_memory(self.fabric.device) // self._processes_sharing_memory())
            config = replace(config, micro_batch=int(self.fabric.broadcast(micro_batch_size(batch_size, fitting))))
        assert config.micro_batch is not None
        if config.micro_batch < batch_size:
            self._note(_cut_note(batch_size, config.micro_batch, memory))
        else:
            self._note(f"a step takes about {memory.of(batch_size) / 1e9:.1f} GB of memory")
        return config

    def _processes_sharing_memory(self) -> int:
        return 1 if self.fabric.device.type == "cuda" else self.fabric.world_size

    def _open_loaders(self, shards: ShardSet) -> tuple[Loader, Loader]:
        recipe, split_id = self.recipe, self.config.split_id
        size = recipe.size or self.spec.size
        asked = recipe.validation
        views = choose_views(AskedViews(), asked, training_size=size, trained_with=recipe.sampling, note=self._note)
        share = recipe.batch_size // self.fabric.world_size
        train_loader = open_training(shards, split_id, recipe, self.spec, self.hardware, self.fabric)
        val_loader = open_test(
            shards,
            shards.card.evaluation_split(split_id),
            split_id,
            views,
            self.spec,
            self.hardware,
            self.fabric,
            num_frames=recipe.num_frames,
            batch_size=max(1, min(share, 4 * self.micro_batch) // views.num_views),
        )
        return train_loader, val_loader

    def _open_curves(self) -> Curves:
        steps_done = self.progress.epoch * len(self.train_loader) + self.progress.step
        return Curves(self.run_dir / "tensorboard", first_step=steps_done + 1)

    def _save(self) -> None:
        self._look()
        loss_sum, correct, seen = self._totals()
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.run_dir / LAST_CHECKPOINT,
                {
                    "progress": {**self.progress.__dict__, "loss_sum": loss_sum, "correct": correct, "seen": seen},
                    "model": self.plain_model.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "precision": self.fabric.strategy.precision.state_dict(),
                    "loader": self.train_loader.state_dict(),
                },
            )
        self.saved_at = time.monotonic()

    def _restore(self) -> None:
        path = self.run_dir / LAST_CHECKPOINT
        state = load_checkpoint(path)
        try:
            self.progress = _Progress(**state["progress"])
            # as new reports are, so that the next checkpoint has the very bytes of an undisturbed run's
            self.progress.history = [vars(EpochReport(**line)) for line in self.progress.history]
            self.plain_model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.fabric.strategy.precision.load_state_dict(state["precision"])
            loader = state["loader"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ActcliError(f"{path} is no checkpoint of this training ({error}). Start a new run.") from error
        if not self.fabric.is_global_zero:  # the sums saved are those of all processes; the first goes on with them
            self.progress.loss_sum, self.progress.correct, self.progress.seen = 0.0, 0, 0
        self.train_loader.load_state_dict(loader)  # refuses other clips, at the end of an epoch as well
        if not self._complete():
            self._note(f"continuing in epoch {self.progress.epoch + 1}, after step {self.progress.step}")

    def _save_weights(self, name: str) -> None:
        metadata = {
            "classes": list(self.classes),
            "sampling": self.recipe.sampling,
            "size": self.recipe.size or self.spec.size,
            "test": self.recipe.to_dict()["test"],
            "source": f"trained on {self.config.dataset} with the recipe {self.recipe.name}",
            "dataset": self.config.dataset,
            "extraction": self.extraction,
            "epoch": self.progress.epoch,
        }
        save_weights(self.plain_model, self.run_dir / name, metadata)


@dataclass(frozen=True)
class _Unseen:
    """What a step left on the device."""

    loss: Tensor
    logits: Tensor
    labels: Tensor
    keys: Tensor


def _cut_note(batch_size: int, micro_batch: int, memory: StepMemory) -> str:
    return (
        f"each batch of {batch_size} clips goes through the network {micro_batch} at a time, which takes about "
        f"{memory.of(micro_batch) / 1e9:.1f} GB of memory; all at once would take {memory.of(batch_size) / 1e9:.1f} "
        f"GB. Updates are those of the whole batch, but batch norm sees {micro_batch} clips at a time. "
        f"To change that: --micro-batch, --batch-size, --size, --frames, --backbone."
    )
