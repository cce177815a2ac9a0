"""What a training tells whoever listens."""

from dataclasses import dataclass, replace
from typing import Protocol

from actcli.engine.clock import TimeTable
from actcli.engine.metrics import Accuracies


@dataclass(frozen=True)
class StepReport:
    """A training step that was done."""

    epoch: int
    """0-based."""
    step: int
    """Steps done in this epoch."""
    num_steps: int
    """Steps of an epoch."""
    num_epochs: int
    """Epochs of the training."""
    loss: float
    """Mean over the epoch so far."""
    clips_per_second: float
    """Over the last seconds."""
    waiting: float
    """Share of the time spent waiting for the loader, 0..1."""
    seconds_left: float | None
    """Until the end of the whole training, validations left out; None until there is a rate."""
    epoch_seconds: float | None
    """What a whole epoch takes at this rate, its validation left out; None until there is a rate."""


@dataclass(frozen=True)
class EpochReport:
    """An epoch that was done, a line of ``history.jsonl``."""

    epoch: int
    """0-based."""
    learning_rate: float
    """Of parameters whose multiplier is 1."""
    train_loss: float
    """Mean over the clips."""
    train_top1: float
    """0..1, on the augmented clips."""
    val_top1: float | None = None
    """0..1; None where the epoch was not validated, as below."""
    val_top5: float | None = None
    """0..1."""
    val_mean_class_accuracy: float | None = None
    """0..1."""

    def validated(self, found: Accuracies) -> "EpochReport":
        """The same epoch with what its validation found."""
        return replace(
            self,
            val_top1=found["top1"],
            val_top5=found["top5"],
            val_mean_class_accuracy=found["mean_class_accuracy"],
        )


class Reporter(Protocol):
    """Hears what a training does."""

    def note(self, text: str) -> None:
        """Something the user should know."""

    def foretold(self, epoch_seconds: float, seconds_left: float) -> None:
        """What an epoch and the whole will take, validations left out, by the first pass through the network."""

    def step(self, report: StepReport) -> None:
        """A step was done."""

    def validating(self, done: int, total: int) -> None:
        """Validation went a batch further."""

    def epoch(self, report: EpochReport) -> None:
        """An epoch was done."""

    def finished(self, times: TimeTable) -> None:
        """The training is done; where its time went since it began or was continued."""


class Silent:
    """Hears nothing: the reporter of all processes but the first."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def foretold(self, epoch_seconds: float, seconds_left: float) -> None:
        """Say nothing."""

    def step(self, report: StepReport) -> None:
        """Say nothing."""

    def validating(self, done: int, total: int) -> None:
        """Say nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Say nothing."""

    def finished(self, times: TimeTable) -> None:
        """Say nothing."""
