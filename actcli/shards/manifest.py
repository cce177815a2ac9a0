"""Turn the manifests of an extraction into the clips that go into shards."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from actcli.errors import ActcliError
from actcli.ingest.manifest import payload_path

RGB_MANIFEST = "manifest.parquet"
FLOW_MANIFEST = "manifest.flow.parquet"
STATUSES = ("ok", "failed", "missing")


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
    bound: float = 0.0
    """Flow quantisation bound in pixels."""


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


def read_clips(frames_dir: Path) -> tuple[list[Clip], dict[str, int]]:
    """Clips that were extracted, in key order, and how many were listed, ok, failed and missing.

    Where flow was extracted too it is joined on the key; a clip without flow keeps its RGB frames.

    Raises:
        ActcliError: There is no manifest, or files on disk are not those of the manifest.
    """
    tables = {
        name: pd.read_parquet(frames_dir / name).sort_values("key")
        for name in (RGB_MANIFEST, FLOW_MANIFEST)
        if (frames_dir / name).exists()
    }
    if not tables:
        raise ActcliError(
            f"{frames_dir} has no {RGB_MANIFEST}: extraction did not finish. "
            f"Run it again with: actcli extract --dataset {frames_dir.name}"
        )
    has_rgb = RGB_MANIFEST in tables
    base = tables[RGB_MANIFEST if has_rgb else FLOW_MANIFEST]
    flows = _payloads(frames_dir, tables.get(FLOW_MANIFEST), "flow.mjpeg")
    frames = _payloads(frames_dir, tables.get(RGB_MANIFEST), "mjpeg")
    clips = [
        Clip(
            key=row.key,
            source_id=row.source_id,
            label=int(row.label),
            class_name=row.class_name,
            splits=dict(row.splits),
            width=int(row.width),
            height=int(row.height),
            fps=float(row.fps),
            rgb=frames.get(row.key),
            flow=flows.get(row.key),
        )
        for row in _ok_rows(base)
    ]
    _check_files(clips)
    counts = {"listed": len(base), **{status: int((base["status"] == status).sum()) for status in STATUSES}}
    if has_rgb and flows:
        counts["ok_flow"] = sum(clip.flow is not None for clip in clips)
    return clips, counts


def _payloads(frames_dir: Path, table: pd.DataFrame | None, suffix: str) -> dict[str, Payload]:
    if table is None:
        return {}
    return {row.key: _payload(frames_dir, row, suffix) for row in _ok_rows(table)}


def _ok_rows(table: pd.DataFrame) -> Iterator[Any]:
    return iter(table[table["status"] == "ok"].itertuples())


def _payload(frames_dir: Path, row: Any, suffix: str) -> Payload:
    return Payload(
        suffix=suffix,
        path=payload_path(frames_dir, row.key, "flow" if suffix == "flow.mjpeg" else "rgb"),
        bytes=int(row.bytes),
        checksum=row.checksum,
        frame_sizes=tuple(int(size) for size in row.frame_sizes),
        num_frames=int(row.num_frames),
        bound=float(row.bound),
    )


def _check_files(clips: list[Clip]) -> None:
    wrong = []
    for payload in (payload for clip in clips for payload in clip.payloads):
        try:
            found = payload.path.stat().st_size
        except OSError:
            found = -1
        if found != payload.bytes:
            wrong.append(f"{payload.path} ({'gone' if found < 0 else f'{found} bytes, not {payload.bytes}'})")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ActcliError(
            f"frames are not those of the manifest: {', '.join(wrong[:5])}{more}. "
            f"Delete the folder of the dataset and extract it again."
        )
