"""How fast a training is, and where its time goes."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from actcli.loaders import Batch, Loader

Phase = Literal["waiting for data", "host to device", "forward", "backward", "optimiser", "validation", "checkpoints"]

_RECENT_SECONDS = 10.0
"""Rates are those of so many seconds."""


class StepClock:
    """Rates of the last seconds, and how much of them went by waiting for data."""

    def __init__(self) -> None:
        self.waited = 0.0
        self.clips = 0
        self.marks: deque[tuple[float, float, int]] = deque()
        """After each step: the time, seconds waited and clips so far."""

    @property
    def is_new(self) -> bool:
        """Whether no step was counted yet."""
        return self.clips == 0

    def start(self) -> None:
        """Begin an epoch; what went by between epochs does not count."""
        self.marks.clear()
        self._mark()

    def waits(self, loader: Loader, stopwatch: "Stopwatch") -> Iterator[Batch]:
        """The loader's batches; the time until each is there counts as waiting."""
        batches = iter(loader)
        while True:
            before = time.perf_counter()
            with stopwatch.measure("waiting for data"):
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


@dataclass(frozen=True)
class TimeTable:
    """Where the time of a training went, on its first process."""

    seconds: dict[Phase, float]
    """Of each phase."""
    total: float
    """Seconds from the first step to the end."""

    def rows(self) -> list[tuple[str, float, float]]:
        """Phase, seconds, share of the whole (0..1); what belongs to no phase comes last."""
        rest = max(self.total - sum(self.seconds.values()), 0.0)
        rows = [*self.seconds.items(), ("everything else", rest)]
        return [(name, seconds, seconds / max(self.total, 1e-9)) for name, seconds in rows]

    def advice(self) -> str:
        """What to change, in a sentence."""
        share = {name: part for name, _, part in self.rows()}
        if share["waiting for data"] > _MUCH:
            return (
                f"{share['waiting for data']:.0%} of the time went by waiting for data: give more --workers, put the "
                "shards on a faster disk, or compare the loaders with: actcli bench loader"
            )
        if share["validation"] > 2 * _MUCH:
            return (
                f"validation took {share['validation']:.0%} of the time: validate less often (--set validate_every=5)"
            )
        if share["checkpoints"] > _MUCH:
            return f"checkpoints took {share['checkpoints']:.0%} of the time: write fewer (--checkpoint-minutes)"
        if share["host to device"] > _MUCH:
            return f"copies to the device took {share['host to device']:.0%} of the time: decode there (--loader dali)"
        network = share["forward"] + share["backward"] + share["optimiser"]
        return (
            f"the network itself took {network:.0%} of the time, so loading is not what limits this run; faster are a "
            "smaller --size, fewer --frames, a smaller --backbone, and on a GPU --precision bf16-mixed and --compile"
        )


_MUCH = 0.1
"""Share of the time from which a phase is worth a sentence."""


class Stopwatch:
    """Adds up the seconds of phases: on a GPU those that the device took, or stood idle; else those of the wall."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._spans: list[tuple[Phase, _Mark, _Mark]] = []
        self._seconds: dict[Phase, float] = dict.fromkeys(get_args(Phase), 0.0)
        self._began = time.perf_counter()

    def start(self) -> None:
        """Begin to count the whole."""
        self._began = time.perf_counter()

    @contextmanager
    def measure(self, phase: Phase) -> Iterator[None]:
        """What is done inside belongs to ``phase``."""
        before = _Mark(self._on_gpu)
        yield
        self._spans.append((phase, before, _Mark(self._on_gpu)))

    def settle(self) -> None:
        """Add up what was measured; waits for a GPU."""
        for phase, before, after in self._spans:
            self._seconds[phase] += after.seconds_since(before)
        self._spans.clear()

    def table(self) -> TimeTable:
        """Everything so far."""
        self.settle()
        return TimeTable(dict(self._seconds), time.perf_counter() - self._began)


class _Mark:
    """A moment: of the clock, or in what a GPU has been given to do."""

    def __init__(self, on_gpu: bool) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if on_gpu else None  # type: ignore[no-untyped-call]
        self._time = time.perf_counter()
        if self._event:
            self._event.record()

    def seconds_since(self, earlier: "_Mark") -> float:
        """Seconds between two moments of the same kind."""
        if self._event is None or earlier._event is None:
            return self._time - earlier._time
        self._event.synchronize()
        return float(earlier._event.elapsed_time(self._event)) / 1000
