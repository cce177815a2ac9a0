"""The index of one split in memory: where each clip and each of its frames lies in the tars."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcli.facts import NO_SIZES, Sizes
from actcli.shards.clip import Extents, StoredClip

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class FrameTable:
    """Bytes and CRC-32 of the JPEGs of all clips, back to back, and where each clip's payload begins in its tar."""

    offsets: Array
    """int64 ``[num_clips]``: first byte of the clip's payload in its tar."""
    starts: Array
    """int64 ``[num_clips + 1]``: the clip's JPEGs are ``sizes[starts[row]:starts[row + 1]]``."""
    sizes: Array
    """uint16 or uint32: bytes of each JPEG; a video is one entry."""
    crcs: Array
    """uint32: CRC-32 of each JPEG; empty where none are known."""

    def of(self, row: int) -> tuple[Sizes, Sizes]:
        """Bytes and CRC-32 of the JPEGs of one clip."""
        place = slice(self.starts[row], self.starts[row + 1])
        return self.sizes[place], self.crcs[place]

    def payload_bytes(self) -> Array:
        """int64 ``[num_clips]``: bytes of all JPEGs of each clip."""
        ends = np.concatenate([[0], np.cumsum(self.sizes, dtype=np.int64)])
        return ends[self.starts[1:]] - ends[self.starts[:-1]]  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ShardIndex:
    """The clips of one split as numpy columns, one row per clip."""

    keys: Array
    """int64: position of the clip in the official list."""
    labels: Array
    """int32, −1 where the official list gives none."""
    shard_ids: Array
    """int32: position of the clip's tar in ``shard_names``."""
    shard_names: tuple[str, ...]
    """Tar names."""
    payload_bytes: Array
    """int64: bytes of the RGB payload."""
    num_frames: Array
    """int32: RGB frames."""
    widths: Array
    """int32: stored pixels."""
    heights: Array
    """int32: stored pixels."""
    fps: Array
    """float32: frames per second of the stored frames, 0 where unknown."""
    rgb: FrameTable
    """The RGB frames; where the payload is video, the whole video as if it were one."""
    flow: FrameTable | None
    """The flow JPEGs (x, y, x, y, …), or None where the dataset has no flow."""
    flow_num_frames: Array
    """int32: flow fields of each clip, 0 where it has none."""
    flow_bounds: Array
    """float32: displacement in pixels that the stored values 0 and 255 stand for."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def offsets(self) -> Array:
        """int64: first byte of each clip's RGB payload in its tar."""
        return self.rgb.offsets

    def shard_name(self, row: int) -> str:
        """Name of the tar that holds a clip."""
        return self.shard_names[int(self.shard_ids[row])]

    def clip(self, row: int) -> StoredClip:
        """One clip of the split; its name is not read."""
        sizes, crcs = self.rgb.of(row)
        flow_sizes, flow_crcs = self.flow.of(row) if self.flow else (NO_SIZES, NO_SIZES)
        return StoredClip(
            key=f"{self.keys[row]:09d}",
            label=int(self.labels[row]),
            shard=self.shard_name(row),
            offset=int(self.rgb.offsets[row]),
            bytes=int(self.payload_bytes[row]),
            num_frames=int(self.num_frames[row]),
            width=int(self.widths[row]),
            height=int(self.heights[row]),
            fps=float(self.fps[row]),
            frame_sizes=sizes,
            frame_crcs=crcs,
            flow_offset=int(self.flow.offsets[row]) if self.flow else 0,
            flow_num_frames=int(self.flow_num_frames[row]),
            flow_bound=float(self.flow_bounds[row]),
            flow_frame_sizes=flow_sizes,
            flow_frame_crcs=flow_crcs,
        )

    def frame_extents(self, row: int, frames: Sequence[int] | Array) -> Extents:
        """Where some RGB frames of a clip lie, frames 0-based."""
        return self.clip(row).frame_extents(frames)

    def flow_extents(self, row: int, fields: Sequence[int] | Array) -> Extents:
        """Where the JPEGs of some flow fields lie, x and y of each in turn (two per field)."""
        return self.clip(row).flow_extents(fields)


def frame_crcs(data: bytes, frame_sizes: Sizes) -> Sizes:
    """CRC-32 of each of the frames that make up ``data``."""
    view, ends = memoryview(data), np.cumsum(frame_sizes, dtype=np.int64)
    places = zip((ends - frame_sizes).tolist(), ends.tolist(), strict=True)
    return np.array([zlib.crc32(view[begin:end]) for begin, end in places], np.uint32)
