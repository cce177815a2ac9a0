"""One HTML page about an extracted dataset: balance, lengths, pictures, failures, leaks between splits."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import cv2
import jinja2
import numpy as np
import pandas as pd
import simplejpeg
from numpy.typing import NDArray

from actcli.ingest.card import DatasetCard
from actcli.ingest.flow import dequantise, flow_to_colour
from actcli.ingest.manifest import Layout, Modality, modality_file, payload_path, read_manifest

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
    """``same frames`` (equal checksums) or ``same group`` (UCF101: clips cut from one video)."""
    clips: tuple[str, ...]
    """Source ids."""


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


def inspect_dataset(frames_dir: Path | str, out_html: Path | str) -> Inspection:
    """Write a page about the dataset in ``frames_dir``; it needs no other file and no network.

    Raises:
        ActcliError: The folder holds no finished extraction.
    """
    frames_dir, out_html = Path(frames_dir), Path(out_html)
    card = DatasetCard.read(frames_dir)
    modality: Modality = "rgb" if "rgb" in card.extraction else "flow"
    clips = read_manifest(frames_dir, modality).to_pandas()
    clips["splits"] = clips["splits"].map(dict)
    kept = clips[clips["status"] == "ok"]
    leaks = tuple(find_leaks(kept, card))
    failed = clips[clips["status"] != "ok"]
    page = _template().render(
        card=card,
        modality=modality,
        status=clips["status"].value_counts().to_dict() | {"listed": len(clips), "partial": int(kept["partial"].sum())},
        totals={"frames": int(kept["num_frames"].sum()), "bytes": int(kept["bytes"].sum())},
        balance=_class_balance(clips, card),
        lengths=_histogram(kept["num_frames"]),
        sizes=_sizes(kept),
        pictures=list(_pictures(frames_dir, card, kept)),
        failures=_records(failed.head(_SHOWN_ROWS)),
        num_failed=len(failed),
        leaks=leaks[:_SHOWN_ROWS],
        num_leaks=len(leaks),
    )
    out_html.parent.mkdir(parents=True, exist_ok=True)
    out_html.write_text(page, encoding="utf-8")
    return Inspection(out_html, len(clips), len(failed), leaks)


def find_leaks(kept: pd.DataFrame, card: DatasetCard) -> Iterator[Leak]:
    """Clips with the same frames, and UCF101 groups, that lie in several splits of one split set."""
    groups = {"same frames": kept["checksum"]}
    if card.name == "ucf101":
        groups["same group"] = kept["source_id"].map(_ucf_group)
    for what, ids in groups.items():
        for split_set in card.split_sets:
            split = kept["splits"].map(lambda splits, name=split_set: splits.get(name))
            listed = kept.assign(split=split, group=ids).dropna(subset=["split", "group"])
            for _, members in listed.groupby("group", sort=True):
                shared = tuple(sorted(members["split"].unique()))
                if len(shared) > 1:
                    yield Leak(split_set, shared, what, tuple(members["source_id"]))


def _ucf_group(source_id: str) -> str | None:
    match = _UCF_GROUP.search(source_id)
    return f"{match['class_name'].lower()} {match['group']}" if match else None


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(files("actcli.ingest").joinpath("inspect.html.j2").read_text("utf-8"))


def _class_balance(clips: pd.DataFrame, card: DatasetCard) -> dict[str, Any]:
    """Clips by class and split of the first split set, kept clips only, and how many were lost."""
    split_set = next(iter(card.split_sets))
    split = clips["splits"].map(lambda splits: splits.get(split_set, ""))
    is_kept = clips["status"] == "ok"
    rows: list[dict[str, Any]] = []
    for label, name in enumerate(card.classes):
        of_class = clips["label"] == label
        counts = {s: int((of_class & is_kept & (split == s)).sum()) for s in card.split_sets[split_set]}
        rows.append({"name": name, "counts": counts, "lost": int((of_class & ~is_kept).sum())})
    largest = max((sum(row["counts"].values()) for row in rows), default=0)
    return {"split_set": split_set, "splits": card.split_sets[split_set], "rows": rows, "largest": max(largest, 1)}


def _histogram(lengths: "pd.Series[int]") -> dict[str, Any]:
    if lengths.empty:
        return {"bins": [], "minimum": 0, "median": 0, "maximum": 0, "largest": 1}
    low, high = int(lengths.min()), int(lengths.max())
    counts, edges = np.histogram(lengths, bins=min(_HISTOGRAM_BINS, high - low + 1), range=(low, high + 1))
    bins = [
        {"count": int(count), "first": int(np.ceil(a)), "last": int(np.ceil(b)) - 1}
        for count, a, b in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    return {
        "bins": bins,
        "minimum": low,
        "median": int(lengths.median()),
        "maximum": high,
        "largest": max(int(counts.max()), 1),
    }


def _sizes(kept: pd.DataFrame) -> list[dict[str, Any]]:
    """How many clips there are of each width, height and frame rate, most frequent first."""
    rated = kept.assign(fps=kept["fps"].round(2))
    counts = rated.groupby(["width", "height", "fps"], as_index=False).size()
    return _records(counts.sort_values("size", ascending=False, kind="stable").head(_SHOWN_SIZES))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return cast(list[dict[str, Any]], table.to_dict("records"))


def _pictures(frames_dir: Path, card: DatasetCard, kept: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Strips of frames of clips spread over the classes; flow, where there is any, below."""
    labelled = kept[kept["label"] >= 0].drop_duplicates("label").sort_values("label")
    step = max(1, -(-len(labelled) // _SHOWN_CLIPS))
    flows = _flow_rows(frames_dir, card)
    for row in _records(labelled.iloc[::step]):
        strips = []
        if "rgb" in card.extraction:
            strips.append([_data_url(image) for image in _rgb_strip(frames_dir, card, row)])
        if flow := flows.get(row["key"]):
            strips.append([_data_url(image) for image in _flow_strip(frames_dir, card, flow)])
        yield {"source_id": row["source_id"], "class_name": row["class_name"], "strips": strips}


def _flow_rows(frames_dir: Path, card: DatasetCard) -> dict[str, dict[str, Any]]:
    if "flow" not in card.extraction or not modality_file(frames_dir, "manifest", "flow", ".parquet").is_file():
        return {}
    return {row["key"]: row for row in read_manifest(frames_dir, "flow").to_pylist() if row["status"] == "ok"}


def _rgb_strip(frames_dir: Path, card: DatasetCard, row: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    jpegs = _read_jpegs(frames_dir, card, row, "rgb")
    for index in np.linspace(0, len(jpegs) - 1, min(_SHOWN_FRAMES, len(jpegs))).round().astype(int):
        yield simplejpeg.decode_jpeg(jpegs[index], "RGB")


def _flow_strip(frames_dir: Path, card: DatasetCard, row: dict[str, Any]) -> Iterator[NDArray[np.uint8]]:
    jpegs = _read_jpegs(frames_dir, card, row, "flow")
    count = len(jpegs) // 2
    for index in np.linspace(0, count - 1, min(_SHOWN_FRAMES, count)).round().astype(int):
        x, y = (simplejpeg.decode_jpeg(jpegs[2 * index + axis], "GRAY")[..., 0] for axis in (0, 1))
        yield flow_to_colour(dequantise(x, y, row["bound"]))


def _read_jpegs(frames_dir: Path, card: DatasetCard, row: dict[str, Any], modality: Modality) -> list[bytes]:
    layout: Layout = card.extraction[modality]["settings"]["layout"]
    path = payload_path(frames_dir, row["key"], modality, layout)
    if layout == "folders":
        names = sorted(path.iterdir(), key=lambda file: (file.stem[-5:], file.stem))  # x and y of a field together
        return [file.read_bytes() for file in names]
    data, ends = path.read_bytes(), np.cumsum(row["frame_sizes"])
    return [data[end - size : end] for end, size in zip(ends, row["frame_sizes"], strict=True)]


def _data_url(image: NDArray[np.uint8]) -> str:
    width = max(1, round(image.shape[1] * _THUMBNAIL_HEIGHT / image.shape[0]))
    small = cv2.resize(image, (width, _THUMBNAIL_HEIGHT), interpolation=cv2.INTER_AREA)
    jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(small), 80)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
