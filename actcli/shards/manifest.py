"""Turn the manifests of an extraction into the clips that go into shards."""

import os
import re
import shlex
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions
from actcli.ingest.card import DatasetCard
from actcli.ingest.manifest import Modality, payload_path, read_manifest
from actcli.ingest.records import shown_names
from actcli.shards.bounds import MAX_PIXELS

RGB_MANIFEST = "manifest.parquet"
FLOW_MANIFEST = "manifest.flow.parquet"
STATUSES = ("ok", "failed", "missing")
_KEY = re.compile(r"[0-9]{9}")


@dataclass(frozen=True)
class Payload:
    """One file of a clip, as it goes into a tar."""

    suffix: str
    """Member suffix: ``mjpeg``, ``mp4`` or ``flow.mjpeg``."""
    path: Path
    """The file."""
    bytes: int
    """Its size."""
    checksum: str
    """Its sha256, in hex; empty where the manifest has none."""
    frame_sizes: tuple[int, ...]
    """Bytes of each JPEG; empty for video."""
    num_frames: int
    """Frames, or flow fields."""
    bound: float
    """Flow quantisation bound in pixels."""
    restore: str
    """The command that extracts the file again once it is gone."""


@dataclass(frozen=True)
class Clip:
    """One clip that goes into the shards."""

    key: str
    source_id: str
    label: int
    class_name: str
    splits: Mapping[str, str]
    width: int
    height: int
    fps: float
    rgb: Payload | None
    flow: Payload | None

    @property
    def payloads(self) -> list[Payload]:
        """The files of the clip, in the order in which they stand in the tar."""
        return [payload for payload in (self.rgb, self.flow) if payload is not None]


def read_clips(frames_dir: Path, card: DatasetCard) -> tuple[list[Clip], dict[str, int]]:
    """Clips that were extracted, in key order, and how many were listed, ok, failed and missing.

    Where flow was extracted too it is joined on the key; a clip without flow keeps its RGB frames.

    Raises:
        ActcliError: There is no manifest, it is damaged, or files on disk are not those that it lists.
    """
    manifests: dict[str, Modality] = {RGB_MANIFEST: "rgb", FLOW_MANIFEST: "flow"}
    tables = {
        name: _read_table(frames_dir, modality)
        for name, modality in manifests.items()
        if os.path.lexists(frames_dir / name)
    }
    if not tables:
        raise ActcliError(
            f"{frames_dir} has no {RGB_MANIFEST}: extraction did not finish. "
            f"Run it again with: actcli extract --dataset {frames_dir.name}"
        )
    has_rgb = RGB_MANIFEST in tables
    base = tables[RGB_MANIFEST if has_rgb else FLOW_MANIFEST]
    flows = _payloads(frames_dir, tables.get(FLOW_MANIFEST), "flow.mjpeg", extract_command(frames_dir, card, "flow"))
    frames = _payloads(frames_dir, tables.get(RGB_MANIFEST), "mjpeg", extract_command(frames_dir, card, "rgb"))
    clips = [_clip(frames_dir, row, card, frames.get(row.key), flows.get(row.key)) for row in _ok_rows(base)]
    _check_labels(clips)
    _check_files(clips)
    counts = {"listed": len(base), **{status: int((base["status"] == status).sum()) for status in STATUSES}}
    if has_rgb and flows:
        counts["ok_flow"] = sum(clip.flow is not None for clip in clips)
    return clips, counts


def _read_table(frames_dir: Path, modality: Modality) -> pd.DataFrame:
    table = read_manifest(frames_dir, modality)
    try:
        if any(column.null_count for column in table.columns):
            raise ValueError("a value is missing")
        frame: pd.DataFrame = table.to_pandas().sort_values("key")
        if frame["key"].duplicated().any() or not frame["status"].isin(STATUSES).all():
            raise ValueError("a key is there twice, or a status is unknown")
        return frame
    except (pa.ArrowException, OSError, LookupError, ValueError, TypeError) as error:
        raise _damaged(frames_dir, str(error)) from error


def _damaged(frames_dir: Path, problem: str) -> ActcliError:
    return ActcliError(
        f"the manifest in {frames_dir} is damaged ({problem}). Make it again, which keeps the frames, with: "
        f"actcli extract --dataset {frames_dir.name}"
    )


def _clip(frames_dir: Path, row: Any, card: DatasetCard, rgb: Payload | None, flow: Payload | None) -> Clip:
    splits = dict(row.splits)
    if not _KEY.fullmatch(row.key) or not -1 <= row.label < len(card.classes):
        raise _damaged(frames_dir, f"clip {row.key!r} has label {row.label}, there are {len(card.classes)} classes")
    if any(split not in card.split_sets.get(split_id, ()) for split_id, split in splits.items()):
        raise _damaged(frames_dir, f"clip {row.key} is in the splits {splits}, the card has {dict(card.split_sets)}")
    if min(row.width, row.height) < 1 or row.width * row.height > MAX_PIXELS:
        raise _damaged(frames_dir, f"clip {row.key} has {row.width} x {row.height} pixels")
    return Clip(
        key=row.key,
        source_id=row.source_id,
        label=int(row.label),
        class_name=row.class_name,
        splits=splits,
        width=int(row.width),
        height=int(row.height),
        fps=float(row.fps),
        rgb=rgb,
        flow=flow,
    )


def extract_command(frames_dir: Path, card: DatasetCard, modality: str) -> str:
    """The command that continues the extraction of a modality: the settings that it was begun with have to be given."""
    settings = card.extraction.get(modality, {}).get("settings", {})
    defaults = {field.name: field.default for field in fields(ExtractOptions)} | {"modality": "rgb"}
    words = ["actcli", "extract", "--dataset", card.name]
    if frames_dir.parent.name != "frames" or frames_dir.name != card.name:
        words += ["--frames-dir", str(frames_dir)]
    for name, value in {"modality": modality, **settings}.items():
        for one in value if isinstance(value, list) else [value]:
            if one is not None and one != defaults.get(name, one):
                words += [f"--{name.replace('_', '-')}", *([] if one is True else [str(one)])]
    return shlex.join(words)


def _payloads(frames_dir: Path, table: pd.DataFrame | None, suffix: str, restore: str) -> dict[str, Payload]:
    if table is None:
        return {}
    return {row.key: _payload(frames_dir, row, suffix, restore) for row in _ok_rows(table)}


def _ok_rows(table: pd.DataFrame) -> Iterator[Any]:
    return iter(table[table["status"] == "ok"].itertuples())


def _payload(frames_dir: Path, row: Any, suffix: str, restore: str) -> Payload:
    pictures_per_frame = 2 if suffix == "flow.mjpeg" else 1
    sizes = tuple(int(size) for size in row.frame_sizes)
    if not _KEY.fullmatch(row.key) or sum(sizes) != row.bytes or len(sizes) != pictures_per_frame * row.num_frames:
        raise _damaged(
            frames_dir,
            f"clip {row.key!r} has {row.num_frames} frames of {row.bytes} bytes, listed are {len(sizes)} pictures of "
            f"{sum(sizes)}",
        )
    return Payload(
        suffix=suffix,
        path=payload_path(frames_dir, row.key, "flow" if suffix == "flow.mjpeg" else "rgb"),
        bytes=int(row.bytes),
        checksum=row.checksum,
        frame_sizes=sizes,
        num_frames=int(row.num_frames),
        bound=float(row.bound),
        restore=restore,
    )


def _check_labels(clips: list[Clip]) -> None:
    """Clips to learn from have a class; only those of test splits may lack one."""
    bare = [clip.source_id for clip in clips if clip.label < 0 and {"train", "val"} & set(clip.splits.values())]
    if bare:
        raise ActcliError(
            f"{len(bare)} clips for training or validation have no class: {shown_names(bare)}. "
            "Mend their rows in the annotations and extract again, which keeps the frames."
        )


def _check_files(clips: list[Clip]) -> None:
    wrong = [(payload, problem) for clip in clips for payload in clip.payloads if (problem := _problem(payload))]
    if wrong:
        listed = ", ".join(f"{payload.path} ({problem})" for payload, problem in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        commands = sorted({payload.restore for payload, _ in wrong})
        raise ActcliError(
            f"frames are not those of the manifest: {listed}{more}. "
            f"Delete what is left of these files, and this restores them alone: {'; '.join(commands)}"
        )


def _problem(payload: Payload) -> str | None:
    try:
        found = payload.path.stat()
    except OSError:
        return "gone"
    if not stat.S_ISREG(found.st_mode):
        return "no regular file"
    return None if found.st_size == payload.bytes else f"{found.st_size} bytes, not {payload.bytes}"
