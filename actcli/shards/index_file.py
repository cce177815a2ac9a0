"""The parquet file of an index: written from stored clips, read into numpy columns, refused where it is damaged."""

from collections.abc import Iterator, Sequence
from typing import BinaryIO, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.facts import Sizes, plain
from actcli.ingest.expansion import FREE_EXPANSION_BYTES, check_expansion
from actcli.ingest.manifest import VIDEO_TYPE
from actcli.shards.bounds import check_index
from actcli.shards.card import ShardCard
from actcli.shards.clip import StoredClip, index_schema
from actcli.shards.index import FrameTable, ShardIndex

ROW_GROUP_ROWS = 50_000
"""Rows per parquet row group; bounds what opening an index needs beside the result."""
KEY_DIGITS = 9

INDEX_SCHEMA = index_schema(with_flow=False, with_video=False)
_WHOLE_SCHEMA = index_schema(with_flow=True, with_video=True)
_UNREAD = frozenset({"source_id"})
"""Columns that are read only when they are asked for: opening an index of a million clips does not wait for names."""
_VIDEO_TEXTS = [f"video.{field.name}" for field in VIDEO_TYPE if pa.types.is_string(field.type)]
_VIDEO_COLUMNS = [f"video.{field.name}" for field in VIDEO_TYPE if field.name != "frame_times"]
"""What is read of how videos are read; the times of frames are for people."""


def write_index(
    sink: str | pa.NativeFile, clips: Sequence[StoredClip], *, with_flow: bool, with_video: bool = False
) -> None:
    """Write ``clips`` to one parquet file, named or open."""
    schema = index_schema(with_flow=with_flow, with_video=with_video)
    columns = [pa.array([_value(clip, field.name) for clip in clips], field.type) for field in schema]
    # sizes of neighbouring frames differ little: delta packing is small and quick to read
    pq.write_table(
        pa.Table.from_arrays(columns, schema=schema),
        sink,
        row_group_size=ROW_GROUP_ROWS,
        compression="zstd",
        use_dictionary=["shard", *(_VIDEO_TEXTS if with_video else ())],
        write_page_checksum=True,
        column_encoding={
            f"{name}.list.element": "PLAIN" if name.endswith("crcs") else "DELTA_BINARY_PACKED"
            for name in _list_paths(schema)
        },
    )


def split_indexes(card: ShardCard, clips: Sequence[StoredClip]) -> Iterator[tuple[str, memoryview]]:
    """Name and bytes of the index of each split of each split set.

    Args:
        card: Which splits there are, and whether there is flow.
        clips: All clips of all tars, with their splits.
    """
    ordered = sorted(clips, key=lambda clip: clip.key)
    for split_id, splits in card.split_sets.items():
        for split in splits:
            sink = pa.BufferOutputStream()
            chosen = [clip for clip in ordered if clip.splits.get(split_id) == split]
            write_index(sink, chosen, with_flow="flow" in card.modalities, with_video=card.payload == "source")
            yield card.index_name(split, split_id), memoryview(sink.getvalue())


def _value(clip: StoredClip, name: str) -> object:
    return plain(clip.video) if name == "video" else getattr(clip, name)


def read_index(source: str | BinaryIO, origin: str, card: ShardCard, num_clips: int) -> ShardIndex:
    """Read the index of ``num_clips`` clips; ``origin`` names it in errors.

    Raises:
        ActcliError: The file is not a parquet index of actcli, or says what cannot be.
    """
    try:
        texts = ["key", *(_VIDEO_TEXTS if card.payload == "source" else ())]
        file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=texts)
        columns = [name for name in file.schema_arrow.names if name not in _UNREAD]
        _check_before_reading(file, columns, num_clips)
        index = _collect(file, columns)
        check_index(index, card)
    except _DAMAGE as error:
        raise _damaged(origin, error) from error
    return index


def read_clip_names(source: str | BinaryIO, origin: str, num_clips: int) -> tuple[str, ...]:
    """The names of the clips of an index, in the order of its rows; ``origin`` names it in errors.

    Raises:
        ActcliError: The file is not a parquet index of actcli.
    """
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, read_dictionary=["source_id"])
        _check_before_reading(file, ["source_id"], num_clips)
        groups = (file.read_row_group(group, columns=["source_id"]) for group in range(file.num_row_groups))
        return tuple(name for table in groups for name in _names(table.column(0).combine_chunks()))
    except _DAMAGE as error:
        raise _damaged(origin, error) from error


_DAMAGE = (pa.ArrowException, OSError, LookupError, AttributeError, ValueError, TypeError, MemoryError)
"""What Arrow raises for damaged files."""


def _damaged(origin: str, error: Exception) -> ActcliError:
    return ActcliError(
        f"{origin} is not a shard index of this card ({error}). Write it again with: actcli shard --overwrite"
    )


def _names(column: pa.DictionaryArray) -> list[str]:
    """Strings from a column; few long ones that stand for many rows take no memory for each."""
    if column.null_count:
        raise ValueError("a value is missing")
    text = column.dictionary.to_pylist()
    return [text[number] for number in column.indices.to_pylist()]


def _check_before_reading(file: pq.ParquetFile, wanted: Sequence[str], num_clips: int) -> None:
    """Refuse columns that are missing, rows that are too many, and lists that take much more memory than the file."""
    schema = file.schema_arrow
    missing = [name for name in INDEX_SCHEMA.names if name not in schema.names]
    if missing:
        raise ValueError(f"columns {', '.join(missing)} are missing")
    for field in map(schema.field, wanted):
        if field.name not in ("key", *_UNREAD) and field.type != _type_when_read(field.name):
            raise ValueError(f"column {field.name} holds {field.type}")
    metadata = file.metadata
    if metadata.num_rows != num_clips:
        raise ValueError(f"it has {metadata.num_rows} clips, the card says {num_clips}: it belongs to other shards")
    check_expansion(file, wanted)


def _list_columns(schema: pa.Schema) -> list[str]:
    return [name for name in schema.names if pa.types.is_list(schema.field(name).type)]


def _list_paths(schema: pa.Schema) -> list[str]:
    """Names of the list columns, those inside of a struct with its name before theirs."""
    inside = VIDEO_TYPE if "video" in schema.names else ()
    return _list_columns(schema) + [f"video.{field.name}" for field in inside if pa.types.is_list(field.type)]


def _type_when_read(name: str) -> pa.DataType:
    """The type of a column; texts that repeat are read as numbers of them."""
    if name != "video":
        return _WHOLE_SCHEMA.field(name).type
    text = pa.dictionary(pa.int32(), pa.string())
    return pa.struct([(field.name, text if pa.types.is_string(field.type) else field.type) for field in VIDEO_TYPE])


Number = TypeVar("Number", bound=np.generic)
_Values = NDArray[np.generic]
_Ragged = tuple[NDArray[np.int64], Sizes]
"""Lengths and values of a list column."""


def _collect(file: pq.ParquetFile, columns: list[str]) -> ShardIndex:
    schema = file.schema_arrow
    lists: dict[str, list[_Ragged]] = {name: [] for name in _list_columns(schema)}
    scalars: dict[str, list[_Values]] = {name: [] for name in columns if name not in (*lists, "video")}
    videos: list[pa.StructArray] = []
    names: dict[str, int] = {}
    wanted = [*scalars, *lists, *(_VIDEO_COLUMNS if "video" in columns else ())]
    for group in range(file.num_row_groups):
        table = file.read_row_group(group, columns=wanted)
        if any(table[name].null_count for name in table.column_names if name != "video"):
            raise ValueError("a value is missing")
        if "video" in columns:
            videos.append(_videos(table.column("video").combine_chunks()))
        for name, parts in scalars.items():
            parts.append(_column(table.column(name).combine_chunks(), name, names))
        for name, pieces in lists.items():
            pieces.append(_ragged(table.column(name).combine_chunks()))
    whole = {name: np.concatenate(parts) if parts else np.empty(0, np.int64) for name, parts in scalars.items()}
    with_flow = "flow_offset" in whole
    no_flow = np.zeros(len(whole["key"]))
    return ShardIndex(
        keys=whole["key"].astype(np.int64, copy=False),
        labels=whole["label"].astype(np.int32, copy=False),
        shard_ids=whole["shard"].astype(np.int32, copy=False),
        shard_names=tuple(names),
        payload_bytes=whole["bytes"].astype(np.int64, copy=False),
        num_frames=whole["num_frames"].astype(np.int32, copy=False),
        widths=whole["width"].astype(np.int32, copy=False),
        heights=whole["height"].astype(np.int32, copy=False),
        fps=whole["fps"].astype(np.float32, copy=False),
        rgb=_frame_table(whole["offset"], lists["frame_sizes"], lists["frame_crcs"]),
        flow=_frame_table(whole["flow_offset"], lists["flow_frame_sizes"], lists["flow_frame_crcs"])
        if with_flow
        else None,
        flow_num_frames=whole.get("flow_num_frames", no_flow).astype(np.int32, copy=False),
        flow_bounds=whole.get("flow_bound", no_flow).astype(np.float32, copy=False),
        videos=pa.concat_arrays(videos) if videos else None,
    )


def _videos(column: pa.StructArray) -> pa.StructArray:
    """How the videos of a row group are read, with texts spelled out once they are known to be few."""
    fields = {field.name: column.field(field.name) for field in column.type}
    for name, values in fields.items():
        if pa.types.is_dictionary(values.type):
            fields[name] = _spelled_out(values)
        elif pa.types.is_list(values.type) and values.flatten().null_count:
            raise ValueError("a value is missing")
    if any(values.filter(column.is_valid()).null_count for values in fields.values()):
        raise ValueError("a value is missing")
    return pa.StructArray.from_arrays(list(fields.values()), list(fields), mask=column.is_null())


def _spelled_out(texts: pa.DictionaryArray) -> pa.StringArray:
    lengths = pc.take(pc.binary_length(texts.dictionary), texts.indices)
    if (pc.sum(lengths).as_py() or 0) > FREE_EXPANSION_BYTES:
        raise ValueError("its texts would take too much memory")
    return texts.dictionary.take(texts.indices)


def _column(column: pa.Array, name: str, names: dict[str, int]) -> _Values:
    if name == "key":
        return _keys(column)
    if name == "shard":
        text = column.dictionary.to_pylist()
        ids = np.array([names.setdefault(value, len(names)) for value in text] or [0], dtype=np.int32)
        return np.asarray(ids[column.indices.to_numpy(zero_copy_only=False)])
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _keys(column: pa.DictionaryArray) -> NDArray[np.int64]:
    """Keys as int64, from strings of nine digits; few long strings that stand for many rows are never spelled out."""
    text = column.dictionary
    if len(text) and not pc.all(pc.equal(pc.binary_length(text), KEY_DIGITS)).as_py():
        raise ValueError("a key has not nine digits")
    return np.asarray(pc.cast(text, pa.int64()).to_numpy()[column.indices.to_numpy(zero_copy_only=False)])


def _ragged(column: pa.ListArray) -> _Ragged:
    """Lengths (int64) and values of a list column, in the narrowest of uint16 and uint32."""
    values = column.flatten().to_numpy()
    narrow = np.uint16 if not len(values) or values.max() < 1 << 16 else np.uint32
    return np.diff(column.offsets.to_numpy()).astype(np.int64), values.astype(narrow)


def _frame_table(offsets: _Values, sizes: list[_Ragged], crcs: list[_Ragged]) -> FrameTable:
    lengths, all_sizes = _joined(sizes)
    crc_lengths, all_crcs = _joined(crcs)
    if not np.array_equal(lengths, crc_lengths):
        raise ValueError("it has not one checksum for every frame")
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return FrameTable(offsets.astype(np.int64, copy=False), starts, all_sizes, all_crcs)


def _joined(pieces: list[_Ragged]) -> _Ragged:
    """Lengths and values of a list column from those of its row groups."""
    lengths, values = [lengths for lengths, _ in pieces], [values for _, values in pieces]
    pieces.clear()
    return _concatenated(lengths, np.int64), _concatenated(values, np.uint16)


def _concatenated(parts: list[NDArray[Number]], empty_type: type[Number]) -> NDArray[Number]:
    """All parts in one array; each is freed once it is copied, so that this takes no memory twice."""
    whole = np.empty(sum(len(part) for part in parts), np.result_type(*parts) if parts else empty_type)
    end = len(whole)
    while parts:
        part = parts.pop()
        whole[end - len(part) : end] = part
        end -= len(part)
    return whole
