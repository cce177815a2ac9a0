"""Frames of single videos that belong to no dataset, made exactly as those of a dataset are."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from actcli.errors import ActcliError
from actcli.facts import read_facts
from actcli.ingest.card import DatasetCard, Extraction
from actcli.ingest.clip_job import ClipJob, ClipTask, extract_clip
from actcli.ingest.container import open_container
from actcli.ingest.coverage import stream_seconds
from actcli.ingest.datasets._annotations import VIDEO_SUFFIXES, natural_key
from actcli.ingest.executors import Crash, run_tasks
from actcli.ingest.failure import ClipFailure
from actcli.ingest.layout import modality_file
from actcli.ingest.manifest import write_manifest
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.records import UNLABELLED, ClipRecord
from actcli.ingest.sizing import DecodeSettings
from actcli.ingest.store import FrameStore

SPLIT = "test"
"""Split that the videos stand in."""
_KEY_DIGITS = 9


@dataclass(frozen=True)
class LooseClip:
    """A video, or a part of one."""

    path: Path
    """The file."""
    start: float | None = None
    """First second, where it is a part."""
    end: float | None = None
    """End in seconds, exclusive."""


@dataclass(frozen=True)
class FrameSettings:
    """How frames are made; a model wants them as those that it was trained on."""

    short_side: int = 256
    """Length of the shorter side in pixels; 0 keeps the size."""
    upscale: bool = False
    """Enlarge pictures that are smaller than ``short_side``."""
    fps: float | None = None
    """Frames a second; None keeps every frame once."""
    quality: int = 90
    """JPEG quality."""

    @staticmethod
    def of(settings: Mapping[str, object] | None) -> "FrameSettings":
        """The settings of an extraction, as a card holds them; the defaults where none are known.

        Raises:
            ActcliError: One is not of its type.
        """
        names = tuple(fact.name for fact in fields(FrameSettings))
        try:
            return FrameSettings(**read_facts(FrameSettings, settings or {}, names))
        except ValueError as error:
            raise ActcliError(f"the settings of the frames cannot be used: {error}.") from error


def find_videos(paths: Iterable[Path]) -> list[Path]:
    """Files as they are named, and the videos below folders, in natural order; a file need not exist."""
    found: list[Path] = []
    for path in paths:
        if not os.path.isdir(path):  # a name too long for the disk is no folder
            found.append(path)
            continue
        below = [Path(folder) / name for folder, _, names in os.walk(path) for name in names]
        videos = [file for file in below if file.suffix.lower() in VIDEO_SUFFIXES]
        found += sorted(videos, key=lambda file: natural_key(str(file)))
    return found


def video_seconds(path: Path) -> float | None:
    """Length of a video as its header states it; None where it cannot be opened or says nothing."""
    try:
        container, stream = open_container(path)
    except (ClipFailure, OSError):
        return None
    with container:
        return stream_seconds(container, stream) or None


def extract_loose(
    clips: Sequence[LooseClip],
    frames_dir: Path,
    settings: FrameSettings,
    classes: Sequence[str],
    *,
    workers: int,
    timeout: float,
    progress: Callable[[int, int], None] | None = None,
) -> list[ClipOutcome]:
    """Write the frames of ``clips`` with card and manifest, so that they can be packed into shards.

    Args:
        clips: In any number; the position is the key.
        frames_dir: An empty folder.
        settings: How frames are made.
        classes: Class names of the card.
        workers: Clips at a time, each in a process of its own.
        timeout: Seconds after which a clip counts as hung.
        progress: Called with (clips done, clips).

    Returns:
        What came of each, in the order of ``clips``; a broken one is an outcome with the reason.
    """
    job = ClipJob(
        raw_dir=Path("/"),
        store=FrameStore(frames_dir.absolute()),
        decode=DecodeSettings(settings.short_side, settings.upscale, settings.fps),
        quality=settings.quality,
        keep_partial=False,
        flow_method="dis",
        flow_bound=20.0,
        from_frames=(),
        frames_fps=0.0,
    )
    tasks = [_task(number, clip) for number, clip in enumerate(clips)]
    outcomes: dict[str, ClipOutcome] = {}
    for task, result in run_tasks("processes", partial(extract_clip, job), tasks, workers=workers, timeout=timeout):
        if isinstance(result, Crash):
            result = ClipOutcome.lost(task.key, task.source_id, ClipFailure("worker", result.error, result.message))
        outcomes[task.key] = result
        if progress:
            progress(len(outcomes), len(tasks))
    ordered = [outcomes[task.key] for task in tasks]
    _write_list(tasks, ordered, frames_dir, classes)
    return ordered


def _task(number: int, clip: LooseClip) -> ClipTask:
    key = f"{number:0{_KEY_DIGITS}d}"
    return ClipTask(key, key, str(clip.path.absolute()), clip.start, clip.end)


def _write_list(
    tasks: Sequence[ClipTask], outcomes: Sequence[ClipOutcome], frames_dir: Path, classes: Sequence[str]
) -> None:
    records = [
        ClipRecord(task.source_id, task.source_id, UNLABELLED, "", {"1": SPLIT}, task.start, task.end) for task in tasks
    ]
    write_manifest(modality_file(frames_dir, "manifest", "rgb", ".parquet"), records, outcomes)
    extraction = {"rgb": Extraction({}, {})}
    DatasetCard("videos", tuple(classes), "forbidden", (), {"1": (SPLIT,)}, extraction).write(frames_dir)
