"""Learning rates, one per epoch, as the original codes compute them."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from actcli.errors import ActcliError


@dataclass(frozen=True)
class Schedule:
    """How the learning rate of an epoch follows from the base rate."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["step", "cosine", "constant"] = "step"
    """Shape after the warm-up."""
    milestones: tuple[int, ...] = ()
    """``step``: epochs (0-based) from which the next factor applies."""
    factors: tuple[float, ...] = ()
    """``step``: what the rate is multiplied by at each milestone, on top of the earlier ones; 0.1 each unless given."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    """Epochs that lead up to the base rate."""
    warmup_start: float | None = None
    """Fraction of the base rate in epoch 0, rising to 1 in epoch ``warmup_epochs`` (GSF: 0.1). Without it epoch e of
    the warm-up has (e + 1) / ``warmup_epochs`` of the rate, and the cosine counts from epoch 0 (MAS-Net)."""
    final_fraction: float = 0.0
    """``cosine``: fraction of the base rate that the curve ends on."""

    def __post_init__(self) -> None:
        """Refuse what does not fit together."""
        if self.kind not in ("step", "cosine", "constant"):
            raise ActcliError(f"schedule {self.kind!r} is unknown; allowed are: step, cosine, constant.")
        if self.factors and len(self.factors) != len(self.milestones):
            raise ActcliError(f"{len(self.milestones)} milestones need as many factors, got {len(self.factors)}.")

    def learning_rate(self, base: float, epoch: int, num_epochs: int) -> float:
        """Rate of ``epoch`` (0-based) for parameters whose multiplier is 1.

        Source: the schedules of TSM, GSF, MAS-Net, TokShift and ST-MulNet, all of which change once per epoch.
        """
        if epoch < self.warmup_epochs:
            return base * self._warmup(epoch)
        if self.kind == "constant":
            return base
        if self.kind == "step":
            factors = self.factors or (0.1,) * len(self.milestones)
            return base * math.prod(f for at, f in zip(self.milestones, factors, strict=True) if epoch >= at)
        skipped = self.warmup_epochs if self.warmup_start is not None else 0
        wave = (1 + math.cos(math.pi * (epoch - skipped) / (num_epochs - skipped))) / 2
        return base * (self.final_fraction + (1 - self.final_fraction) * wave)

    def _warmup(self, epoch: int) -> float:
        if self.warmup_start is None:
            return (epoch + 1) / self.warmup_epochs
        done = epoch / self.warmup_epochs
        return self.warmup_start * (1 - done) + done
