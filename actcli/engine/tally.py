"""Counts what steps left on the device, and refuses what is no number before it is kept."""

import math

from actcli.engine.progress import Progress
from actcli.engine.step import StepOutcome, TrainingStep
from actcli.errors import ActcliError

_LOWER = (
    "The last checkpoint, if there is one, is from before and whole. Try a lower learning rate (--learning-rate), a "
    "lower --clip-norm, or the precision 32-true (--precision)."
)


class Tally:
    """What the device has done since the last look; looking makes a GPU wait."""

    def __init__(self) -> None:
        self._unseen: list[StepOutcome] = []
        self._keys: list[int] = []
        """The clips of the last look."""

    def add(self, outcome: StepOutcome) -> None:
        """A step was given to the device."""
        self._unseen.append(outcome)

    def count(self, progress: Progress) -> None:
        """Add the steps since the last look to ``progress``, which knows already how many they are.

        Raises:
            ActcliError: A loss is no number; it names the clips.
        """
        first = progress.step - len(self._unseen) + 1
        for step, seen in enumerate(self._unseen, first):
            loss = float(seen.loss)
            if not math.isfinite(loss):
                raise _not_a_number(f"the loss became {loss}", progress.epoch, step, seen.keys.tolist())
            progress.loss_sum += loss * len(seen.labels)
            progress.correct += int((seen.logits.argmax(1) == seen.labels).sum())
            progress.seen += len(seen.labels)
        if self._unseen:
            self._keys = [key for seen in self._unseen for key in seen.keys.tolist()]
        self._unseen.clear()

    def check_weights(self, step: TrainingStep, progress: Progress) -> None:
        """Refuse to keep weights that are no numbers: a loss may still be one where its gradient is not.

        Raises:
            ActcliError: It names the clips of the last look.
        """
        if not step.is_finite():
            raise _not_a_number("the weights became NaN", progress.epoch, progress.step, self._keys)


def _not_a_number(what: str, epoch: int, step: int, keys: list[int]) -> ActcliError:
    clips = ", ".join(f"{key:09d}" for key in keys)
    return ActcliError(f"{what} in epoch {epoch + 1}, step {step}, on the clips {clips}. {_LOWER}")
