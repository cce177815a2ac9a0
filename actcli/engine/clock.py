"""How fast a training is, and how much of its time it waits for data."""

import time
from collections import deque
from collections.abc import Iterator

from actcli.loaders import Batch, Loader

_RECENT_SECONDS = 10.0
"""Rates are those of so many seconds."""


class StepClock:
    """Rates of the last seconds, and how much of them went by waiting for data."""

    def __init__(self) -> None:
        self.waited = 0.0
        self.clips = 0
        self.marks: deque[tuple[float, float, int]] = deque()
        """After each step: the time, seconds waited and clips so far."""

    def start(self) -> None:
        """Begin an epoch; what went by between epochs does not count."""
        self.marks.clear()
        self._mark()

    def waits(self, loader: Loader) -> Iterator[Batch]:
        """The loader's batches; the time until each is there counts as waiting."""
        batches = iter(loader)
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - before
            if batch is None:
                return
            yield batch

    def count(self, clips: int) -> None:
        """A step with so many clips was done."""
        self.clips += clips
        self._mark()
        while len(self.marks) > 2 and self.marks[-1][0] - self.marks[1][0] > _RECENT_SECONDS:
            self.marks.popleft()

    @property
    def working_seconds(self) -> float:
        """Since the last step was counted, waiting left out."""
        at, waited, _ = self.marks[-1]
        return time.perf_counter() - at - (self.waited - waited)

    def _mark(self) -> None:
        self.marks.append((time.perf_counter(), self.waited, self.clips))

    @property
    def _seconds(self) -> float:
        return max(self.marks[-1][0] - self.marks[0][0], 1e-9)

    @property
    def seconds_per_step(self) -> float | None:
        """None before the first step."""
        return self._seconds / (len(self.marks) - 1) if len(self.marks) > 1 else None

    @property
    def clips_per_second(self) -> float:
        """Over all processes."""
        return (self.marks[-1][2] - self.marks[0][2]) / self._seconds

    @property
    def waiting(self) -> float:
        """Share of the time, 0..1."""
        return (self.marks[-1][1] - self.marks[0][1]) / self._seconds
