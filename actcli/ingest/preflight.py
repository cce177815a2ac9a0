"""What can be known before the first clip is read: the list, where its clips lie, and everything that is wrong."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import nearest_folder
from actcli.ingest.card import CARD_NAME, DatasetCard, Setting
from actcli.ingest.datasets import get_dataset
from actcli.ingest.disk import DiskNeed
from actcli.ingest.executors import check_executor, read_runtime_env
from actcli.ingest.flow import check_method
from actcli.ingest.keys import KEYS_NAME
from actcli.ingest.layout import modality_file
from actcli.ingest.locate import DumpFinder, locate_in
from actcli.ingest.options import ExtractOptions, option_problems, unused_options
from actcli.ingest.owner import owner_problem
from actcli.ingest.records import DatasetAdapter, Listing, shown_names
from actcli.ingest.sample import choose_clips
from actcli.ingest.split import divide, split_problems, split_warnings
from actcli.ingest.store import url_problem

_OURS = re.compile(rf"\d+|extract(\.flow)?\.jsonl|manifest(\.flow)?\.parquet(\.sha256)?|{re.escape(KEYS_NAME)}")
"""Names that an extraction writes to."""


@dataclass(frozen=True)
class CheckedJob:
    """A job in which nothing is known to be wrong."""

    adapter: DatasetAdapter
    listing: Listing
    located: Mapping[str, str]
    """Source id to where the clip lies, of the clips that are there and wanted in this run."""
    warnings: tuple[str, ...]
    left_out: frozenset[str]
    """Source ids of clips that are there and not wanted in this run."""


def check_job(options: ExtractOptions) -> CheckedJob:
    """The listing and where its clips are, once everything that can be known beforehand is in order."""
    adapter = get_dataset(options.dataset)
    problems = [*option_problems(options), *_target_problems(options), *options.split_rule.problems()]
    with _collected(problems):
        check_executor(options.executor)
        if options.runtime_env:
            read_runtime_env(options.runtime_env)
    with _collected(problems):
        problems.extend(_url_problems(options))
    if options.modality == "flow" and not options.from_frames:
        with _collected(problems):
            check_method(options.flow_method)
    listing: Listing | None = None
    located: dict[str, str] = {}
    chosen: dict[str, str] = {}
    with _collected(problems):
        listing = _read(adapter, options)
    if listing is not None and all(root.is_dir() for root in options.from_frames):
        located, unplaced = _locate(listing, options)
        problems += unplaced
        problems += split_problems(listing) if adapter.is_own else ()
        problems += _source_problems(listing, located) if options.payload == "source" else ()
        if not problems:
            with _collected(problems):
                chosen = choose_clips(listing, located, options.classes, options.sample)
                problems += _disk_problems(chosen, options) if located else ()
    if problems or listing is None:
        raise ActcliError("\n".join(problems))
    warnings = (*listing.warnings, *unused_options(adapter, listing, options))
    if adapter.is_own:
        warnings += tuple(split_warnings(listing, options.split_rule))
    left_out = frozenset(located.keys() - chosen.keys())
    if left_out:
        warnings += (_left_for_later(len(left_out), options),)
    return CheckedJob(adapter, listing, chosen, warnings, left_out)


def _left_for_later(num_clips: int, options: ExtractOptions) -> str:
    """What to say of clips that ``--classes`` and ``--sample`` leave, which count as missing until they are taken."""
    asked = {"--classes": options.classes, "--sample": options.sample}
    flags = " and ".join(flag for flag, value in asked.items() if value)
    until = "they count as missing until the same command runs without it."
    return f"{num_clips} clips are left for later by {flags}; {until}"


def _read(adapter: DatasetAdapter, options: ExtractOptions) -> Listing | None:
    """The listing, divided into splits if it has none; None if the rule for that is wrong, which is said elsewhere.

    An own dataset without a raw folder is listed from the dump itself; None too where there is none.
    """
    if adapter.is_own and options.from_frames and not options.raw_dir.exists():
        root, *others = options.from_frames
        if not root.is_dir():
            return None
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
    before = card.extraction[options.modality].settings if options.modality in card.extraction else {}
    if problem := _changed_place(before.get("frames_url"), options):
        yield problem
    before = {"payload": "mjpeg", **before, "frames_url": options.settings().get("frames_url")}
    for name, now in {"payload": options.payload, **options.settings()}.items():
        if name in before and before[name] != now:
            flag = f"--{name.replace('_', '-')}"
            yield (
                f"{options.frames_dir} was extracted with {flag} {before[name]}, not {now}: "
                f"continue with {flag} {before[name]}, or choose another folder with --frames-dir."
            )


def _changed_place(before: Setting, options: ExtractOptions) -> str | None:
    """An extraction has its clips in one place."""
    now = options.settings().get("frames_url")
    if now == before:
        return None
    kept = f"the frames of {options.frames_dir} are at {before}" if before else f"{options.frames_dir} holds frames"
    go_on = f"continue with --frames-url {before}" if before else "leave out --frames-url"
    return f"{kept}, and cannot go on {f'at {now}' if now else 'here'}: {go_on}, or choose another --frames-dir."


def _url_problems(options: ExtractOptions) -> Iterator[str]:
    """Frames of somebody else where ours are to go; a card that names the URL makes those there ours."""
    if not options.frames_url or url_problem(options.frames_url):
        return
    if problem := owner_problem(options.frames_dir, options.store):
        yield problem
        return
    url = options.settings()["frames_url"]
    card = DatasetCard.read(options.frames_dir) if os.path.lexists(options.frames_dir / CARD_NAME) else None
    if card and any(extraction.settings.get("frames_url") == url for extraction in card.extraction.values()):
        return
    taken = [name for name in options.store.names() if _OURS.fullmatch(name)]
    if taken:
        yield (
            f"{url} holds {taken[0]}, and the card in {options.frames_dir} does not say that this is its: choose "
            "another --frames-url, or continue with the --frames-dir that began it; nothing there was touched."
        )


def _source_problems(listing: Listing, located: Mapping[str, str]) -> Iterator[str]:
    """What has no videos of its own to keep."""
    if listing.storage == "frames":
        yield "The dataset comes as frames, not as videos; leave out --payload source."
    shared = [path for path, count in Counter(located.values()).items() if count > 1]
    if shared:
        yield (
            f"{len(shared)} videos hold several listed clips each, such as {shown_names(shared[:1])}; --payload source "
            "would store them once for each clip. Leave it out."
        )


def _disk_problems(located: Mapping[str, str], options: ExtractOptions) -> Iterator[str]:
    """Compare free space with an estimate; what is extracted already is subtracted."""
    ledger = modality_file(options.frames_dir, "extract", options.modality, ".jsonl")
    num_done = ledger.read_bytes().count(b'"status":"ok"') if ledger.is_file() else 0
    planes = 1 if options.modality == "rgb" else 2
    need = DiskNeed(options.frames_dir, options.decode_settings(), planes, options.executor)
    if num_done < len(located) and options.payload == "mjpeg" and not options.frames_url:
        paths = [options.raw_dir / path for path in located.values()]
        yield from need.problems(paths, len(located) - num_done, options.dataset)
