"""A clip as it is stored: one row of an index, and the JSON that stands before its payloads in the tar.

The columns of the index and the fields of the JSON are derived from ``StoredClip``: its fields say where they are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.facts import NO_SIZES, Sizes, plain, read_facts
from actcli.ingest.manifest import VIDEO_TYPE
from actcli.ingest.video_index import VideoIndex

_LIST = pa.list_(pa.uint32())


class Extents(NamedTuple):
    """Where some JPEGs of a clip lie in its tar."""

    offsets: NDArray[np.int64]
    """First byte of each."""
    sizes: NDArray[np.int64]
    """Bytes of each."""
    crcs: Sizes
    """CRC-32 of each; empty where none are known."""


Part = Literal["always", "flow", "video"]


@dataclass(frozen=True)
class _Kept:
    """Where a fact about a clip is kept."""

    column: pa.DataType | None
    """Type of its column in the index; None where it has none."""
    in_note: bool
    """Whether the clip's JSON has it."""
    part: Part
    """What has to be there for it to be there."""


def _kept(column: pa.DataType | None = None, *, in_note: bool = False, part: Part = "always") -> dict[str, _Kept]:
    return {"kept": _Kept(column, in_note, part)}


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredClip:
    """One clip in a tar: what it shows, and where its bytes lie."""

    key: str = field(metadata=_kept(pa.string(), in_note=True))
    """Nine digits: position of the clip in the official list."""
    source_id: str = field(default="", metadata=_kept(pa.string(), in_note=True))
    """Name of the clip in the official list; ``ShardIndex.clip`` leaves it out, ``ShardSet.clip_names`` reads it."""
    label: int = field(metadata=_kept(pa.int32(), in_note=True))
    """Class, or −1 where the official list gives none."""
    class_name: str = field(default="", metadata=_kept(in_note=True))
    """Official name of the class; only in the JSON."""
    splits: Mapping[str, str] = field(default_factory=dict, metadata=_kept(in_note=True))
    """Split set to split; only in the JSON."""
    shard: str = field(default="", metadata=_kept(pa.dictionary(pa.int32(), pa.string())))
    """Name of the tar."""
    offset: int = field(default=0, metadata=_kept(pa.int64()))
    """First byte of the RGB payload in the tar."""
    bytes: int = field(default=0, metadata=_kept(pa.int64()))
    """Bytes of the RGB payload."""
    num_frames: int = field(metadata=_kept(pa.int32(), in_note=True))
    """RGB frames; 0 where there is only flow."""
    width: int = field(metadata=_kept(pa.int32(), in_note=True))
    """Stored pixels."""
    height: int = field(metadata=_kept(pa.int32(), in_note=True))
    """Stored pixels."""
    fps: float = field(default=0.0, metadata=_kept(pa.float32(), in_note=True))
    """Frames per second of the stored frames, 0 where unknown."""
    frame_sizes: Sizes = field(metadata=_kept(_LIST, in_note=True))
    """Bytes of each JPEG, back to back from ``offset``; a video is one entry, or one for each packet that is listed."""
    frame_crcs: Sizes = field(default_factory=lambda: NO_SIZES, metadata=_kept(_LIST))
    """CRC-32 of each of them; empty where none are known."""
    video: VideoIndex | None = field(default=None, metadata=_kept(VIDEO_TYPE, in_note=True, part="video"))
    """How frames are read from the video itself, where that is the payload."""
    flow_offset: int = field(default=0, metadata=_kept(pa.int64(), part="flow"))
    """First byte of the flow payload in the tar."""
    flow_num_frames: int = field(default=0, metadata=_kept(pa.int32(), in_note=True, part="flow"))
    """Flow fields, each of two JPEGs (x, y); 0 where the clip has no flow."""
    flow_bound: float = field(default=0.0, metadata=_kept(pa.float32(), in_note=True, part="flow"))
    """Displacement in pixels that the stored values 0 and 255 stand for."""
    flow_frame_sizes: Sizes = field(default_factory=lambda: NO_SIZES, metadata=_kept(_LIST, in_note=True, part="flow"))
    """Bytes of each flow JPEG (x, y, x, y, …), back to back from ``flow_offset``."""
    flow_frame_crcs: Sizes = field(default_factory=lambda: NO_SIZES, metadata=_kept(_LIST, part="flow"))
    """CRC-32 of each of them; empty where none are known."""

    def frame_extents(self, frames: Sequence[int] | NDArray[np.int64]) -> Extents:
        """Where some RGB frames lie, frames 0-based; the whole video where the payload is one, as frame 0."""
        return _extents(self.offset, self.frame_sizes, self.frame_crcs, np.asarray(frames, np.int64))

    def packet_extents(self, packets: NDArray[np.int64]) -> Extents:
        """Where some packets of the video itself lie."""
        assert self.video is not None
        offsets = self.offset + self.video.packet_offsets(self.frame_sizes)
        crcs = self.frame_crcs[packets] if len(self.frame_crcs) else self.frame_crcs
        return Extents(offsets[packets], self.frame_sizes[packets].astype(np.int64), crcs)

    def flow_extents(self, fields: Sequence[int] | NDArray[np.int64]) -> Extents:
        """Where the JPEGs of some flow fields lie, x and y of each in turn (two per field).

        Raises:
            ActcliError: The clip has no flow.
        """
        if not self.flow_num_frames:
            raise ActcliError(f"clip {self.key} has no flow; extract it with: actcli extract --modality flow")
        pictures = 2 * np.asarray(fields, np.int64)[:, None] + np.arange(2)
        return _extents(self.flow_offset, self.flow_frame_sizes, self.flow_frame_crcs, pictures.ravel())

    def note(self) -> dict[str, object]:
        """The fields of the clip's JSON, in their order; those of flow and video where the clip has them."""
        there = {"always": True, "flow": self.flow_num_frames > 0, "video": self.video is not None}
        return {name: plain(getattr(self, name)) for name, kept in _FACTS.items() if kept.in_note and there[kept.part]}

    @staticmethod
    def from_note(note: Mapping[str, object], shard: str) -> "StoredClip":
        """The clip that a JSON in the tar ``shard`` describes; its places in the tar are not known from there.

        Raises:
            ValueError: A field is not there, or is not of its type.
        """
        return StoredClip(**read_facts(StoredClip, note, _NAMES_IN_NOTE), shard=shard)


def _extents(begin: int, sizes: Sizes, crcs: Sizes, wanted: NDArray[np.int64]) -> Extents:
    ends = np.cumsum(sizes, dtype=np.int64) + begin
    wanted_sizes = sizes[wanted].astype(np.int64)
    return Extents(ends[wanted] - wanted_sizes, wanted_sizes, crcs[wanted] if len(crcs) else crcs)


def index_schema(*, with_flow: bool, with_video: bool) -> pa.Schema:
    """The columns of an index; ``with_flow`` where the dataset has flow, ``with_video`` where videos are kept."""
    there = {"always": True, "flow": with_flow, "video": with_video}
    columns = {name: kept.column for name, kept in _FACTS.items() if kept.column and there[kept.part]}
    return pa.schema(list(columns.items()))


def _where(fact: "Field[object]") -> _Kept:
    kept: _Kept = fact.metadata["kept"]
    return kept


_FACTS = {fact.name: _where(fact) for fact in fields(StoredClip)}
_NAMES_IN_NOTE = tuple(name for name, kept in _FACTS.items() if kept.in_note)
