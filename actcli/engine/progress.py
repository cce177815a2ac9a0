"""Where a training is, counted in steps; a part of every checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from actcli.engine.reporting import EpochReport


@dataclass
class Progress:
    """Where a training is."""

    epoch: int = 0
    """Epochs that were done."""
    step: int = 0
    """Batches done in this epoch."""
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    """Clips of this epoch so far, on this process."""
    best_top1: float = -1.0
    history: list[EpochReport] = field(default_factory=list)
    """The epochs that were done."""

    def to_plain(self, loss_sum: float, correct: int, seen: int) -> dict[str, Any]:
        """Plain data for a checkpoint, with the sums of all processes."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        history = [asdict(report) for report in self.history]
        return {**own, "loss_sum": loss_sum, "correct": correct, "seen": seen, "history": history}

    @staticmethod
    def from_plain(value: Mapping[str, Any]) -> "Progress":
        """What ``to_plain`` gave; ``KeyError`` or ``TypeError`` for anything else."""
        return Progress(**{**value, "history": [EpochReport(**report) for report in value["history"]]})

    def begin_epoch(self) -> None:
        """Go to the first step of the next epoch."""
        self.epoch += 1
        self.step, self.loss_sum, self.correct, self.seen = 0, 0.0, 0, 0


@dataclass(frozen=True)
class StepPlace:
    """Which step of the training a batch is for."""

    epoch: int
    """0-based."""
    step: int
    """0-based, in the epoch."""
    num_steps: int
    """Steps of an epoch."""

    @property
    def number(self) -> int:
        """0-based, counted from the beginning of the training."""
        return self.epoch * self.num_steps + self.step

    def ends_update(self, accumulate: int) -> bool:
        """Whether the batches up to this one make whole updates; the last of an epoch may have fewer."""
        return (self.step + 1) % accumulate == 0 or self.step + 1 == self.num_steps

    def batches_of_update(self, accumulate: int) -> int:
        """Batches of the update that this one belongs to: the last update of an epoch may have fewer.

        7 steps, accumulate 3  ->  3 3 3 | 3 3 3 | 1
        """
        return min(accumulate, self.num_steps - self.step + self.step % accumulate)
