"""How fast the loaders are on this machine, and which one to take."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from actcli.errors import ActcliError
from actcli.loaders.batch import Batch
from actcli.loaders.iterating import Loader
from actcli.loaders.loader import open_loader
from actcli.loaders.plan import Modality


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
    modality: Modality = "rgb",
    num_frames: int = 8,
    size: int = 224,
    batch_size: int = 8,
) -> LoaderReport:
    """Measure each backend with each number of workers for ``seconds`` seconds, with random views.

    The other arguments are those of ``open_loader``.

    Raises:
        ActcliError: No backend could be measured.
    """

    def opened(backend: str, count: int) -> Loader:
        return open_loader(
            shards, split, num_frames, size, batch_size, count, backend, modality=modality, training=True, device=device
        )

    speeds, skipped = [], {}
    for backend in backends:
        for count in workers:
            try:
                speeds.append(_measure(opened, backend, count, seconds))
            except ActcliError as error:
                skipped[backend] = str(error)
    if not speeds:
        raise ActcliError(f"no loader could be measured: {'; '.join(dict.fromkeys(skipped.values()))}")
    return LoaderReport(tuple(sorted(speeds, key=lambda speed: -speed.clips_per_second)), skipped)


def _measure(opened: Callable[[str, int], Loader], backend: str, workers: int, seconds: float) -> LoaderSpeed:
    begun = time.perf_counter()
    with opened(backend, workers) as loader:
        batches = _forever(loader)
        next(batches)
        begin, begin_bytes, clips = time.perf_counter(), loader.num_bytes_read, 0
        first_batch_seconds = begin - begun
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
