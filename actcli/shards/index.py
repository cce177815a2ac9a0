"""The index of one split in memory: where each clip and each of its frames lies in the tars."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.facts import NO_SIZES, Sizes
from actcli.ingest.video_index import VideoIndex
from actcli.shards.clip import Extents, StoredClip

Rows = NDArray[np.int64]
"""Rows of an index, 0-based."""


@dataclass(frozen=True)
class FrameTable:
    """Bytes and CRC-32 of the JPEGs of all clips, back to back, and where each clip's payload begins in its tar."""

    offsets: NDArray[np.int64]
    """int64 ``[num_clips]``: first byte of the clip's payload in its tar."""
    starts: NDArray[np.int64]
    """int64 ``[num_clips + 1]``: the clip's JPEGs are ``sizes[starts[row]:starts[row + 1]]``."""
    sizes: Sizes
    """uint16 or uint32: bytes of each JPEG; a video is one entry."""
    crcs: Sizes
    """uint32: CRC-32 of each JPEG; empty where none are known."""

    def of(self, row: int) -> tuple[Sizes, Sizes]:
        """Bytes and CRC-32 of the JPEGs of one clip."""
        place = slice(self.starts[row], self.starts[row + 1])
        return self.sizes[place], self.crcs[place]

    def payload_bytes(self) -> NDArray[np.int64]:
        """Bytes, int64 ``[num_clips]``, of all JPEGs of each clip."""
        ends = _ends(self.sizes)
        return ends[self.starts[1:]] - ends[self.starts[:-1]]

    def take(self, rows: Rows) -> "FrameTable":
        """The pictures of some clips."""
        lengths = np.diff(self.starts)[rows]
        starts = _ends(lengths)
        # place of each wanted picture in this table: start of its clip here, plus its number in the clip
        places = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        crcs = self.crcs[places] if len(self.crcs) else self.crcs
        return FrameTable(self.offsets[rows], starts, self.sizes[places], crcs)

    @staticmethod
    def joined(tables: "Sequence[FrameTable]") -> "FrameTable":
        """The pictures of several tables, one after the other."""
        return FrameTable(
            np.concatenate([table.offsets for table in tables]),
            _ends(np.concatenate([np.diff(table.starts) for table in tables])),
            np.concatenate([table.sizes for table in tables]),
            np.concatenate([table.crcs for table in tables]),
        )


def _ends(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """``[n + 1]``: where each of ``n`` things that lie back to back begins, and where the last one ends."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


@dataclass(frozen=True)
class ShardIndex:
    """The clips of one split as numpy columns, one row per clip."""

    keys: NDArray[np.int64]
    """int64: position of the clip in the official list."""
    labels: NDArray[np.int32]
    """int32, −1 where the official list gives none."""
    shard_ids: NDArray[np.int32]
    """int32: position of the clip's tar in ``shard_names``."""
    shard_names: tuple[str, ...]
    """Tar names."""
    payload_bytes: NDArray[np.int64]
    """int64: bytes of the RGB payload."""
    num_frames: NDArray[np.int32]
    """int32: RGB frames."""
    widths: NDArray[np.int32]
    """int32: stored pixels."""
    heights: NDArray[np.int32]
    """int32: stored pixels."""
    fps: NDArray[np.float32]
    """float32: frames per second of the stored frames, 0 where unknown."""
    rgb: FrameTable
    """The RGB frames; where the payload is video, the whole video as if it were one."""
    flow: FrameTable | None
    """The flow JPEGs (x, y, x, y, …), or None where the dataset has no flow."""
    flow_num_frames: NDArray[np.int32]
    """int32: flow fields of each clip, 0 where it has none."""
    flow_bounds: NDArray[np.float32]
    """float32: displacement in pixels that the stored values 0 and 255 stand for."""
    videos: pa.StructArray | None = None
    """Structs of ``VIDEO_TYPE`` but for the times of frames: how each clip is read from the video itself, where that is
    the payload."""

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The first byte, int64, of each clip's RGB payload in its tar."""
        return self.rgb.offsets

    def shard_name(self, row: int) -> str:
        """Name of the tar that holds a clip."""
        return self.shard_names[int(self.shard_ids[row])]

    def clip(self, row: int) -> StoredClip:
        """One clip of the split; its name is not read.

        Raises:
            ActcliError: What is said of its video cannot be.
        """
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
            video=self._video(row) if self.videos is not None else None,
            flow_offset=int(self.flow.offsets[row]) if self.flow else 0,
            flow_num_frames=int(self.flow_num_frames[row]),
            flow_bound=float(self.flow_bounds[row]),
            flow_frame_sizes=flow_sizes,
            flow_frame_crcs=flow_crcs,
        )

    def _video(self, row: int) -> VideoIndex | None:
        """How a clip is read from its video; None where it has flow only."""
        assert self.videos is not None
        value, (sizes, _) = self.videos[row], self.rgb.of(row)
        if not value.is_valid:
            return None
        facts: dict[str, Any] = {name: _plain(value[name]) for name in value}
        try:
            video = VideoIndex(**facts)
            video.check(sizes, int(self.num_frames[row]), int(self.payload_bytes[row]))
        except (ValueError, TypeError) as error:
            raise ActcliError(f"the index of clip {self.keys[row]:09d} says what cannot be: {error}") from error
        return video

    def frame_extents(self, row: int, frames: Sequence[int] | NDArray[np.int64]) -> Extents:
        """Where some RGB frames of a clip lie, frames 0-based."""
        return self.clip(row).frame_extents(frames)

    def flow_extents(self, row: int, fields: Sequence[int] | NDArray[np.int64]) -> Extents:
        """Where the JPEGs of some flow fields lie, x and y of each in turn (two per field)."""
        return self.clip(row).flow_extents(fields)

    def take(self, rows: Rows) -> "ShardIndex":
        """Some clips, in the order of ``rows``; a clip may come more than once."""
        return replace(
            self,
            rgb=self.rgb.take(rows),
            flow=self.flow.take(rows) if self.flow else None,
            videos=None if self.videos is None else self.videos.take(pa.array(rows)),
            **{name: getattr(self, name)[rows] for name in _COLUMNS},
        )

    @staticmethod
    def joined(indexes: "Sequence[ShardIndex]", *, with_flow: bool) -> "ShardIndex":
        """The clips of several indexes, one after the other, each in its own tars; with flow where all have it."""
        if len(indexes) == 1:
            return indexes[0] if with_flow else replace(indexes[0], flow=None)
        first_ids = np.cumsum([0, *(len(index.shard_names) for index in indexes)], dtype=np.int32)[:-1]
        moved = [replace(one, shard_ids=one.shard_ids + first) for one, first in zip(indexes, first_ids, strict=True)]
        flows = [index.flow for index in indexes if index.flow is not None]
        return ShardIndex(
            shard_names=tuple(name for index in indexes for name in index.shard_names),
            rgb=FrameTable.joined([index.rgb for index in indexes]),
            flow=FrameTable.joined(flows) if with_flow else None,
            videos=pa.concat_arrays([index.videos for index in indexes]) if indexes[0].videos is not None else None,
            **{name: np.concatenate([getattr(index, name) for index in moved]) for name in _COLUMNS},
        )


_COLUMNS = tuple(fact.name for fact in fields(ShardIndex) if fact.name not in ("shard_names", "rgb", "flow", "videos"))
"""Columns with a number for each clip."""


def _plain(value: pa.Scalar) -> object:
    """A number or text, or the numbers of a list."""
    return value.values.to_numpy(zero_copy_only=False) if isinstance(value, pa.ListScalar) else value.as_py()


def frame_crcs(data: bytes | memoryview, frame_sizes: Sizes, video: VideoIndex | None = None) -> Sizes:
    """CRC-32 of each of the frames that make up ``data``, or of each packet of the video that it is."""
    begins = (
        np.cumsum(frame_sizes, dtype=np.int64) - frame_sizes if video is None else video.packet_offsets(frame_sizes)
    )
    view, places = memoryview(data), zip(begins.tolist(), (begins + frame_sizes).tolist(), strict=True)
    return np.array([zlib.crc32(view[begin:end]) for begin, end in places], np.uint32)
