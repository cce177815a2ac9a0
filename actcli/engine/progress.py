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
