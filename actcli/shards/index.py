"""The parquet index of one split: where each clip and each of its frames lies in the tars."""

import itertools
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.shards.bounds import check_index
from actcli.shards.card import ShardCard

Array = np.ndarray[Any, np.dtype[Any]]

ROW_GROUP_ROWS = 50_000
"""Rows per parquet row group; bounds what opening an index needs beside the result."""
KEY_DIGITS = 9
MAX_EXPANSION = 32
FREE_EXPANSION_BYTES = 256 << 20
"""An index may take this much memory, and ``MAX_EXPANSION`` times its size more."""

INDEX_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("label", pa.int32()),
        ("shard", pa.dictionary(pa.int32(), pa.string())),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("num_frames", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float32()),
        ("frame_sizes", pa.list_(pa.uint32())),
        ("frame_crcs", pa.list_(pa.uint32())),
    ]
)
FLOW_FIELDS = [
    ("flow_offset", pa.int64()),
    ("flow_num_frames", pa.int32()),
    ("flow_bound", pa.float32()),
    ("flow_frame_sizes", pa.list_(pa.uint32())),
    ("flow_frame_crcs", pa.list_(pa.uint32())),
]
FLOW_SCHEMA = pa.schema([*INDEX_SCHEMA, *FLOW_FIELDS])


class Extents(NamedTuple):
    """Where some JPEGs of a clip lie in its tar."""

    offsets: Array
    """int64: first byte of each."""
    sizes: Array
    """int64: bytes of each."""
    crcs: Array
    """CRC-32 of each; empty where none are known."""


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

    def extents(self, row: int, images: Sequence[int] | Array) -> Extents:
        """Place, size and checksum of some JPEGs of a clip."""
        begin, end = self.starts[row], self.starts[row + 1]
        sizes = self.sizes[begin:end].astype(np.int64)
        begins = np.cumsum(sizes) - sizes + self.offsets[row]
        wanted = np.asarray(images, dtype=np.int64)
        return Extents(begins[wanted], sizes[wanted], self.crcs[begin:end][wanted] if len(self.crcs) else self.crcs)


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

    def frame_extents(self, row: int, frames: Sequence[int] | Array) -> Extents:
        """Where some RGB frames of a clip lie, frames 0-based."""
        return self.rgb.extents(row, frames)

    def flow_extents(self, row: int, fields: Sequence[int] | Array) -> Extents:
        """Where the JPEGs of some flow fields lie, x and y of each in turn (two per field)."""
        if self.flow is None or not self.flow_num_frames[row]:
            raise ActcliError(f"clip {self.keys[row]:09d} has no flow; extract it with: actcli extract --modality flow")
        fields = np.asarray(fields, dtype=np.int64)
        return self.flow.extents(row, (2 * fields[:, None] + np.arange(2)).ravel())


def frame_crcs(data: bytes, frame_sizes: Sequence[int]) -> NDArray[np.uint32]:
    """CRC-32 of each of the frames that make up ``data``."""
    view, ends = memoryview(data), itertools.accumulate(frame_sizes)
    return np.array(
        [zlib.crc32(view[end - size : end]) for size, end in zip(frame_sizes, ends, strict=True)], np.uint32
    )


def write_index(sink: str | pa.NativeFile, rows: Sequence[dict[str, Any]], *, with_flow: bool) -> None:
    """Write ``rows`` (columns as in ``INDEX_SCHEMA``) to one parquet file, named or open."""
    schema = FLOW_SCHEMA if with_flow else INDEX_SCHEMA
    table = pa.Table.from_pylist(list(rows), schema=schema)
    # sizes of neighbouring frames differ little: delta packing is small and quick to read
    pq.write_table(
        table,
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=["shard"],
        write_page_checksum=True,
        column_encoding={
            f"{name}.list.element": "PLAIN" if name.endswith("crcs") else "DELTA_BINARY_PACKED"
            for name in _list_columns(schema)
        },
    )


def read_index(source: str | BinaryIO, origin: str, card: ShardCard, num_clips: int) -> ShardIndex:
    """Read the index of ``num_clips`` clips; ``origin`` names it in errors.

    Raises:
        ActcliError: The file is not a parquet index of actcli, or says what cannot be.
    """
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=["key"])
        _check_before_reading(file, num_clips)
        index = _collect(file)
        check_index(index, card)
    except (pa.ArrowException, OSError, LookupError, AttributeError, ValueError, MemoryError) as error:  # any damage
        raise ActcliError(
            f"{origin} is not a shard index of this card ({error}). Write it again with: actcli shard --overwrite"
        ) from error
    return index


def _check_before_reading(file: pq.ParquetFile, num_clips: int) -> None:
    """Refuse columns that are missing, rows that are too many, and lists that take much more memory than the file."""
    schema = file.schema_arrow
    missing = [name for name in INDEX_SCHEMA.names if name not in schema.names]
    if missing:
        raise ValueError(f"columns {', '.join(missing)} are missing")
    for field in schema:
        if field.name != "key" and field.type != FLOW_SCHEMA.field(field.name).type:
            raise ValueError(f"column {field.name} holds {field.type}")
    metadata = file.metadata
    if metadata.num_rows != num_clips:
        raise ValueError(f"it has {metadata.num_rows} clips, the card says {num_clips}: it belongs to other shards")
    columns = [
        metadata.row_group(g).column(c) for g in range(metadata.num_row_groups) for c in range(metadata.num_columns)
    ]
    needed = sum(max(8 * column.num_values, column.total_uncompressed_size) for column in columns)
    stored = sum(column.total_compressed_size for column in columns)
    if needed > FREE_EXPANSION_BYTES + MAX_EXPANSION * stored:
        raise ValueError(f"its {stored} bytes would take {needed / 1e9:.1f} GB of memory")


def _list_columns(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if pa.types.is_list(schema.field(name).type)]


def _collect(file: pq.ParquetFile) -> ShardIndex:
    schema = file.schema_arrow
    scalars: dict[str, list[Array]] = {name: [] for name in schema.names if name not in _list_columns(schema)}
    lists: dict[str, list[tuple[Array, Array]]] = {name: [] for name in _list_columns(schema)}
    names: dict[str, int] = {}
    for group in range(file.num_row_groups):
        table = file.read_row_group(group)
        if any(column.null_count for column in table.columns):
            raise ValueError("a value is missing")
        for name, parts in scalars.items():
            parts.append(_column(table.column(name).combine_chunks(), name, names))
        for name, pieces in lists.items():
            pieces.append(_ragged(table.column(name).combine_chunks()))
    columns = {name: np.concatenate(parts) if parts else np.empty(0, np.int64) for name, parts in scalars.items()}
    with_flow = "flow_offset" in columns
    no_flow = np.zeros(len(columns["key"]))
    return ShardIndex(
        keys=columns["key"].astype(np.int64, copy=False),
        labels=columns["label"].astype(np.int32, copy=False),
        shard_ids=columns["shard"].astype(np.int32, copy=False),
        shard_names=tuple(names),
        payload_bytes=columns["bytes"],
        num_frames=columns["num_frames"],
        widths=columns["width"],
        heights=columns["height"],
        fps=columns["fps"],
        rgb=_frame_table(columns["offset"], lists["frame_sizes"], lists["frame_crcs"]),
        flow=_frame_table(columns["flow_offset"], lists["flow_frame_sizes"], lists["flow_frame_crcs"])
        if with_flow
        else None,
        flow_num_frames=columns.get("flow_num_frames", no_flow.astype(np.int32)),
        flow_bounds=columns.get("flow_bound", no_flow.astype(np.float32)),
    )


def _column(column: Any, name: str, names: dict[str, int]) -> Array:
    if name == "key":
        return _keys(column)
    if name == "shard":
        text = column.dictionary.to_pylist()
        ids = np.array([names.setdefault(value, len(names)) for value in text] or [0], dtype=np.int32)
        return np.asarray(ids[column.indices.to_numpy(zero_copy_only=False)])
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _keys(column: Any) -> Array:
    """int64 from strings of nine digits; few long strings that stand for many rows are never spelled out."""
    text = column.dictionary
    if len(text) and not pc.all(pc.equal(pc.binary_length(text), KEY_DIGITS)).as_py():
        raise ValueError("a key has not nine digits")
    return np.asarray(pc.cast(text, pa.int64()).to_numpy()[column.indices.to_numpy(zero_copy_only=False)])


def _ragged(column: Any) -> tuple[Array, Array]:
    """Lengths (int64) and values of a list column, in the narrowest of uint16 and uint32."""
    values = column.flatten().to_numpy()
    narrow = np.uint16 if not len(values) or values.max() < 1 << 16 else np.uint32
    return np.diff(column.offsets.to_numpy()).astype(np.int64), values.astype(narrow)


def _frame_table(offsets: Array, sizes: list[tuple[Array, Array]], crcs: list[tuple[Array, Array]]) -> FrameTable:
    lengths, all_sizes = _joined(sizes)
    crc_lengths, all_crcs = _joined(crcs)
    if not np.array_equal(lengths, crc_lengths):
        raise ValueError("it has not one checksum for every frame")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return FrameTable(offsets.astype(np.int64, copy=False), starts, all_sizes, all_crcs)


def _joined(pieces: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Lengths and values of a list column from those of its row groups."""
    lengths, values = [lengths for lengths, _ in pieces], [values for _, values in pieces]
    pieces.clear()
    return _concatenated(lengths, np.int64), _concatenated(values, np.uint16)


def _concatenated(parts: list[Array], empty_type: type) -> Array:
    """All parts in one array; each is freed once it is copied, so that this takes no memory twice."""
    whole = np.empty(sum(len(part) for part in parts), np.result_type(*parts) if parts else empty_type)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole
