"""The extraction job: from a raw folder to one file of frames per clip and a manifest of them all."""

import gc
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import cv2
import simplejpeg

from actcli import __version__
from actcli.errors import ActcliError
from actcli.files import folder_lock, remove_leftovers
from actcli.ingest.card import CARD_NAME, DatasetCard, Extraction
from actcli.ingest.clip_job import ClipJob, ClipTask, extract_clip
from actcli.ingest.executors import WORKER_DIED, Crash, read_runtime_env, run_tasks, start_ray
from actcli.ingest.failure import ClipFailure
from actcli.ingest.keys import assign_keys
from actcli.ingest.layout import Modality, modality_file
from actcli.ingest.ledger import Ledger
from actcli.ingest.manifest import write_manifest
from actcli.ingest.options import ExtractOptions
from actcli.ingest.outcome import LEFT_FOR_LATER, ClipOutcome
from actcli.ingest.owner import check_owner, claim_place
from actcli.ingest.plan import Estimate, ExtractPlan, estimate, make_plan
from actcli.ingest.preflight import CheckedJob, check_job
from actcli.ingest.records import ClipRecord, DatasetAdapter, Listing, printable
from actcli.ingest.split import write_splits
from actcli.ingest.store import FrameStore
from actcli.ingest.summary import ExtractProgress, ExtractSummary, summarise
from actcli.ingest.video_lists import write_video_lists
from actcli.remote import Unreachable
from actcli.words import counted

SHARED_SECONDS = 30.0
"""How late a file that a node wrote may be seen here."""
_KEY_FOLDER = re.compile(r"\d+")


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
    with _disk_trouble(options.frames_dir), _uncollected():
        checked = check_job(options)
    listing = checked.listing
    with _disk_trouble(options.frames_dir), _locked(options.frames_dir):
        remove_leftovers(options.frames_dir, *_key_folders(options.store))
        if not listing.is_divided:
            write_splits(options.frames_dir, listing.records, options.split_rule)
        if options.frames_url:
            options.store.try_writing()
            claim_place(options.frames_dir, options.store)
        _write_card(listing, options)  # first: files of our names without a card are taken for somebody else's
        with _ledger(options) as ledger:
            keys = assign_keys(options.frames_dir, listing.records, _other_names(options) | ledger.names())
            there = _there(ledger, options)
            to_do = _to_do(checked, keys, ledger, there, options)
            if on_plan:
                on_plan(make_plan(listing, checked.located, _done(ledger), checked.warnings))
            _extract_all(checked, to_do, ledger, options, progress)
            _check_all_arrived([ledger.outcomes[key] for key, _ in to_do], options)
            if options.frames_url:
                check_owner(options.frames_dir, options.store)
            with _uncollected():
                outcomes = _outcomes(checked, keys, ledger, there, options)
        manifest = modality_file(options.frames_dir, "manifest", options.modality, ".parquet")
        with _uncollected():
            write_manifest(manifest, listing.records, outcomes)
        if options.layout == "folders":
            write_video_lists(options.frames_dir, listing, outcomes, options.modality)
    with _uncollected():
        return summarise(
            listing,
            outcomes,
            num_done_now=sum(not ledger.outcomes[key].is_missing for key, _ in to_do),
            seconds=time.monotonic() - begin,
            frames_dir=options.frames_dir,
            warnings=checked.warnings,
        )


def plan_extraction(options: ExtractOptions) -> tuple[ExtractPlan, Estimate | None]:
    """What ``extract_dataset`` would do with the same options, and what it would take; nothing is written.

    The estimate is made by doing a few clips in a temporary folder; it is None where there is nothing to do, or where
    none of them can be done.

    Raises:
        ActcliError: As ``extract_dataset``.
    """
    with _disk_trouble(options.frames_dir), _uncollected():
        checked = check_job(options)
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
    return {outcome.source_id for outcome in ledger.outcomes.values() if outcome.is_ok}


@contextmanager
def _locked(frames_dir: Path) -> Iterator[None]:
    frames_dir.mkdir(parents=True, exist_ok=True)
    with folder_lock(frames_dir, "Another extraction"):
        yield


def _key_folders(store: FrameStore) -> list[Path]:
    """The folders on a disk that clips' files are written to."""
    root = store.root
    return [root / name for name in store.names() if _KEY_FOLDER.fullmatch(name)] if isinstance(root, Path) else []


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
        extraction=others | {options.modality: Extraction(options.settings(), versions)},
    )
    card.write(card_path)


def _there(ledger: Ledger, options: ExtractOptions) -> frozenset[str]:
    """Keys of the clips whose frames are there, of as many bytes as there were; with ``--retry-failed`` unlooked."""
    kept = {key: outcome.bytes for key, outcome in ledger.outcomes.items() if outcome.is_ok}
    if options.retry_failed:
        return frozenset(kept)
    sizes = options.store.sizes(kept)
    return frozenset(key for key, num_bytes in kept.items() if sizes.get(key) == num_bytes)


def _to_do(
    checked: CheckedJob, keys: Mapping[str, str], ledger: Ledger, there: Set[str], options: ExtractOptions
) -> list[tuple[str, ClipRecord]]:
    """Key and record of the clips that are there and not done, in key order."""

    def is_open(key: str) -> bool:
        outcome = ledger.outcomes.get(key)
        if outcome is not None and not outcome.is_ok:
            return options.retry_failed or _is_passing(outcome)
        return key not in there

    if options.retry_failed and not ledger.outcomes:
        raise ActcliError(
            f"Nothing has been extracted to {options.frames_dir} yet: run the extraction without --retry-failed first."
        )
    here = (record for record in checked.listing.records if record.source_id in checked.located)
    pairs = sorted(((keys[record.source_id], record) for record in here), key=lambda pair: pair[0])
    return [pair for pair in pairs if is_open(pair[0])]


def _outcomes(
    checked: CheckedJob, keys: Mapping[str, str], ledger: Ledger, there: Set[str], options: ExtractOptions
) -> list[ClipOutcome]:
    """What came of each listed clip, in the order of the list. A clip that is not there has no line in the ledger."""

    def outcome_of(record: ClipRecord) -> ClipOutcome:
        key = keys[record.source_id]
        outcome = ledger.outcomes.get(key)
        if outcome is not None and (record.source_id in checked.located or key in there):
            return outcome
        return _missing(key, record, options, is_there=record.source_id in checked.left_out)

    return [outcome_of(record) for record in checked.listing.records]


def _clip_job(adapter: DatasetAdapter, options: ExtractOptions) -> ClipJob:
    return ClipJob(
        raw_dir=options.raw_dir.absolute(),
        store=options.store,
        decode=options.decode_settings(),
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
    checked: CheckedJob,
    to_do: list[tuple[str, ClipRecord]],
    ledger: Ledger,
    options: ExtractOptions,
    progress: Callable[[ExtractProgress], None] | None,
) -> None:
    located = checked.located
    tasks = (_task(key, record, located) for key, record in to_do)
    state = ExtractProgress(0, len(to_do), 0, 0)
    results = _results(_clip_job(checked.adapter, options), tasks, max(1, min(options.workers, len(to_do))), options)
    try:
        for task, result in results:
            outcome = _crashed(task, result) if isinstance(result, Crash) else result
            if options.executor == "ray":
                _check_videos_seen(task, outcome, options)
            if outcome.is_ok and _is_looked_for(options, is_first=state.done == state.failed):
                _wait_for_file(task, outcome, options)
            ledger.append(outcome)
            state = replace(
                state,
                done=state.done + 1,
                failed=state.failed + (not outcome.is_ok),
                frames=state.frames + outcome.num_frames,
            )
            if progress:
                progress(state)
    except OSError as error:  # of the disk written to; those of the source are rows
        place = error.filename2 or error.filename or options.frames_dir
        raise ActcliError(
            f"Writing to {place} failed after {state.done} clips: {error.strerror or error}. "
            "Mend this and type the same command; it continues."
        ) from error
    except Unreachable as error:
        raise ActcliError(f"{error} {counted(state.done, 'clip')} came before; the same command continues.") from error
    finally:
        results.close()


def _check_videos_seen(task: ClipTask, outcome: ClipOutcome, options: ExtractOptions) -> None:
    """A node of a cluster has to see the videos that this process sees."""
    if outcome.is_missing and (options.raw_dir / task.path).exists():
        raise ActcliError(
            f"A node of the cluster does not see {options.raw_dir / task.path}, which is here: give --raw-dir a folder "
            "that all nodes share, under the same path."
        )


def _is_looked_for(options: ExtractOptions, *, is_first: bool) -> bool:
    """Whether a clip's file counts once this process sees it: on disks that a cluster shares.

    Behind a URL the first one tells whether all see the same; the others are looked for at the end, a thousand at once.
    """
    return is_first if isinstance(options.store.root, str) else options.executor == "ray"


def _wait_for_file(task: ClipTask, outcome: ClipOutcome, options: ExtractOptions) -> None:
    """Frames on a disk that only the worker sees are lost; a network file system may show a new file seconds late.

    Raises:
        ActcliError: The file is not there.
    """
    store = options.store
    deadline = time.monotonic() + SHARED_SECONDS
    while store.sizes([task.key]).get(task.key) != outcome.bytes:
        if time.monotonic() > deadline:
            who = "node of the cluster" if options.executor == "ray" else "worker process"
            what = "--frames-url a place" if options.frames_url else "--frames-dir a folder"
            how = "." if options.frames_url else ", under the same path."
            raise ActcliError(
                f"A {who} wrote {store.file(task.key)}, and it is not here: give {what} that all of them share{how} "
                "What is here is kept."
            )
        time.sleep(0.5)


def _check_all_arrived(outcomes: Sequence[ClipOutcome], options: ExtractOptions) -> None:
    """What was put to a URL has to be there.

    Raises:
        ActcliError: Some of it is not.
    """
    store = options.store
    if isinstance(store.root, Path):
        return
    put = {outcome.key: outcome.bytes for outcome in outcomes if outcome.is_ok}
    sizes = store.sizes(put)
    gone = [key for key, num_bytes in put.items() if sizes.get(key) != num_bytes]
    if gone:
        raise ActcliError(
            f"{counted(len(gone), 'clip')} that this run put to {store.root} {'is' if len(gone) == 1 else 'are'} not "
            f"there, the first being {store.file(gone[0])}. Type the same command again; it continues."
        )


def _results(
    job: ClipJob, tasks: Iterable[ClipTask], workers: int, options: ExtractOptions
) -> Generator[tuple[ClipTask, ClipOutcome | Crash]]:
    """What comes of each clip; one whose worker died is tried once more when the others are done, alone."""
    if options.executor == "ray" and options.runtime_env:
        start_ray(workers, read_runtime_env(options.runtime_env))
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


def _is_passing(outcome: ClipOutcome) -> bool:
    """Whether a clip failed for a reason outside of it, so that the same command takes it up again."""
    return outcome.stage == "worker" or outcome.error == "MemoryError"


def _missing(key: str, record: ClipRecord, options: ExtractOptions, *, is_there: bool) -> ClipOutcome:
    error = "FileNotFoundError"
    what = "no folder of it in the dump" if options.from_frames else f"there is no {printable(record.path)}"
    if is_there:
        error, what = LEFT_FOR_LATER, "left for a later run"
    return ClipOutcome(
        key=key,
        source_id=printable(record.source_id),
        status="missing",
        stage="find",
        error=error,
        message=what,
    )


def _crashed(task: ClipTask, crash: Crash) -> ClipOutcome:
    return ClipOutcome.lost(task.key, task.source_id, ClipFailure("worker", crash.error, crash.message))
