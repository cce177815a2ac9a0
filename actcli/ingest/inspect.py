"""One HTML page about an extracted dataset: balance, lengths, pictures, failures, leaks between splits."""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup

from actcli.errors import ActcliError
from actcli.files import check_target, write_text_whole
from actcli.ingest.card import DatasetCard
from actcli.ingest.layout import Modality
from actcli.ingest.lookalikes import joined, lookalikes, read_bits, sampled_frames
from actcli.ingest.manifest import ManifestRow, manifest_rows, read_manifest
from actcli.ingest.split import SplitRule
from actcli.ingest.store import FrameStore
from actcli.ingest.thumbnails import MAX_CLASSES, class_sheets, clip_films, jpegs_at
from actcli.pages import charts, render_page

_UCF_GROUP = re.compile(r"v_(?P<class_name>\w+?)_g(?P<group>\d+)_c\d+", re.IGNORECASE)
_SHOWN_ROWS = 500
_SHOWN_SIZES = 20
_SHOWN_NAMES = 3


@dataclass(frozen=True)
class Leak:
    """The same thing on both sides of a split."""

    split_set: str
    """Split set in which it happens."""
    splits: tuple[str, ...]
    """The splits that share it."""
    what: str
    """``same frames`` (equal checksums), ``nearly the same pictures`` (re-encoded copies), or ``same recording``."""
    clips: tuple[str, ...]
    """Source ids."""


@dataclass(frozen=True)
class Conflict:
    """Clips with the same frames and different classes."""

    clips: tuple[str, ...]
    """Source ids."""
    classes: tuple[str, ...]
    """Class of each of them."""


@dataclass(frozen=True)
class _ClassRow:
    """Clips of one class: by split, and those that were lost."""

    name: str
    counts: Mapping[str, int]
    lost: int


@dataclass(frozen=True)
class _Balance:
    """Clips by class in one split set."""

    split_set: str
    splits: tuple[str, ...]
    rows: list[_ClassRow]
    largest: int
    """Clips of the largest class, at least 1."""


@dataclass(frozen=True)
class _SplitCoverage:
    """What became of the clips that the official list names for one split."""

    split_set: str
    split: str
    listed: int
    ok: int
    failed: int
    missing: int


@dataclass(frozen=True)
class _Reason:
    """Clips that were lost in the same way."""

    status: str
    stage: str
    error: str
    num_clips: int
    message: str
    """Of the first of them."""
    clips: tuple[str, ...]
    """The first few."""


@dataclass(frozen=True)
class _Chart:
    """A picture with its words."""

    title: str
    words: str
    picture: Markup


@dataclass(frozen=True)
class _Size:
    """How many clips have one size and frame rate."""

    width: int
    height: int
    fps: float
    num_clips: int


@dataclass(frozen=True)
class Inspection:
    """What ``inspect_dataset`` wrote and found."""

    path: Path
    """The page."""
    num_clips: int
    """Listed clips."""
    num_failed: int
    """Clips that failed or are missing."""
    leaks: tuple[Leak, ...]
    """Clips that leak between splits."""
    conflicts: tuple[Conflict, ...]
    """Equal clips of different classes."""


def inspect_dataset(
    frames_dir: Path | str, out_html: Path | str, *, progress: Callable[[int, int], None] | None = None
) -> Inspection:
    """Write a page about the dataset in ``frames_dir``; it needs no other file and no network.

    Args:
        frames_dir: Folder of a finished extraction.
        out_html: The page.
        progress: Called with the number of clips whose pictures have been read, and of all.

    Raises:
        ActcliError: The folder holds no finished extraction, the frames lie behind a URL that does not answer, or the
            page cannot be written.
    """
    frames_dir, out_html = Path(frames_dir), Path(out_html)
    check_target(out_html, "--out")
    card = DatasetCard.read(frames_dir)
    modality: Modality = "rgb" if "rgb" in card.extraction else "flow"
    rows = list(manifest_rows(read_manifest(frames_dir, modality)))
    kept, failed = [row for row in rows if row.is_ok], [row for row in rows if not row.is_ok]
    clips = _table(kept)
    leaks = (*find_leaks(clips, card), *_find_lookalikes(frames_dir, card, kept, progress))
    conflicts = tuple(find_conflicts(clips))
    page = render_page(
        "inspect",
        card=card,
        modality=modality,
        status=Counter(row.status for row in rows) | {"listed": len(rows), "partial": sum(row.partial for row in kept)},
        totals={"frames": sum(row.num_frames for row in kept), "bytes": sum(row.bytes for row in kept)},
        balance=_class_balance(rows, card),
        num_more_classes=max(0, len(card.classes) - MAX_CLASSES),
        coverage=_coverage(rows, card),
        charts=list(_charts(kept, modality)),
        sizes=_sizes(kept),
        sheets=list(class_sheets(frames_dir, card, kept)),
        films=list(clip_films(frames_dir, card, kept)),
        reasons=_reasons(failed),
        compared=_compared(card),
        failures=failed[:_SHOWN_ROWS],
        num_failed=len(failed),
        leaks=leaks[:_SHOWN_ROWS],
        num_leaks=len(leaks),
        conflicts=conflicts[:_SHOWN_ROWS],
        num_conflicts=len(conflicts),
    )
    try:
        out_html.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(out_html, page)
    except OSError as error:
        raise ActcliError(
            f"{out_html} cannot be written ({error.strerror}); choose another place with --out."
        ) from None
    return Inspection(out_html, len(rows), len(failed), leaks, conflicts)


def _compared(card: DatasetCard) -> str:
    """What was looked for on both sides of a split, in words."""
    looked = ["the same frames", *(["nearly the same pictures"] if "rgb" in card.extraction else [])]
    return " or ".join([*looked, *(["the same recording"] if _recordings(card) else [])])


def find_leaks(kept: pd.DataFrame, card: DatasetCard) -> Iterator[Leak]:
    """Clips with the same frames, or from the same recording, that lie in several splits of one split set."""
    groups = {"same frames": kept["checksum"]}
    if recording_of := _recordings(card):
        groups["same recording"] = kept["source_id"].map(recording_of)
    for what, ids in groups.items():
        for split_set in card.split_sets:
            listed = kept.assign(split=_split_of(kept, split_set), group=ids).dropna(subset=["split", "group"])
            for _, members in listed.groupby("group", sort=True):
                shared = tuple(sorted(members["split"].unique()))
                if len(shared) > 1:
                    yield Leak(split_set, shared, what, tuple(members["source_id"]))


def find_conflicts(kept: pd.DataFrame) -> Iterator[Conflict]:
    """Clips with the same frames and different labels."""
    for _, members in kept[kept["label"] >= 0].groupby("checksum", sort=True):
        if members["label"].nunique() > 1:
            yield Conflict(tuple(members["source_id"]), tuple(members["class_name"]))


def _find_lookalikes(
    frames_dir: Path, card: DatasetCard, rows: list[ManifestRow], progress: Callable[[int, int], None] | None
) -> Iterator[Leak]:
    """Clips of different splits with nearly the same pictures; those with equal frames are known already."""
    if "rgb" not in card.extraction or not rows:
        return
    store = FrameStore.of(frames_dir, card, "rgb")
    bits = read_bits(lambda number: list(_sampled_jpegs(store, rows[number])), len(rows), progress)
    for split_set, splits in card.split_sets.items():
        side = [row.splits.get(split_set) for row in rows]
        numbers = {s: [n for n, b in enumerate(bits) if b is not None and side[n] == s] for s in splits}
        pairs = []
        for one, other in itertools.combinations((s for s in splits if numbers[s]), 2):
            left, right = (np.array([bits[n] for n in numbers[s]]) for s in (one, other))
            found = ((numbers[one][i], numbers[other][j]) for i, j in lookalikes(left, right))
            pairs += [(i, j) for i, j in found if rows[i].checksum != rows[j].checksum]
        for group in joined(pairs):
            shared = tuple(sorted({rows[n].splits[split_set] for n in group}))
            yield Leak(split_set, shared, "nearly the same pictures", tuple(rows[n].source_id for n in group))


def _table(kept: Sequence[ManifestRow]) -> pd.DataFrame:
    """What is compared between clips, a row for each."""
    names = ("checksum", "source_id", "label", "class_name", "splits")
    return pd.DataFrame({name: [getattr(row, name) for row in kept] for name in names})


def _split_of(clips: pd.DataFrame, split_set: str) -> "pd.Series[str]":
    return clips["splits"].map(lambda splits: splits.get(split_set))


def _recordings(card: DatasetCard) -> Callable[[str], str | None] | None:
    """What tells the recording that a clip was cut from, where the dataset's names do."""
    if card.name == "ucf101":
        return _ucf_group
    if card.name.startswith("kinetics"):
        return lambda source_id: source_id.rsplit("_", 2)[0]
    if card.group_by:
        return SplitRule(group_by=card.group_by).group_of
    return None


def _ucf_group(source_id: str) -> str | None:
    match = _UCF_GROUP.search(source_id)
    return f"{match['class_name'].lower()} {match['group']}" if match else None


def _class_balance(rows: Sequence[ManifestRow], card: DatasetCard) -> _Balance:
    """Clips by class and split of the first split set, kept clips only, and how many were lost."""
    split_set = next(iter(card.split_sets))
    splits = card.split_sets[split_set]
    kept = Counter((row.label, row.splits.get(split_set)) for row in rows if row.is_ok)
    lost = Counter(row.label for row in rows if not row.is_ok)
    classes = [
        _ClassRow(name, {split: kept[label, split] for split in splits}, lost[label])
        for label, name in enumerate(card.classes[:MAX_CLASSES])
    ]
    return _Balance(split_set, splits, classes, max([sum(row.counts.values()) for row in classes] + [1]))


def _coverage(rows: Sequence[ManifestRow], card: DatasetCard) -> list[_SplitCoverage]:
    """A row for each split of each split set."""
    counts = Counter((name, row.splits.get(name), row.status) for row in rows for name in card.split_sets)
    found = []
    for split_set, splits in card.split_sets.items():
        for split in splits:
            ok, failed, missing = (counts[split_set, split, status] for status in ("ok", "failed", "missing"))
            found.append(_SplitCoverage(split_set, split, ok + failed + missing, ok, failed, missing))
    return found


def _reasons(lost: Sequence[ManifestRow]) -> list[_Reason]:
    """Failed and missing clips by what happened to them, most frequent first."""
    groups: dict[tuple[str, str, str], list[ManifestRow]] = {}
    for row in lost:
        groups.setdefault((row.status, row.stage, row.error), []).append(row)
    reasons = [
        _Reason(*what, len(members), members[0].message, tuple(row.source_id for row in members[:_SHOWN_NAMES]))
        for what, members in groups.items()
    ]
    return sorted(reasons, key=lambda reason: -reason.num_clips)[:_SHOWN_ROWS]


def _charts(kept: Sequence[ManifestRow], modality: Modality) -> Iterator[_Chart]:
    """How long clips are, how large their pictures and how fast."""
    if not kept:
        return
    lengths = np.array([row.num_frames for row in kept])
    unit = "frames" if modality == "rgb" else "flow fields"
    words = f"{lengths.min()} to {lengths.max()}, median {int(np.median(lengths))}."
    yield _Chart(f"Length in {unit}", words, charts.histogram(lengths, unit))
    rates = np.array([row.fps for row in kept])
    known = rates > 0
    if known.any():
        seconds = lengths[known] / rates[known]
        words = f"{seconds.min():.1f} to {seconds.max():.1f} s, median {np.median(seconds):.1f} s."
        yield _Chart("Length in seconds", words, charts.histogram(seconds, "seconds"))
        words = f"{rates[known].min():.4g} to {rates[known].max():.4g}; unknown for {int((~known).sum())} clips."
        yield _Chart("Frames a second", words, charts.histogram(np.round(rates[known], 2), "frames a second"))
    ratios = np.array([row.width / row.height for row in kept if row.height])
    words = f"{ratios.min():.2f} to {ratios.max():.2f} (width / height)."
    yield _Chart("Shape", words, charts.histogram(np.round(ratios, 3), "width / height"))


def _sizes(kept: Sequence[ManifestRow]) -> list[_Size]:
    """How many clips there are of each width, height and frame rate, most frequent first."""
    counts = Counter((row.width, row.height, round(row.fps, 2)) for row in kept)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [_Size(*size, count) for size, count in ordered[:_SHOWN_SIZES]]


def _sampled_jpegs(store: FrameStore, row: ManifestRow) -> Iterator[bytes]:
    return jpegs_at(store, row, sampled_frames(row.num_frames))
