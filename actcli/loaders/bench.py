"""How fast the loaders are on this machine, and which one to take."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from actcli.errors import ActcliError
from actcli.loaders.batch import Batch
from actcli.loaders.loader import Loader, open_loader


@dataclass(frozen=True)
class LoaderSpeed:
    """What one setting of the loader gave."""

    backend: str
    """``cpu`` or ``dali``."""
    workers: int
    clips_per_second: float
    megabytes_per_second: float
    """Bytes read from the shards."""
    first_batch_seconds: float
    """From opening to the first batch."""


@dataclass(frozen=True)
class LoaderReport:
    """The measurements, fastest first."""

    speeds: tuple[LoaderSpeed, ...]
    skipped: dict[str, str]
    """Backends that could not be measured, and why."""

    @property
    def fastest(self) -> LoaderSpeed:
        """The setting to use."""
        return self.speeds[0]

    def recommendation(self) -> str:
        """One sentence: what to type."""
        best = self.fastest
        return f"--loader {best.backend} --workers {best.workers} gives {best.clips_per_second:.0f} clips/s here."


def bench_loader(
    shards: str,
    split: str = "train",
    *,
    backends: tuple[str, ...] = ("cpu", "dali"),
    workers: tuple[int, ...] = (2,),
    seconds: float = 5.0,
    device: torch.device | str | None = None,
    **setup: Any,
) -> LoaderReport:
    """Measures each backend with each number of workers for ``seconds`` seconds.

    ``setup`` goes to ``open_loader``: frames, size, batch size, … Random views unless it says otherwise.

    Raises:
        ActcliError: No backend could be measured.
    """
    speeds, skipped = [], {}
    for backend in backends:
        for count in workers:
            try:
                speeds.append(_measure(shards, split, backend, count, seconds, device, setup))
            except ActcliError as error:
                skipped[backend] = str(error)
    if not speeds:
        raise ActcliError(f"no loader could be measured: {'; '.join(dict.fromkeys(skipped.values()))}")
    return LoaderReport(tuple(sorted(speeds, key=lambda speed: -speed.clips_per_second)), skipped)


def _measure(
    shards: str,
    split: str,
    backend: str,
    workers: int,
    seconds: float,
    device: torch.device | str | None,
    setup: dict[str, Any],
) -> LoaderSpeed:
    opened = time.perf_counter()
    with open_loader(
        shards, split, workers=workers, backend=backend, device=device, **{"training": True} | setup
    ) as loader:
        batches = _forever(loader)
        next(batches)
        begin, begin_bytes, clips = time.perf_counter(), loader.num_bytes_read, 0
        first_batch_seconds = begin - opened
        while time.perf_counter() - begin < seconds or not clips:
            clips += len(next(batches))
        passed = time.perf_counter() - begin
        megabytes = (loader.num_bytes_read - begin_bytes) / 1e6
    return LoaderSpeed(backend, workers, clips / passed, megabytes / passed, first_batch_seconds)


def _forever(loader: Loader) -> Iterator[Batch]:
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1
