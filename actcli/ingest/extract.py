"""The extraction job: from a raw folder to one file of frames per clip and a manifest of them all."""

import fcntl
import gc
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import av
import cv2
import simplejpeg

from actcli import __version__
from actcli.errors import ActcliError
from actcli.ingest.card import CARD_NAME, DatasetCard
from actcli.ingest.clip_job import ClipJob, ClipTask, extract_clip
from actcli.ingest.datasets import get_dataset
from actcli.ingest.decode import DecodeSettings
from actcli.ingest.disk import DiskNeed, nearest_folder
from actcli.ingest.executors import WORKER_DIED, Crash, ExecutorName, check_executor, run_tasks
from actcli.ingest.files import remove_leftovers
from actcli.ingest.flow import FLOW_METHODS, FlowMethod, check_method
from actcli.ingest.keys import KEYS_NAME, assign_keys
from actcli.ingest.ledger import Ledger
from actcli.ingest.locate import DumpFinder, locate_in
from actcli.ingest.manifest import (
    Layout,
    Modality,
    modality_file,
    payload_path,
    printable,
    write_manifest,
)
from actcli.ingest.payload import payload_bytes
from actcli.ingest.plan import Estimate, ExtractPlan, SplitCount, count_splits, estimate, make_plan
from actcli.ingest.records import ClipRecord, DatasetAdapter, Listing
from actcli.ingest.split import SplitRule, divide, loss_warnings, split_problems, split_warnings, write_splits
from actcli.ingest.video_lists import write_video_lists

_OURS = re.compile(rf"\d+|extract(\.flow)?\.jsonl|manifest(\.flow)?\.parquet(\.sha256)?|{re.escape(KEYS_NAME)}")
"""Names that an extraction writes to."""


@dataclass(frozen=True)
class ExtractOptions:
    """Everything that a user can choose about an extraction."""

    dataset: str
    """Name of the dataset; see ``list_datasets``."""
    raw_dir: Path
    """Folder with the official files."""
    frames_dir: Path
    """Folder to write to, one for each dataset."""
    modality: Modality = "rgb"
    """``rgb`` frames or optical ``flow``."""
    short_side: int = 256
    """Length of the shorter side in pixels; 0 keeps the size. Frame datasets keep theirs in rgb."""
    upscale: bool = False
    """Enlarge videos that are smaller than ``short_side``."""
    fps: float | None = None
    """Frames a second; None keeps every frame once."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Clips worked on at once."""
    layout: Layout = "mjpeg"
    """One ``mjpeg`` file a clip, or ``folders`` of JPEG files for other tools."""
    keep_partial: bool = False
    """Keep the frames before the place where a clip breaks, and mark the clip."""
    retry_failed: bool = False
    """Take up only the clips that failed or were missing in an earlier run."""
    flow_method: FlowMethod = "dis"
    """``dis`` (fast), ``farneback``, ``tvl1`` (that of the literature, about 140 times slower) or ``raft``."""
    flow_bound: float = 20.0
    """Motion in pixels that the largest byte of a flow picture stands for."""
    from_frames: tuple[Path, ...] = ()
    """Pack the JPEG folders of an existing dump instead of decoding videos; one root or several."""
    executor: ExecutorName = "processes"
    """Where clips are worked on: ``processes``, ``ray``, or ``serial`` (in this process)."""
    clip_timeout: float = 1800.0
    """Seconds after which a clip counts as hung and failed."""
    split_rule: SplitRule = field(default_factory=SplitRule)
    """How an own dataset that comes without splits is divided."""

    def settings(self) -> dict[str, Any]:
        """The options that decide what is written; a job continues only with the same ones."""
        shared: dict[str, Any] = {
            "short_side": self.short_side,
            "upscale": self.upscale,
            "fps": self.fps,
            "quality": self.quality,
        }
        shared |= {
            "layout": self.layout,
            "from_frames": " --from-frames ".join(str(root.absolute()) for root in self.from_frames) or None,
        }
        if self.modality == "flow":
            shared |= {"flow_method": self.flow_method, "flow_bound": self.flow_bound}
        return shared


@dataclass(frozen=True)
class ExtractProgress:
    """Where a running extraction stands."""

    done: int
    """Clips finished in this run, whatever came of them."""
    total: int
    """Clips that this run has to do."""
    failed: int
    """Clips of this run that failed or are missing."""
    frames: int
    """Frames, or flow fields, written in this run."""


@dataclass(frozen=True)
class FailedClip:
    """A clip without frames, and why."""

    key: str
    """Key of the clip."""
    source_id: str
    """Name in the official list."""
    status: str
    """``failed`` or ``missing``."""
    stage: str
    """Where it happened: find, open, decode, flow or worker."""
    error: str
    """Type of the error."""
    message: str
    """The error in words."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction came to; the counts are those of the whole dataset, not of this run alone."""

    listed: int
    """Clips in the official list."""
    counts: Mapping[str, int]
    """``ok``, ``partial`` (kept although broken), ``failed`` and ``missing``; they add up to ``listed``."""
    num_classes: int
    """Classes of the dataset."""
    splits: tuple[SplitCount, ...]
    """Clips by split set and split: listed, and found in the sense of kept."""
    failed: tuple[FailedClip, ...]
    """Every clip that failed or is missing."""
    already_done: int
    """Clips that earlier runs had finished."""
    frames: int
    """Frames, or flow fields, of all kept clips."""
    bytes: int
    """Bytes of all kept clips."""
    seconds: float
    """Length of this run."""
    frames_dir: Path
    """Where everything lies."""
    warnings: tuple[str, ...]
    """What the user should know."""


@dataclass(frozen=True)
class _Checked:
    """A job in which nothing is known to be wrong."""

    adapter: DatasetAdapter
    listing: Listing
    located: Mapping[str, str]
    """Source id to where the clip lies, of the clips that are there."""
    warnings: tuple[str, ...]


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cycles meanwhile: a list of a million records has none, and is searched again and again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def extract_dataset(
    options: ExtractOptions,
    *,
    progress: Callable[[ExtractProgress], None] | None = None,
    on_plan: Callable[[ExtractPlan], None] | None = None,
) -> ExtractSummary:
    """Extract a dataset, or continue where an earlier run stopped.

    Every clip of the official list gets a row in the manifest; one that cannot be extracted has its reason there.

    Args:
        options: What to do.
        progress: Called after every clip, in this process.
        on_plan: Called once, when everything has been checked and before the first clip is read.

    Raises:
        ActcliError: Something is wrong with the folders, annotations or options (all problems at once, before any clip
            is read), or the disk is full. What has been done stays; the same call continues.
    """
    begin = time.monotonic()
    with _disk_trouble(options.frames_dir):
        checked = _check(options)
    listing = checked.listing
    with _disk_trouble(options.frames_dir), _locked(options.frames_dir):
        remove_leftovers(options.frames_dir)
        if not listing.is_divided:
            write_splits(options.frames_dir, listing.records, options.split_rule)
        _write_card(listing, options)  # first: files of our names without a card are taken for somebody else's
        with _ledger(options) as ledger:
            keys = assign_keys(options.frames_dir, listing.records, _other_names(options) | ledger.names())
            to_do = _to_do(listing, keys, ledger, options)
            if on_plan:
                on_plan(make_plan(listing, checked.located, _done(ledger), checked.warnings))
            _extract_all(checked, to_do, ledger, options, progress)
        manifest = modality_file(options.frames_dir, "manifest", options.modality, ".parquet")
        with _uncollected():
            write_manifest(manifest, listing.records, keys, ledger.rows)
        outcomes = [ledger.rows[keys[record.source_id]] for record in listing.records]
        if options.layout == "folders":
            write_video_lists(options.frames_dir, listing, outcomes, options.modality)
    with _uncollected():
        return _summary(checked, outcomes, len(to_do), time.monotonic() - begin, options)


def plan_extraction(options: ExtractOptions) -> tuple[ExtractPlan, Estimate | None]:
    """What ``extract_dataset`` would do with the same options, and what it would take; nothing is written.

    The estimate is made by doing a few clips in a temporary folder; it is None where there is nothing to do, or where
    none of them can be done.

    Raises:
        ActcliError: As ``extract_dataset``.
    """
    with _disk_trouble(options.frames_dir):
        checked = _check(options)
        done = _done(_ledger(options))
    plan = make_plan(checked.listing, checked.located, done, checked.warnings)
    to_do = [r for r in checked.listing.records if r.source_id in checked.located and r.source_id not in done]
    tasks = [_task("", record, checked.located) for record in to_do]
    return plan, estimate(_clip_job(checked.adapter, options), tasks, options.workers) if tasks else None


@_uncollected()
def _ledger(options: ExtractOptions, modality: Modality | None = None) -> Ledger:
    return Ledger(modality_file(options.frames_dir, "extract", modality or options.modality, ".jsonl"))


def _other_names(options: ExtractOptions) -> dict[str, str]:
    """Key to source id of what was extracted of the other modality."""
    return _ledger(options, "flow" if options.modality == "rgb" else "rgb").names()


@contextmanager
def _disk_trouble(frames_dir: Path) -> Iterator[None]:
    """A disk that is full, read-only or gone, and memory that does not suffice, in a sentence."""
    try:
        yield
    except OSError as error:
        raise ActcliError(
            f"{error.filename or frames_dir}: {error.strerror or error}. "
            "Mend this and type the same command; it continues."
        ) from error
    except MemoryError as error:
        raise ActcliError(
            "The memory did not suffice. Lower --workers, or free some, and type the same command; it continues."
        ) from error


def _done(ledger: Ledger) -> set[str]:
    return {row["source_id"] for row in ledger.rows.values() if row["status"] == "ok"}


@_uncollected()
def _check(options: ExtractOptions) -> _Checked:
    """The listing and where its clips are, once everything that can be known beforehand is in order."""
    adapter = get_dataset(options.dataset)
    problems = [*_option_problems(options), *_target_problems(options), *options.split_rule.problems()]
    with _collected(problems):
        check_executor(options.executor)
    if options.modality == "flow" and not options.from_frames:
        with _collected(problems):
            check_method(options.flow_method)
    listing: Listing | None = None
    located: dict[str, str] = {}
    with _collected(problems):
        listing = _read(adapter, options)
    if listing is not None and all(root.is_dir() for root in options.from_frames):
        located, unplaced = _locate(listing, options)
        problems += unplaced
        problems += split_problems(listing) if adapter.is_own else ()
        if located and not problems:
            problems += _disk_problems(located, options)
    if problems or listing is None:
        raise ActcliError("\n".join(problems))
    warnings = (*listing.warnings, *_unused_options(adapter, listing, options))
    if adapter.is_own:
        warnings += tuple(split_warnings(listing, options.split_rule))
    return _Checked(adapter, listing, located, warnings)


def _read(adapter: DatasetAdapter, options: ExtractOptions) -> Listing | None:
    """The listing, divided into splits if it has none; None if the rule for that is wrong, which is said elsewhere.

    An own dataset without a raw folder is listed from the dump itself.
    """
    if adapter.is_own and options.from_frames and not options.raw_dir.exists():
        root, *others = options.from_frames
        if others:
            raise ActcliError("An own dataset is listed from one folder: give the parent of these to --from-frames.")
        listing = adapter.read(root)
        if listing.storage == "video":
            raise ActcliError(f"{root} holds videos, not frames: give it with --raw-dir in place of --from-frames.")
    else:
        listing = adapter.read(options.raw_dir)
    if listing.is_divided:
        return listing
    return None if any(options.split_rule.problems()) else divide(listing, options.split_rule, options.frames_dir)


def _locate(listing: Listing, options: ExtractOptions) -> tuple[dict[str, str], list[str]]:
    """Where the clips lie; a raw folder with annotations and no clip at all is a slip, not a list of missing clips."""
    first, total = listing.records[0], len(listing.records)
    if options.from_frames:
        finder = DumpFinder(options.from_frames, listing.records, options.modality)
        located = finder.locate()
        tried = ", ".join(finder.looked_for(first))
        roots = " ".join(map(str, options.from_frames))
        problem = f"None of the {total} listed clips has a folder in {roots}; the first was looked for as {tried}."
    else:
        located = locate_in(options.raw_dir, listing.records)
        expected = options.raw_dir / first.path
        problem = f"None of the {total} listed clips is in {options.raw_dir}; the first is expected at {expected}."
    return located, [] if located else [problem]


@contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    """Add an ``ActcliError`` of the block to ``problems``."""
    try:
        yield
    except ActcliError as error:
        problems.append(str(error))


def _option_problems(options: ExtractOptions) -> Iterator[str]:
    if options.modality not in get_args(Modality):
        yield f"modality {options.modality!r} is unknown; allowed are: {', '.join(get_args(Modality))}."
    if options.layout not in get_args(Layout):
        yield f"layout {options.layout!r} is unknown; allowed are: {', '.join(get_args(Layout))}."
    if options.short_side < 0 or 0 < options.short_side < 16:
        yield f"--short-side is {options.short_side}; use 0 (keep the size) or at least 16."
    if options.fps is not None and options.fps <= 0:
        yield f"--fps is {options.fps:g}; use a positive rate, or leave it out to keep every frame."
    if not 1 <= options.quality <= 100:
        yield f"--quality is {options.quality}; use 1 to 100."
    if options.workers < 1:
        yield f"--workers is {options.workers}; use at least 1."
    if options.flow_method not in FLOW_METHODS:
        yield f"--flow-method is {options.flow_method!r}; use one of {', '.join(FLOW_METHODS)}."
    if options.flow_bound <= 0:
        yield f"--flow-bound is {options.flow_bound:g}; use a positive number of pixels."
    for root in options.from_frames:
        if not root.is_dir():
            yield f"There is no folder {root}; --from-frames takes the folder of an existing dump."


def _target_problems(options: ExtractOptions) -> Iterator[str]:
    target = options.frames_dir
    existing = nearest_folder(target)
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        yield f"{existing} is not a folder that can be written to; choose another with --frames-dir."
    elif not os.path.lexists(target / CARD_NAME):
        yield from _foreign_problems(target)
    else:
        card = DatasetCard.read(target)
        if card.name != options.dataset:
            yield f"{target} holds {card.name}, not {options.dataset}; choose another folder with --frames-dir."
        else:
            yield from _changed_options(card, options)


def _foreign_problems(target: Path) -> Iterator[str]:
    """Files with names that are ours, and no card that says so, are somebody else's."""
    taken = sorted(filter(_OURS.fullmatch, os.listdir(target))) if target.is_dir() else []
    if taken:
        yield (
            f"{target} holds {taken[0]} but no {CARD_NAME}: these are no frames of actcli, or their card is lost. "
            "Choose another folder with --frames-dir; nothing here was touched."
        )


def _changed_options(card: DatasetCard, options: ExtractOptions) -> Iterator[str]:
    """A job continues only with the settings that it was started with."""
    ledger = modality_file(options.frames_dir, "extract", options.modality, ".jsonl")
    if not ledger.is_file() or not ledger.stat().st_size:
        return
    before = card.extraction.get(options.modality, {}).get("settings", {})
    for name, now in options.settings().items():
        if name in before and before[name] != now:
            flag = f"--{name.replace('_', '-')}"
            yield (
                f"{options.frames_dir} was extracted with {flag} {before[name]}, not {now}: "
                f"continue with {flag} {before[name]}, or choose another folder with --frames-dir."
            )


def _disk_problems(located: Mapping[str, str], options: ExtractOptions) -> Iterator[str]:
    """Compare free space with an estimate; what is extracted already is subtracted."""
    ledger = modality_file(options.frames_dir, "extract", options.modality, ".jsonl")
    num_done = ledger.read_bytes().count(b'"status":"ok"') if ledger.is_file() else 0
    planes = 1 if options.modality == "rgb" else 2
    need = DiskNeed(options.frames_dir, _decode_settings(options), planes, options.executor)
    if num_done < len(located):
        paths = [options.raw_dir / path for path in located.values()]
        yield from need.problems(paths, len(located) - num_done, options.dataset)


@contextmanager
def _locked(frames_dir: Path) -> Iterator[None]:
    """Keep a second extraction out of the folder; the system frees the lock when this process ends, however it ends."""
    frames_dir.mkdir(parents=True, exist_ok=True)
    with (frames_dir / ".extract.lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ActcliError(f"Another extraction is writing to {frames_dir}; wait for it to end.") from None
        yield


def _write_card(listing: Listing, options: ExtractOptions) -> None:
    card_path = options.frames_dir / CARD_NAME
    others = dict(DatasetCard.read(card_path).extraction) if card_path.exists() else {}
    versions = {"actcli": __version__, "av": av.__version__, "opencv": cv2.__version__}
    versions["simplejpeg"] = simplejpeg.__version__
    card = DatasetCard(
        name=options.dataset,
        classes=listing.classes,
        flip=listing.flip,
        flip_swaps=listing.flip_swaps,
        split_sets=listing.split_sets,
        group_by=options.split_rule.group_by,
        extraction=others | {options.modality: {"settings": options.settings(), "versions": versions}},
    )
    card.write(card_path)


def _to_do(
    listing: Listing, keys: Mapping[str, str], ledger: Ledger, options: ExtractOptions
) -> list[tuple[str, ClipRecord]]:
    """Key and record of the clips that are not done, in key order."""

    def is_open(key: str) -> bool:
        row = ledger.rows.get(key)
        if row is None:
            return not options.retry_failed
        if row["status"] != "ok":
            return options.retry_failed or _is_passing(row)
        path = payload_path(options.frames_dir, key, options.modality, options.layout)
        return not options.retry_failed and payload_bytes(path) != row["bytes"]

    pairs = sorted(((keys[record.source_id], record) for record in listing.records), key=lambda pair: pair[0])
    if options.retry_failed and any(key not in ledger.rows for key, _ in pairs):
        raise ActcliError(
            f"The extraction in {options.frames_dir} has not been run to its end: run it without --retry-failed first."
        )
    return [pair for pair in pairs if is_open(pair[0])]


def _decode_settings(options: ExtractOptions) -> DecodeSettings:
    return DecodeSettings(options.short_side, options.upscale, options.fps)


def _clip_job(adapter: DatasetAdapter, options: ExtractOptions) -> ClipJob:
    return ClipJob(
        raw_dir=options.raw_dir.absolute(),
        frames_dir=options.frames_dir.absolute(),
        modality=options.modality,
        layout=options.layout,
        decode=_decode_settings(options),
        quality=options.quality,
        keep_partial=options.keep_partial,
        flow_method=options.flow_method,
        flow_bound=options.flow_bound,
        from_frames=tuple(root.absolute() for root in options.from_frames),
        frames_fps=options.fps or adapter.fps or 0.0,
    )


def _task(key: str, record: ClipRecord, located: Mapping[str, str]) -> ClipTask:
    return ClipTask(key or "0", printable(record.source_id), located[record.source_id], record.start, record.end)


def _extract_all(
    checked: _Checked,
    to_do: list[tuple[str, ClipRecord]],
    ledger: Ledger,
    options: ExtractOptions,
    progress: Callable[[ExtractProgress], None] | None,
) -> None:
    located = checked.located
    here = [pair for pair in to_do if pair[1].source_id in located]
    missing = [_missing_row(key, record, options) for key, record in to_do if record.source_id not in located]
    tasks = (_task(key, record, located) for key, record in here)
    state = ExtractProgress(len(missing), len(to_do), len(missing), 0)
    results = _results(_clip_job(checked.adapter, options), tasks, max(1, min(options.workers, len(here))), options)
    try:
        with _uncollected():
            ledger.extend(missing)
        if missing and progress:
            progress(state)
        for task, result in results:
            row = _crash_row(task, result) if isinstance(result, Crash) else result
            ledger.append(row)
            state = replace(
                state,
                done=state.done + 1,
                failed=state.failed + (row["status"] != "ok"),
                frames=state.frames + row.get("num_frames", 0),
            )
            if progress:
                progress(state)
    except OSError as error:  # of the disk written to; those of the source are rows
        place = error.filename2 or error.filename or options.frames_dir
        raise ActcliError(
            f"Writing to {place} failed after {state.done} clips: {error.strerror or error}. "
            "Mend this and type the same command; it continues."
        ) from error
    finally:
        results.close()


def _results(
    job: ClipJob, tasks: Iterable[ClipTask], workers: int, options: ExtractOptions
) -> Generator[tuple[ClipTask, dict[str, Any] | Crash]]:
    """What comes of each clip; one whose worker died is tried once more when the others are done, alone."""
    run = partial(run_tasks, options.executor, partial(extract_clip, job), timeout=options.clip_timeout)
    died: list[ClipTask] = []
    with closing(run(tasks, workers=workers)) as results:
        for task, result in results:
            if isinstance(result, Crash) and result.error == WORKER_DIED:
                died.append(task)
            else:
                yield task, result
    with closing(run(died, workers=1)) as results:
        yield from results


def _is_passing(row: Mapping[str, Any]) -> bool:
    """Whether a clip failed for a reason outside of it, so that the same command takes it up again."""
    return bool(row["stage"] == "worker" or row["error"] == "MemoryError")


def _missing_row(key: str, record: ClipRecord, options: ExtractOptions) -> dict[str, Any]:
    what = "no folder of it in the dump" if options.from_frames else f"there is no {printable(record.path)}"
    return {
        "key": key,
        "source_id": printable(record.source_id),
        "status": "missing",
        "stage": "find",
        "error": "FileNotFoundError",
        "message": what,
    }


def _crash_row(task: ClipTask, crash: Crash) -> dict[str, Any]:
    return {
        "key": task.key,
        "source_id": task.source_id,
        "status": "failed",
        "stage": "worker",
        "error": crash.error,
        "message": crash.message,
    }


def _summary(
    checked: _Checked, outcomes: list[dict[str, Any]], num_done_now: int, seconds: float, options: ExtractOptions
) -> ExtractSummary:
    kinds = Counter("partial" if row.get("partial") else row["status"] for row in outcomes)
    records = checked.listing.records
    kept = {r.source_id for r, row in zip(records, outcomes, strict=True) if row["status"] == "ok"}
    return ExtractSummary(
        listed=len(records),
        counts={kind: kinds[kind] for kind in ("ok", "partial", "failed", "missing")},
        num_classes=len(checked.listing.classes),
        splits=tuple(count_splits(checked.listing, kept)),
        failed=tuple(
            FailedClip(row["key"], row["source_id"], row["status"], row["stage"], row["error"], row["message"])
            for row in outcomes
            if row["status"] != "ok"
        ),
        already_done=len(records) - num_done_now,
        frames=sum(row.get("num_frames", 0) for row in outcomes),
        bytes=sum(row.get("bytes", 0) for row in outcomes),
        seconds=seconds,
        frames_dir=options.frames_dir,
        warnings=(*checked.warnings, *loss_warnings(checked.listing, kept)),
    )


def _unused_options(adapter: DatasetAdapter, listing: Listing, options: ExtractOptions) -> Iterator[str]:
    """Settings that were given and have no effect."""
    default = ExtractOptions(options.dataset, options.raw_dir, options.frames_dir)
    is_copied = bool(options.from_frames) or (listing.storage == "frames" and options.modality == "rgb")
    names = ["short_side", "upscale", "quality"] if is_copied else []
    names += ["flow_method"] if options.modality == "rgb" or options.from_frames else []
    names += ["flow_bound"] if options.modality == "rgb" else []
    for name in names:
        if getattr(options, name) != getattr(default, name):
            yield f"--{name.replace('_', '-')} has no effect here" + (
                ": frames are copied as they are." if is_copied else "."
            )
    if listing.storage == "frames" and options.fps:
        yield "--fps does not drop or repeat frames of a dataset that comes as frames; it is only noted down."
    if options.split_rule != default.split_rule and not adapter.is_own:
        yield f"--val-fraction and --group-by have no effect: {adapter.title} has official splits."
    elif options.split_rule.val_fraction != default.split_rule.val_fraction and listing.is_divided:
        yield "--val-fraction has no effect: the dataset comes with splits of its own."
