"""What an extraction is going to do: clips by split and class, and what it will take."""

import os
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from actcli.ingest.clip_job import ClipJob, ClipTask, extract_clip
from actcli.ingest.executors import Crash, run_tasks
from actcli.ingest.records import Listing

_TRIED_CLIPS = 6
_TRIAL_SECONDS = 20.0


@dataclass(frozen=True)
class SplitCount:
    """Clips of one split."""

    split_set: str
    """The split set; ``"1"`` where there is only one."""
    split: str
    """train, val or test."""
    num_clips: int
    """Clips listed, or kept, whichever was counted."""
    num_found: int
    """Those that are on disk."""
    num_classes: int
    """Classes that occur."""


@dataclass(frozen=True)
class ClassCount:
    """Clips of one class."""

    name: str
    """The class."""
    clips: tuple[int, ...]
    """Listed clips in each split, in the order of ``ExtractPlan.splits``."""


@dataclass(frozen=True)
class Estimate:
    """What an extraction will take, from doing a few of its clips."""

    seconds: float
    """Time for all clips that are to be done."""
    bytes: float
    """Disk space for them; none where the videos themselves are kept."""
    memory_bytes: float
    """Memory of all workers at their largest."""
    num_tried: int
    """Clips that were done for the estimate."""


@dataclass(frozen=True)
class ExtractPlan:
    """What an extraction is going to do."""

    num_classes: int
    """Classes of the dataset."""
    splits: tuple[SplitCount, ...]
    """Clips by split set and split."""
    classes: tuple[ClassCount, ...]
    """Clips by class and split, in label order."""
    num_listed: int
    """Clips of the list."""
    num_missing: int
    """Listed clips that are not on disk."""
    num_to_do: int
    """Clips on disk that earlier runs have not finished."""
    warnings: tuple[str, ...]
    """What the user should know before the work."""


def make_plan(
    listing: Listing, found: Collection[str], done: Collection[str], warnings: Sequence[str] = ()
) -> ExtractPlan:
    """Count a listing, given the source ids that are on disk and those that earlier runs have finished."""
    splits = tuple(count_splits(listing, found))
    clips = Counter((r.label, *side) for r in listing.records for side in r.splits.items())
    return ExtractPlan(
        num_classes=len(listing.classes),
        splits=splits,
        classes=tuple(
            ClassCount(name, tuple(clips[label, count.split_set, count.split] for count in splits))
            for label, name in enumerate(listing.classes)
        ),
        num_listed=len(listing.records),
        num_missing=len(listing.records) - len(found),
        num_to_do=len(set(found) - set(done)),
        warnings=tuple(warnings),
    )


def count_splits(listing: Listing, found: Collection[str]) -> Iterator[SplitCount]:
    """Clips by split; ``found`` holds the source ids that count as found."""
    for split_set, splits in listing.split_sets.items():
        for split in splits:
            members = [record for record in listing.records if record.splits.get(split_set) == split]
            labels = {record.label for record in members if record.class_name}
            num_found = sum(record.source_id in found for record in members)
            yield SplitCount(split_set, split, len(members), num_found, len(labels))


def estimate(job: ClipJob, tasks: Sequence[ClipTask], workers: int) -> Estimate | None:
    """Do a few clips, spread over all, in a temporary folder; None where none of them could be done in time."""
    step = max(1, len(tasks) // _TRIED_CLIPS)
    tried = tasks[::step][:_TRIED_CLIPS]
    with tempfile.TemporaryDirectory() as folder:
        work = partial(_timed_clip, replace(job, store=replace(job.store, root=Path(folder))))
        results = [
            result
            for _, result in run_tasks("processes", work, iter(tried), workers=1, timeout=_TRIAL_SECONDS)
            if not isinstance(result, Crash)
        ]
    if not any(trial.num_bytes for trial in results):
        return None
    workers = max(1, min(workers, len(tasks)))
    at_once = min(workers, os.cpu_count() or 1)
    return Estimate(
        seconds=float(np.mean([trial.seconds for trial in results])) * len(tasks) / at_once,
        bytes=float(np.mean([trial.num_bytes for trial in results])) * len(tasks) * (job.store.payload == "mjpeg"),
        memory_bytes=max(trial.peak_bytes for trial in results) * workers,
        num_tried=len(results),
    )


class _Trial(NamedTuple):
    """What one clip took."""

    seconds: float
    num_bytes: int
    peak_bytes: int
    """Largest memory of the worker so far."""


def _timed_clip(job: ClipJob, task: ClipTask) -> _Trial:
    begin = time.monotonic()
    outcome = extract_clip(job, task)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return _Trial(time.monotonic() - begin, outcome.bytes, peak)
