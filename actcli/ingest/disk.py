"""Whether an extraction fits on the disk, estimated from the headers of a few clips."""

import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from actcli.files import nearest_folder
from actcli.ingest.container import open_container
from actcli.ingest.coverage import stream_seconds
from actcli.ingest.executors import Crash, ExecutorName, run_tasks
from actcli.ingest.failure import ClipFailure
from actcli.ingest.sizing import DecodeSettings, target_size

_BYTES_PER_PIXEL = 0.2
"""Upper estimate of a JPEG frame's bytes a pixel at the default quality."""
_SAMPLED_CLIPS = 16
_SAMPLE_SECONDS = 20.0
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class DiskNeed:
    """What the clips that are still to be done will take."""

    target: Path
    """Folder to write to; it need not exist."""
    decode: DecodeSettings
    """Size and rate."""
    planes: int
    """JPEGs a frame: 1, or 2 for flow."""
    executor: ExecutorName
    """Headers are read in workers too unless it is ``serial``: a strange file must not stop the run."""

    def problems(self, paths: Sequence[Path], num_clips: int, dataset: str) -> Iterator[str]:
        """Compare free space with the mean of a few of ``paths`` times ``num_clips``; clips that fail do not count."""
        sampled = paths[:: max(1, len(paths) // _SAMPLED_CLIPS)]
        work = partial(estimated_bytes, self.decode, self.planes)
        executor: ExecutorName = "serial" if self.executor == "serial" else "processes"
        results = run_tasks(executor, work, sampled, workers=1, timeout=_SAMPLE_SECONDS)
        sizes = [size for _, size in results if not isinstance(size, Crash) and size is not None]
        needed = sum(sizes) / len(sizes) * num_clips if sizes else 0.0
        existing = nearest_folder(self.target)
        free = shutil.disk_usage(existing).free
        if needed > free:
            yield (
                f"{existing} has {readable_bytes(free)} free, and {dataset} needs about {readable_bytes(needed)} "
                "there. Free some space, choose another folder with --frames-dir, or lower --short-side or --quality."
            )


def estimated_bytes(settings: DecodeSettings, planes: int, path: Path) -> float | None:
    """Bytes that a clip will take, from its header; None where that cannot be told."""
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            return float(sum(entry.stat().st_size for entry in os.scandir(path)))
        container, stream = open_container(path)
        with container:
            num_frames = stream_seconds(container, stream) * float(settings.fps or stream.average_rate or 25)
            width, height = target_size(stream.width, stream.height, settings)
            return num_frames * width * height * _BYTES_PER_PIXEL * planes
    except (ClipFailure, OSError, ValueError, ArithmeticError, MemoryError):
        return None


def readable_bytes(size: float) -> str:
    """``12.3 MB``: a size with the unit that suits it."""
    if size < 1000:
        return f"{size:.0f} bytes"
    unit, name = next((pair for pair in _UNITS if size >= pair[0]), _UNITS[-1])
    return f"{size / unit:.1f} {name}"
