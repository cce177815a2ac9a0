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

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from actcli.engine.inputs import model_inputs, seed_step
from actcli.engine.optimizer import build_mixup, build_optimizer
from actcli.engine.progress import StepPlace
from actcli.engine.recipes import Recipe
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


class TrainingStep:
    """A network and its optimiser, and what a batch does to them."""

    def __init__(self, model: VideoModel, recipe: Recipe, num_classes: int, micro_batch: int, fabric: Fabric) -> None:
        self.recipe, self.micro_batch, self.fabric = recipe, micro_batch, fabric
        self.spec = model.input_spec
        optimizer = build_optimizer(model, recipe)
        # two-dimensional networks run fastest channels-last, on CPUs and on tensor cores
        self.plain_model = model.to(memory_format=torch.channels_last)
        self.model, self.optimizer = fabric.setup(self.plain_model, optimizer)
        self.model.mark_forward_method("training_loss")
        self.criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.mixup = build_mixup(recipe, num_classes)

    def run(self, batch: Batch, place: StepPlace, passed: Callable[[int], None] = lambda _: None) -> StepOutcome:
        """Learn from a batch on the device.

        Args:
            batch: This process's share.
            place: Decides what is drawn, and whether this batch completes an update.
            passed: Told, after each pass through the network, how many clips of the batch are done.
        """
        accumulate = self.recipe.accumulate
        inputs, targets = self._mixed(model_inputs(batch, self.spec), batch.labels, place)
        num_passes = -(-len(batch) // self.micro_batch)
        loss = torch.zeros((), device=self.fabric.device)
        logits: list[Tensor] = []
        for number in range(num_passes):
            seed_step(self.recipe.seed, place.number, self.fabric.global_rank + self.fabric.world_size * number)
            part = slice(number, None, num_passes)
            synchronised = number == num_passes - 1 and place.ends_update(accumulate)
            with self.fabric.no_backward_sync(self.model, enabled=not synchronised):
                part_loss, part_logits = self._forward(tuple(stream[part] for stream in inputs), targets[part])
                share = len(part_logits) / len(batch)
                self.fabric.backward(part_loss * (share / place.batches_of_update(accumulate)))
            loss += part_loss.detach() * share
            logits.append(part_logits.detach())
            passed(sum(map(len, logits)))
        if place.ends_update(accumulate):
            self._update()
        labels, keys = (_in_order_of_passes(values, num_passes) for values in (batch.labels, batch.keys))
        return StepOutcome(loss, torch.cat(logits), labels, keys)

    def _mixed(self, inputs: tuple[Tensor, ...], labels: Tensor, place: StepPlace) -> tuple[tuple[Tensor, ...], Tensor]:
        return (inputs, labels) if self.mixup is None else self.mixup(inputs, labels, place.number)

    def _forward(self, inputs: tuple[Tensor, ...], targets: Tensor) -> tuple[Tensor, Tensor]:
        with self.fabric.autocast():  # Fabric's own covers ``forward`` alone where there is one process
            loss, logits = self.model.training_loss(inputs, targets, self.criterion)
        return loss, logits

    def _update(self) -> None:
        if self.recipe.clip_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.recipe.clip_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _in_order_of_passes(values_B: Tensor, num_passes: int) -> Tensor:
    return torch.cat([values_B[number::num_passes] for number in range(num_passes)])
