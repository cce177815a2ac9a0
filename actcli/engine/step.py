"""What a training does with one batch: forward, backward, and an update where enough batches were seen.

A batch goes through the network in passes of ``micro_batch`` clips. Pass ``j`` of ``P`` of rank ``r`` takes every
``P``-th clip of the rank's share, which is every ``G``-th clip of the whole batch (``G`` passes over all ranks):

    whole batch   0 1 2 3 4 5 6 7
    one rank,  P = 4       0 4 | 1 5 | 2 6 | 3 7
    two ranks, P = 2       0 4 | 2 6     and     1 5 | 3 7

so that the clips that batch norm sees together, and what dropout draws for them, do not depend on the number of ranks
as long as ``G`` stays the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from actcli.engine.clock import Stopwatch
from actcli.engine.inputs import model_inputs, seed_step
from actcli.engine.optimizer import build_average, build_mixup, build_optimizer
from actcli.engine.recipes import Recipe
from actcli.engine.schedules import StepPlace
from actcli.loaders import Batch
from actcli.models import VideoModel


@dataclass(frozen=True)
class StepOutcome:
    """What a step left on the device."""

    loss: Tensor
    """Mean over the clips of the batch."""
    logits: Tensor
    """``[B, num_classes]``."""
    labels: Tensor
    """``[B]``."""
    keys: Tensor
    """``[B]``: the clips, in the order of the batch."""


class StepState(TypedDict):
    """What changes from step to step, as a checkpoint holds it."""

    model: dict[str, Tensor]
    average: dict[str, Tensor] | None
    """Moving average of the weights, where one is kept."""
    optimizer: dict[str, object]
    precision: dict[str, object]


@dataclass(frozen=True)
class Layout:
    """How the clips of a step are divided."""

    processes: int
    """That share each batch."""
    passes: int
    """Through the network for each batch, over all processes."""

    def changed_since(self, before: "Layout") -> str | None:
        """What is other than before, in words, or None."""
        if self == before:
            return None
        processes = "" if self.processes == 1 else "es"
        told = f"{self.processes} process{processes} instead of {before.processes}; the batches hold the same clips"
        if self.processes == before.processes:
            told = "the batches hold the same clips"
        if self.passes == before.passes:
            return f"{told}, and so do the passes through the network"
        return (
            f"{told}, but go through the network in {self.passes} parts instead of {before.passes}; batch norm, where "
            "there is one, sees each part alone"
        )


class TrainingStep:
    """A network and its optimiser, and what a batch does to them."""

    def __init__(self, model: VideoModel, recipe: Recipe, num_classes: int, micro_batch: int, fabric: Fabric) -> None:
        self.recipe, self.micro_batch, self.fabric = recipe, micro_batch, fabric
        self.spec = model.input_spec
        self.stopwatch = Stopwatch(fabric.device)
        if recipe.freeze == "backbone":
            model.freeze_backbone()
        optimizer = build_optimizer(model, recipe)
        # two-dimensional networks run fastest channels-last, on CPUs and on tensor cores
        self.plain_model = model.to(memory_format=torch.channels_last)
        self.model, self.optimizer = fabric.setup(self.plain_model, optimizer)
        self.model.mark_forward_method("training_loss")
        self.average = build_average(self.plain_model, recipe)
        """The moving average of the weights, where the recipe has one."""
        if recipe.compile:
            self.plain_model.training_loss = torch.compile(self.plain_model.training_loss)  # type: ignore[method-assign]
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.mixup = build_mixup(recipe, num_classes)

    @property
    def layout(self) -> Layout:
        """How the clips of a step are divided."""
        world_size = self.fabric.world_size
        return Layout(world_size, world_size * self._num_passes(self.recipe.batch_size // world_size))

    def _num_passes(self, num_clips: int) -> int:
        return -(-num_clips // self.micro_batch)

    @property
    def scored_model(self) -> VideoModel:
        """What is validated and saved: the average, where there is one."""
        return self.plain_model if self.average is None else cast(VideoModel, self.average.module)

    def run(self, batch: Batch, place: StepPlace, passed: Callable[[int], None] = lambda _: None) -> StepOutcome:
        """Learn from a batch on the device.

        Args:
            batch: This process's share.
            place: Decides what is drawn, and whether this batch completes an update.
            passed: Told, after each pass through the network, how many clips of the batch are done.
        """
        accumulate = self.recipe.accumulate
        inputs, targets = self.inputs(batch, place)
        num_passes = self._num_passes(len(batch))
        loss = torch.zeros((), device=self.fabric.device)
        logits: list[Tensor] = []
        for number in range(num_passes):
            seed_step(self.recipe.seed, place.number, self.fabric.global_rank + self.fabric.world_size * number)
            part = slice(number, None, num_passes)
            synchronised = number == num_passes - 1 and place.ends_update(accumulate)
            with self.fabric.no_backward_sync(self.model, enabled=not synchronised):
                part_loss, part_logits = self._forward(tuple(stream[part] for stream in inputs), targets[part])
                share = len(part_logits) / len(batch)
                with self.stopwatch.measure("backward"):
                    self.fabric.backward(part_loss * (share / place.batches_of_update(accumulate)))
            loss += part_loss.detach() * share
            logits.append(part_logits.detach())
            passed(sum(map(len, logits)))
        if place.ends_update(accumulate):
            with self.stopwatch.measure("optimiser"):
                self._update(self.recipe.learning_rate_at(place))
        labels, keys = (_in_order_of_passes(values, num_passes) for values in (batch.labels, batch.keys))
        return StepOutcome(loss, torch.cat(logits), labels, keys)

    def is_finite(self) -> bool:
        """Whether all weights are numbers."""
        weights = [value for value in self.plain_model.parameters() if value.requires_grad]
        return bool(torch.stack([value.isfinite().all() for value in weights]).all())

    def state_dict(self) -> StepState:
        """Weights, their average, and the states of the optimiser and of mixed precision."""
        return {
            "model": self.plain_model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
        }

    def load_state_dict(self, state: StepState) -> None:
        """What ``state_dict`` gave; torch's errors, ``KeyError`` or ``TypeError`` for anything else."""
        self.plain_model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"] or {})
        self.optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])

    def inputs(self, batch: Batch, place: StepPlace) -> tuple[tuple[Tensor, ...], Tensor]:
        """What the network sees of a batch, ``[B, T, C, H, W]`` for each modality, and its targets."""
        inputs = model_inputs(batch, self.spec)
        return (inputs, batch.labels) if self.mixup is None else self.mixup(inputs, batch.labels, place.number)

    def _forward(self, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor]:
        with self.stopwatch.measure("forward"), self.fabric.autocast():  # Fabric enters it with several processes only
            loss, logits = self.model.training_loss(inputs, targets, self.criterion)
        return loss, logits

    def _update(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_mult"]
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.recipe.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average:
            self.average.update_parameters(self.plain_model)


def _in_order_of_passes(values_B: Tensor, num_passes: int) -> Tensor:
    return torch.cat([values_B[number::num_passes] for number in range(num_passes)])
