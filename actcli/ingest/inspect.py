"""One HTML page about an extracted dataset: balance, lengths, pictures, failures, leaks between splits."""

import base64
import itertools
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import jinja2
import numpy as np
import pandas as pd
import simplejpeg
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.files import write_text_whole
from actcli.ingest.card import DatasetCard
from actcli.ingest.flow import dequantise, flow_to_colour
from actcli.ingest.lookalikes import joined, lookalikes, read_bits, sampled_frames
from actcli.ingest.manifest import (
    Layout,
    ManifestRow,
    Modality,
    manifest_rows,
    modality_file,
    payload_path,
    read_manifest,
)
from actcli.ingest.split import SplitRule

_UCF_GROUP = re.compile(r"v_(?P<class_name>\w+?)_g(?P<group>\d+)_c\d+", re.IGNORECASE)
_SHOWN_CLIPS = 24
_SHOWN_FRAMES = 6
_SHOWN_ROWS = 500
_SHOWN_SIZES = 20
_THUMBNAIL_HEIGHT = 96
_HISTOGRAM_BINS = 40


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
class _Pictures:
    """Strips of frames of one clip."""

    source_id: str
    class_name: str
    strips: list[list[str]]
    """A strip for each modality, of pictures as data URLs."""


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
class _Bin:
    """How many clips have ``first`` to ``last`` frames."""

    count: int
    first: int
    last: int


@dataclass(frozen=True)
class _Histogram:
    """Lengths of clips in frames."""

    bins: list[_Bin]
    minimum: int
    median: int
    maximum: int
    largest: int
    """Clips of the fullest bin, at least 1."""


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
        ActcliError: The folder holds no finished extraction, or the page cannot be written.
    """
    frames_dir, out_html = Path(frames_dir), Path(out_html)
    _check_target(out_html)
    card = DatasetCard.read(frames_dir)
    modality: Modality = "rgb" if "rgb" in card.extraction else "flow"
    rows = list(manifest_rows(read_manifest(frames_dir, modality)))
    kept, failed = [row for row in rows if row.is_ok], [row for row in rows if not row.is_ok]
    clips = _table(kept)
    leaks = (*find_leaks(clips, card), *_find_lookalikes(frames_dir, card, kept, progress))
    conflicts = tuple(find_conflicts(clips))
    page = _template().render(
        card=card,
        modality=modality,
        status=Counter(row.status for row in rows) | {"listed": len(rows), "partial": sum(row.partial for row in kept)},
        totals={"frames": sum(row.num_frames for row in kept), "bytes": sum(row.bytes for row in kept)},
        balance=_class_balance(rows, card),
        lengths=_histogram([row.num_frames for row in kept]),
        sizes=_sizes(kept),
        pictures=list(_pictures(frames_dir, card, rows)),
        failures=failed[:_SHOWN_ROWS],
        num_failed=len(failed),
        leaks=leaks[:_SHOWN_ROWS],
        num_leaks=len(leaks),
        conflicts=conflicts[:_SHOWN_ROWS],
        num_conflicts=len(conflicts),
    )
    try:
        write_text_whole(out_html, page)
    except OSError as error:
        raise ActcliError(
            f"{out_html} cannot be written ({error.strerror}); choose another place with --out."
        ) from None
    return Inspection(out_html, len(rows), len(failed), leaks, conflicts)


def _check_target(out_html: Path) -> None:
    try:
        out_html.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ActcliError(
            f"{out_html.parent} cannot be made ({error.strerror}); choose another place with --out."
        ) from None
    if out_html.is_dir() or not os.access(out_html.parent, os.W_OK | os.X_OK):
        raise ActcliError(f"{out_html} cannot be written; choose another place with --out.")


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
    bits = read_bits(lambda number: list(_sampled_jpegs(frames_dir, card, rows[number])), len(rows), progress)
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


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(files("actcli.ingest").joinpath("inspect.html.j2").read_text("utf-8"))


def _class_balance(rows: Sequence[ManifestRow], card: DatasetCard) -> _Balance:
    """Clips by class and split of the first split set, kept clips only, and how many were lost."""
    split_set = next(iter(card.split_sets))
    splits = card.split_sets[split_set]
    kept = Counter((row.label, row.splits.get(split_set)) for row in rows if row.is_ok)
    lost = Counter(row.label for row in rows if not row.is_ok)
    classes = [
        _ClassRow(name, {split: kept[label, split] for split in splits}, lost[label])
        for label, name in enumerate(card.classes)
    ]
    return _Balance(split_set, splits, classes, max([sum(row.counts.values()) for row in classes] + [1]))


def _histogram(lengths: Sequence[int]) -> _Histogram:
    if not lengths:
        return _Histogram([], 0, 0, 0, 1)
    low, high = min(lengths), max(lengths)
    counts, edges = np.histogram(lengths, bins=min(_HISTOGRAM_BINS, high - low + 1), range=(low, high + 1))
    bins = [
        _Bin(int(count), math.ceil(begin), math.ceil(end) - 1)
        for count, begin, end in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    return _Histogram(bins, low, int(np.median(lengths)), high, max(int(counts.max()), 1))


def _sizes(kept: Sequence[ManifestRow]) -> list[_Size]:
    """How many clips there are of each width, height and frame rate, most frequent first."""
    counts = Counter((row.width, row.height, round(row.fps, 2)) for row in kept)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [_Size(*size, count) for size, count in ordered[:_SHOWN_SIZES]]


def _pictures(frames_dir: Path, card: DatasetCard, rows: list[ManifestRow]) -> Iterator[_Pictures]:
    """Strips of frames of clips spread over the classes; flow, where there is any, below."""
    first: dict[int, ManifestRow] = {}
    for row in rows:
        if row.is_ok and row.label >= 0:
            first.setdefault(row.label, row)
    labelled = [first[label] for label in sorted(first)]
    step = max(1, -(-len(labelled) // _SHOWN_CLIPS))
    flows = _flow_rows(frames_dir, card)
    for row in labelled[::step]:
        strips = []
        if "rgb" in card.extraction:
            strips.append([_data_url(image) for image in _rgb_strip(frames_dir, card, row)])
        if flow := flows.get(row.key):
            strips.append([_data_url(image) for image in _flow_strip(frames_dir, card, flow)])
        yield _Pictures(row.source_id, row.class_name, strips)


def _flow_rows(frames_dir: Path, card: DatasetCard) -> dict[str, ManifestRow]:
    if "flow" not in card.extraction or not modality_file(frames_dir, "manifest", "flow", ".parquet").is_file():
        return {}
    return {row.key: row for row in manifest_rows(read_manifest(frames_dir, "flow")) if row.is_ok}


def _rgb_strip(frames_dir: Path, card: DatasetCard, row: ManifestRow) -> Iterator[NDArray[np.uint8]]:
    jpegs = _read_jpegs(frames_dir, card, row, "rgb")
    for index in np.linspace(0, len(jpegs) - 1, min(_SHOWN_FRAMES, len(jpegs))).round().astype(int):
        yield simplejpeg.decode_jpeg(jpegs[index], "RGB")


def _flow_strip(frames_dir: Path, card: DatasetCard, row: ManifestRow) -> Iterator[NDArray[np.uint8]]:
    jpegs = _read_jpegs(frames_dir, card, row, "flow")
    count = len(jpegs) // 2
    for index in np.linspace(0, count - 1, min(_SHOWN_FRAMES, count)).round().astype(int):
        x, y = (simplejpeg.decode_jpeg(jpegs[2 * index + axis], "GRAY")[..., 0] for axis in (0, 1))
        yield flow_to_colour(dequantise(x, y, row.bound))


def _read_jpegs(frames_dir: Path, card: DatasetCard, row: ManifestRow, modality: Modality) -> list[bytes]:
    return list(_jpegs_at(frames_dir, card, row, modality, range(len(row.frame_sizes))))


def _sampled_jpegs(frames_dir: Path, card: DatasetCard, row: ManifestRow) -> Iterator[bytes]:
    return _jpegs_at(frames_dir, card, row, "rgb", sampled_frames(row.num_frames))


def _jpegs_at(
    frames_dir: Path, card: DatasetCard, row: ManifestRow, modality: Modality, indices: Iterable[int]
) -> Iterator[bytes]:
    layout: Layout = "folders" if card.extraction[modality].settings["layout"] == "folders" else "mjpeg"
    path = payload_path(frames_dir, row.key, modality, layout)
    if layout == "folders":
        names = sorted(path.iterdir(), key=lambda file: (file.stem[-5:], file.stem))  # x and y of a field together
        yield from (names[index].read_bytes() for index in indices)
        return
    ends = np.cumsum(row.frame_sizes)
    with path.open("rb") as file:
        for index in indices:
            file.seek(int(ends[index] - row.frame_sizes[index]))
            yield file.read(int(row.frame_sizes[index]))


def _data_url(image: NDArray[np.uint8]) -> str:
    width = max(1, round(image.shape[1] * _THUMBNAIL_HEIGHT / image.shape[0]))
    small = cv2.resize(image, (width, _THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(small), 80)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
