"""How fast a training will be, and how much of that the data costs, before a long run."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice

import torch

from actcli.engine.clock import Stopwatch, TimeTable
from actcli.engine.hardware import Hardware, launch
from actcli.engine.preparation import Prepared, prepare
from actcli.engine.runs import RunConfig
from actcli.engine.schedules import StepPlace
from actcli.errors import ActcliError
from actcli.loaders import Batch

_WARM_UP = 2
"""Steps that are not timed."""


@dataclass(frozen=True)
class TrainingSpeed:
    """What was measured, on one process."""

    clips_per_second: float
    """Of the training, reading included."""
    ceiling: float
    """Clips per second of the same step on batches kept on the device."""
    times: TimeTable
    """Where the time of the first of the two went."""

    @property
    def share_of_ceiling(self) -> float:
        """1 where reading costs nothing."""
        return self.clips_per_second / self.ceiling

    def in_words(self) -> str:
        """One sentence."""
        lost = max(0.0, 1 - self.share_of_ceiling)
        verdict = "reading the data costs next to nothing" if lost < 0.05 else f"the data costs {lost:.0%} of the speed"
        return f"{self.share_of_ceiling:.0%} of what the network could do on batches that are at hand: {verdict}."


def bench_training(
    config: RunConfig,
    hardware: Hardware,
    note: Callable[[str], None],
    *,
    num_steps: int = 20,
    cached_batches: int = 4,
) -> TrainingSpeed:
    """Time training steps on the shards, and the same steps on a few batches that stay on the device.

    Raises:
        ActcliError: Something does not fit together, or several processes were started.
    """
    fabric = launch(replace(hardware, devices=1), config.recipe.precision)
    if fabric.world_size > 1:
        raise ActcliError("a training is timed on one process; leave out torchrun.")
    prepared = prepare(config, hardware, fabric, note)
    prepared.step.model.train()
    with prepared.train_loader, prepared.val_loader:
        batches = _endless(prepared)
        cached = [batch.copy() for batch in islice(batches, cached_batches)]
        _steps(prepared, islice(batches, _WARM_UP), Stopwatch(fabric.device))
        stopwatch = Stopwatch(fabric.device)
        rate = _steps(prepared, _timed(batches, num_steps, stopwatch), stopwatch)
        times = stopwatch.table()
    kept = (cached[number % len(cached)] for number in range(num_steps))
    return TrainingSpeed(rate, _steps(prepared, kept, Stopwatch(fabric.device)), times)


def _endless(prepared: Prepared) -> Iterator[Batch]:
    """Training batches on the device, epoch after epoch."""
    for epoch in count():
        prepared.train_loader.set_epoch(epoch)
        for batch in prepared.train_loader:
            yield batch.to(prepared.step.fabric.device, non_blocking=True)


def _timed(batches: Iterator[Batch], num_steps: int, stopwatch: Stopwatch) -> Iterator[Batch]:
    for _ in range(num_steps):
        with stopwatch.measure("waiting for data"):
            batch = next(batches)
        yield batch


def _steps(prepared: Prepared, batches: Iterable[Batch], stopwatch: Stopwatch) -> float:
    """Learn from batches; clips per second."""
    step = prepared.step
    step.stopwatch = stopwatch
    stopwatch.start()
    before, clips = time.perf_counter(), 0
    for number, batch in enumerate(batches):
        step.run(batch, StepPlace(0, number, len(prepared.train_loader) + number))
        clips += len(batch)
    if step.fabric.device.type == "cuda":
        torch.cuda.synchronize(step.fabric.device)
    return clips / (time.perf_counter() - before)
