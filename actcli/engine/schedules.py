"""Learning rates: one per epoch, as the original codes compute them, or one per step."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actcli.errors import ActcliError

Kind = Literal["step", "cosine", "polynomial", "constant"]
_KINDS = ("step", "cosine", "polynomial", "constant")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate follows from the base rate."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Kind = "step"
    """Shape after the warm-up."""
    milestones: tuple[int, ...] = ()
    """``step``: epochs (0-based) from which the next factor applies."""
    factors: tuple[float, ...] = ()
    """``step``: what the rate is multiplied by at each milestone, on top of the earlier ones; 0.1 each unless given."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that lead up to the base rate."""
    warmup_start: float | None = None
    """Fraction of the base rate in epoch 0, rising to 1 in epoch ``warmup_epochs`` (GSF: 0.1). Without it epoch e of
    the warm-up has (e + 1) / ``warmup_epochs`` of the rate, and the curve after it counts from epoch 0 (MAS-Net)."""
    final_fraction: float = 0.0
    """``cosine``, ``polynomial``: fraction of the base rate that the curve ends on."""
    power: Annotated[float, Field(gt=0)] = 1.0
    """``polynomial``: the rate falls as (what is left of the training) to this power; 1 is a straight line."""
    per: Literal["epoch", "step"] = "epoch"
    """What the rate changes with. The lengths above are epochs in either case."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.kind not in _KINDS:
            raise ActcliError(f"schedule {self.kind!r} is unknown; allowed are: {', '.join(_KINDS)}.")
        if self.per not in ("epoch", "step"):
            raise ActcliError(f"a schedule changes per {self.per!r}; allowed are: epoch, step.")
        if self.factors and len(self.factors) != len(self.milestones):
            raise ActcliError(f"{len(self.milestones)} milestones need as many factors, got {len(self.factors)}.")

    def learning_rate(self, base: float, epoch: int, num_epochs: int, step: int = 0, num_steps: int = 1) -> float:
        """Rate of a step for parameters whose multiplier is 1.

        Args:
            base: Rate that the factors apply to.
            epoch: 0-based.
            num_epochs: Epochs of the training.
            step: 0-based, in the epoch; counts only where the rate changes per step.
            num_steps: Steps of an epoch.

        Source: the schedules of TSM, GSF, MAS-Net, TokShift and ST-MulNet, all of which change once per epoch. Per
        step, the same curves are drawn with a step in place of an epoch.
        """
        if self.per == "epoch":
            return base * self._fraction(epoch, num_epochs, 1)
        return base * self._fraction(epoch * num_steps + step, num_epochs * num_steps, num_steps)

    def _fraction(self, at: int, total: int, ticks: int) -> float:
        """Fraction of the base rate at tick ``at`` of ``total``, ``ticks`` of which are an epoch."""
        warmup = self.warmup_epochs * ticks
        if at < warmup:
            return self._warmup(at, warmup)
        if self.kind == "constant":
            return 1.0
        if self.kind == "step":
            factors = self.factors or (0.1,) * len(self.milestones)
            return math.prod(f for epoch, f in zip(self.milestones, factors, strict=True) if at >= epoch * ticks)
        skipped = warmup if self.warmup_start is not None else 0
        done = (at - skipped) / (total - skipped)
        curve = (1 + math.cos(math.pi * done)) / 2 if self.kind == "cosine" else (1 - done) ** self.power
        return self.final_fraction + (1 - self.final_fraction) * curve

    def _warmup(self, at: int, warmup: int) -> float:
        if self.warmup_start is None:
            return (at + 1) / warmup
        done = at / warmup
        return self.warmup_start * (1 - done) + done


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
