"""Where a training is, counted in steps; a part of every checkpoint."""

from dataclasses import asdict, dataclass, field, fields

from actcli.engine.recipes import read_fields
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

    def to_plain(self, loss_sum: float, correct: int, seen: int) -> dict[str, object]:
        """Plain data for a checkpoint, with the sums of all processes."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        history = [asdict(report) for report in self.history]
        return {**own, "loss_sum": loss_sum, "correct": correct, "seen": seen, "history": history}

    @staticmethod
    def from_plain(value: object) -> "Progress":
        """What ``to_plain`` gave.

        Raises:
            ActcliError: It is anything else.
        """
        return read_fields(Progress, value, "its progress")

    def begin_epoch(self) -> None:
        """Go to the first step of the next epoch."""
        self.epoch += 1
        self.step, self.loss_sum, self.correct, self.seen = 0, 0.0, 0, 0
