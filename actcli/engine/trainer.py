"""Train a model on shards: build, run, close.

Everything random is a function of (seed, step): the loader's views, mixup, and what dropout draws. A run that was
killed continues from its last checkpoint to the very weights that an undisturbed run has.
"""

import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, get_args

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from actcli.engine.checkpoints import load_checkpoint, save_checkpoint
from actcli.engine.inputs import model_inputs, seed_step
from actcli.engine.metrics import summarise
from actcli.engine.recipes import Precision, Recipe
from actcli.engine.runs import BEST_WEIGHTS, CONFIG_NAME, HISTORY_NAME, LAST_CHECKPOINT, LAST_WEIGHTS, RunConfig
from actcli.engine.scoring import score_split
from actcli.errors import ActcliError
from actcli.loaders import Batch, Loader, MixUp, open_loader
from actcli.models import VideoModel, create_model, load_weights, save_weights
from actcli.shards import ShardSet


@dataclass(frozen=True)
class Hardware:
    """Where a training or an evaluation runs; nothing here changes what is computed, but for rounding."""

    accelerator: str = "auto"
    """``cpu``, ``cuda`` or ``auto``."""
    devices: int = 1
    """Processes on this machine, one per device; ``torchrun`` sets it for itself."""
    workers: int = 2
    """Loader processes per training process."""
    loader: str = "auto"
    """``cpu``, ``dali`` or ``auto``."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints inside an epoch; one is written after each epoch anyway."""


@dataclass(frozen=True)
class StepReport:
    """A training step that was done."""

    epoch: int
    step: int
    """Steps done in this epoch."""
    num_steps: int
    """Steps of an epoch."""
    num_epochs: int
    loss: float
    """Mean over the epoch so far."""
    clips_per_second: float
    waiting: float
    """Share of the time spent waiting for the loader, 0..1."""


@dataclass(frozen=True)
class EpochReport:
    """An epoch that was done, a line of ``history.jsonl``."""

    epoch: int
    learning_rate: float
    train_loss: float
    train_top1: float
    val_top1: float | None = None
    val_top5: float | None = None
    val_mean_class_accuracy: float | None = None


class Reporter(Protocol):
    """Hears what a training does."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def step(self, report: StepReport) -> None:
        """A step was done."""

    def validating(self, done: int, total: int) -> None:
        """Validation went a batch further."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch was done."""


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
    fabric = launch(hardware, config.recipe.precision)
    with _Training(config, run_dir, hardware, fabric, reporter, resume) as training:
        return training.run()


def launch(hardware: Hardware, precision: Precision) -> Fabric:
    """Device, precision and processes."""
    if hardware.accelerator not in ("auto", "cpu", "cuda"):
        raise ActcliError(f"accelerator {hardware.accelerator!r} is unknown; --device takes auto, cpu or cuda.")
    if hardware.accelerator == "cuda" and not torch.cuda.is_available():
        raise ActcliError(
            "this machine has no CUDA device that torch can use; see: actcli doctor. Or use --device cpu."
        )
    # torchrun says how many processes there are; Fabric alone would take one device for a training of its own
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", hardware.devices))
    num_nodes = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    if precision not in get_args(Precision):
        raise ActcliError(f"precision {precision!r} is unknown; allowed are: {', '.join(get_args(Precision))}.")
    fabric = Fabric(accelerator=hardware.accelerator, devices=devices, num_nodes=num_nodes, precision=precision)
    fabric.launch()
    return fabric


def build_model(config: RunConfig, num_classes: int, reporter: Reporter) -> VideoModel:
    """The recipe's model with its starting weights.

    Raises:
        ActcliError: The starting weights are of other classes or another network.
    """
    recipe = config.recipe
    torch.manual_seed(recipe.seed)
    options: dict[str, Any] = {"num_frames": recipe.num_frames, **recipe.model_options}
    if config.init is None:
        return create_model(recipe.model, num_classes=num_classes, pretrained=recipe.pretrained, **options)
    source, _ = load_weights(config.init)
    found = int(source.config["num_classes"])
    if found != num_classes and not config.new_head:
        raise ActcliError(
            f"checkpoint {config.init} has {found} classes, dataset {config.dataset} has {num_classes}. "
            f"Start a new classifier with --new-head, or use a dataset with the same class list."
        )
    model = create_model(recipe.model, num_classes=found, **options)
    missing = set(model.state_dict()) ^ set(source.state_dict())
    if missing:
        raise ActcliError(
            f"checkpoint {config.init} holds a {source.config['name']}, which does not fit the recipe's "
            f"{recipe.model}: {len(missing)} tensors differ, such as {sorted(missing)[0]}."
        )
    model.load_state_dict(source.state_dict())
    if config.new_head:
        model.reset_classifier(num_classes)
        model.config["num_classes"] = num_classes
    reporter.note(f"starting from {config.init}")
    return model


class _Training:
    """One training on one process."""

    def __init__(
        self, config: RunConfig, run_dir: Path, hardware: Hardware, fabric: Fabric, reporter: Reporter, resume: bool
    ) -> None:
        self.config, self.recipe, self.run_dir = config, config.recipe, run_dir
        self.hardware, self.fabric, self.reporter = hardware, fabric, reporter
        shards = ShardSet.open(config.shards)
        self.classes = shards.card.classes
        model = build_model(config, len(self.classes), reporter)
        self.spec = model.input_spec
        self.train_loader, self.val_loader = self._open_loaders(shards, model)
        self.policy = _policy(model, self.recipe)
        optimizer = torch.optim.SGD(self.policy, lr=self.recipe.learning_rate, momentum=self.recipe.momentum)
        # two-dimensional networks run fastest channels-last, on CPUs and on tensor cores
        model = model.to(memory_format=torch.channels_last)
        self.plain_model = model
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.model.mark_forward_method("training_loss")
        self.criterion = nn.CrossEntropyLoss(label_smoothing=self.recipe.label_smoothing)
        self.mixup = _mixup(self.recipe, len(self.classes))
        self.progress = _Progress()
        if resume and (run_dir / LAST_CHECKPOINT).exists():
            self._restore()
        self.writer = self._open_writer()
        self.saved_at = time.monotonic()

    def __enter__(self) -> "_Training":
        return self

    def __exit__(self, *_: object) -> None:
        self.train_loader.close()
        self.val_loader.close()
        if self.writer:
            self.writer.close()

    def run(self) -> list[EpochReport]:
        """All epochs that are left."""
        if self.fabric.is_global_zero and not (self.run_dir / CONFIG_NAME).exists():
            self.config.write(self.run_dir)
        while self.progress.epoch < self.recipe.epochs:
            self._run_epoch()
            report = self._close_epoch()
            if self.fabric.is_global_zero:
                self.reporter.epoch(report)
            self._save()
        if self.fabric.is_global_zero:
            (self.run_dir / "finished").touch()
        return [EpochReport(**line) for line in self.progress.history]

    # -- one epoch ------------------------------------------------------------------------------------------------

    def _run_epoch(self) -> None:
        progress, recipe = self.progress, self.recipe
        rate = recipe.schedule.learning_rate(recipe.learning_rate, progress.epoch, recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]
        self.model.train()
        self.train_loader.set_epoch(progress.epoch)
        clock = _Clock()
        for batch in clock.waits(self.train_loader):
            self._step(batch.to(self.fabric.device, non_blocking=True))
            clock.clips += len(batch) * self.fabric.world_size
            self._report_step(clock)
            due = time.monotonic() - self.saved_at > 60 * self.hardware.checkpoint_minutes
            if self.fabric.broadcast(due and self._at_update()):
                self._save()

    def _step(self, batch: Batch) -> None:
        progress, recipe = self.progress, self.recipe
        num_steps = len(self.train_loader)
        group_start = progress.step - progress.step % recipe.accumulate
        group_size = min(recipe.accumulate, num_steps - group_start)
        seed_step(recipe.seed, progress.epoch * num_steps + progress.step, self.fabric.global_rank)
        inputs, targets = self._mixed(model_inputs(batch, self.spec), batch.labels, progress.epoch * num_steps)
        progress.step += 1
        with self.fabric.no_backward_sync(self.model, enabled=not self._at_update()):
            loss, logits = self.model.training_loss(inputs, targets, self.criterion)
            self.fabric.backward(loss / group_size)
        if self._at_update():
            if recipe.clip_norm is not None:
                self.fabric.clip_gradients(
                    self.model, self.optimizer, max_norm=recipe.clip_norm, error_if_nonfinite=False
                )
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        self._count(float(loss.detach()), logits.detach(), batch.labels)

    def _at_update(self) -> bool:
        """Whether the batches so far make whole updates."""
        step = self.progress.step
        return step % self.recipe.accumulate == 0 or step == len(self.train_loader)

    def _mixed(self, inputs: tuple[Tensor, ...], labels: Tensor, first: int) -> tuple[tuple[Tensor, ...], Tensor]:
        if self.mixup is None:
            return inputs, labels
        return self.mixup(inputs, labels, first + self.progress.step)

    def _count(self, loss: float, logits: Tensor, labels: Tensor) -> None:
        if not math.isfinite(loss):
            raise ActcliError(
                f"the loss became {loss} in epoch {self.progress.epoch}, step {self.progress.step}. "
                f"Try a lower --learning-rate or --precision 32-true."
            )
        self.progress.loss_sum += loss * len(labels)
        self.progress.correct += int((logits.argmax(1) == labels).sum())
        self.progress.seen += len(labels)

    def _report_step(self, clock: "_Clock") -> None:
        if self.fabric.is_global_zero:
            progress = self.progress
            loss = progress.loss_sum / progress.seen
            self.reporter.step(
                StepReport(
                    progress.epoch,
                    progress.step,
                    len(self.train_loader),
                    self.recipe.epochs,
                    loss,
                    clock.clips_per_second,
                    clock.waiting,
                )
            )
            if self.writer and self._at_update():
                at = progress.epoch * len(self.train_loader) + progress.step
                self.writer.add_scalar("train/loss", loss, at)
                self.writer.add_scalar("train/clips_per_second", clock.clips_per_second, at)
                self.writer.add_scalar("train/share_of_time_waiting_for_data", clock.waiting, at)

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
        told = self.reporter.validating if self.fabric.is_global_zero else None
        return summarise(score_split(self.plain_model, self.val_loader, self.spec, self.fabric, progress=told))

    def _write_epoch(self, report: EpochReport) -> None:
        lines = "".join(json.dumps(line) + "\n" for line in self.progress.history)
        (self.run_dir / HISTORY_NAME).write_text(lines)
        if self.writer:
            for name, value in report.__dict__.items():
                if name != "epoch" and value is not None:
                    self.writer.add_scalar(f"epoch/{name}", value, report.epoch)
        self._save_weights(LAST_WEIGHTS)
        top1 = report.val_top1
        if top1 is not None and (top1 > self.progress.best_top1 or not (self.run_dir / BEST_WEIGHTS).exists()):
            self.progress.best_top1 = top1
            self._save_weights(BEST_WEIGHTS)

    # -- building and state ---------------------------------------------------------------------------------------

    def _open_loaders(self, shards: ShardSet, model: VideoModel) -> tuple[Loader, Loader]:
        recipe, fabric, spec = self.recipe, self.fabric, model.input_spec
        if recipe.batch_size % fabric.world_size:
            raise ActcliError(f"batches of {recipe.batch_size} cannot be shared by {fabric.world_size} processes.")
        common: dict[str, Any] = {
            "num_frames": recipe.num_frames,
            "workers": self.hardware.workers,
            "backend": self.hardware.loader,
            "seed": recipe.seed,
            "split_id": self.config.split_id,
            "modality": spec.modality,
            "flow_stack": spec.flow_stack or None,
            "rank": fabric.global_rank,
            "world_size": fabric.world_size,
            "device": fabric.device if fabric.device.type == "cuda" else None,
        }
        batch_size = recipe.batch_size // fabric.world_size
        size = recipe.size or spec.size
        train_loader = open_loader(
            shards,
            "train",
            size=size,
            batch_size=batch_size,
            training=True,
            sampling=recipe.sampling,
            augmentation=recipe.augmentation,
            **common,
        )
        validation = recipe.validation
        val_loader = open_loader(
            shards,
            shards.card.evaluation_split(self.config.split_id),
            size=validation.size or size,
            batch_size=max(1, batch_size // (validation.clips * validation.crops)),
            training=False,
            sampling=validation.sampling or recipe.sampling,
            num_clips=validation.clips,
            num_crops=validation.crops,
            **common,
        )
        return train_loader, val_loader

    def _open_writer(self) -> SummaryWriter | None:
        if not self.fabric.is_global_zero:
            return None
        steps_done = self.progress.epoch * len(self.train_loader) + self.progress.step
        return SummaryWriter(str(self.run_dir / "tensorboard"), purge_step=steps_done)

    def _save(self) -> None:
        self.saved_at = time.monotonic()
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

    def _restore(self) -> None:
        state = load_checkpoint(self.run_dir / LAST_CHECKPOINT)
        self.progress = _Progress(**state["progress"])
        if not self.fabric.is_global_zero:  # the sums saved are those of all processes; the first goes on with them
            self.progress.loss_sum, self.progress.correct, self.progress.seen = 0.0, 0, 0
        self.plain_model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.train_loader.load_state_dict(state["loader"])  # refuses other clips, at the end of an epoch as well
        self.reporter.note(f"continuing at epoch {self.progress.epoch + 1}, step {self.progress.step}")

    def _save_weights(self, name: str) -> None:
        metadata = {
            "classes": list(self.classes),
            "sampling": self.recipe.sampling,
            "source": f"trained on {self.config.dataset} with the recipe {self.recipe.name}",
            "dataset": self.config.dataset,
            "epoch": self.progress.epoch,
        }
        (self.run_dir / name).parent.mkdir(parents=True, exist_ok=True)
        save_weights(self.plain_model, self.run_dir / name, metadata)


class _Clock:
    """Splits the time of an epoch into waiting for data and everything else."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.waited = 0.0
        self.clips = 0

    def waits(self, loader: Loader) -> Iterator[Batch]:
        batches = iter(loader)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    @property
    def clips_per_second(self) -> float:
        return self.clips / (time.perf_counter() - self.started)

    @property
    def waiting(self) -> float:
        return self.waited / (time.perf_counter() - self.started)


def _policy(model: VideoModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups of the optimiser, each with its multiplier."""
    if recipe.multipliers:
        switches = {"fc_lr5": recipe.fast_classifier, "partial_bn": recipe.partial_bn}
        wanted = {name: value for name, value in switches.items() if value}
        return model.parameter_groups(recipe.learning_rate, recipe.weight_decay, **wanted)
    if recipe.fast_classifier:
        raise ActcliError("fast_classifier is a multiplier, and multipliers are off in this recipe; set one of them.")
    trained = {rule.name for rule in model.parameter_policy(partial_bn=recipe.partial_bn)}
    parameters = [parameter for name, parameter in model.named_parameters() if name in trained]
    return [{"params": parameters, "weight_decay": recipe.weight_decay, "lr_mult": 1.0}]


def _mixup(recipe: Recipe, num_classes: int) -> MixUp | None:
    if not recipe.mixup and not recipe.cutmix:
        return None
    return MixUp(num_classes, recipe.mixup, recipe.cutmix, seed=recipe.seed)
