"""The manifest: the table of all clips, made from the annotations and the ledger when a job ends.

``manifest.parquet`` (``manifest.flow.parquet``) has its SHA-256 in a file beside it, in the format of ``sha256sum``.
"""

import hashlib
import io
import itertools
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actcli.errors import ActcliError
from actcli.facts import Gaps, Places, Sizes, Times, plain
from actcli.files import file_checksum, open_regular, write_text_whole, written_whole
from actcli.ingest.columns import make_column
from actcli.ingest.expansion import check_expansion, check_texts
from actcli.ingest.layout import Modality, modality_file
from actcli.ingest.outcome import FIELD_NAMES, ClipOutcome, Status
from actcli.ingest.records import ClipRecord, printables
from actcli.ingest.video_index import VideoIndex

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ManifestRow(ClipOutcome):
    """One row of the manifest: a clip of the official list, and what came of it."""

    path: str
    """File or folder relative to the raw folder, printable."""
    label: int
    """Class, or −1 where the official list gives none."""
    class_name: str
    """Official class name; empty without a label."""
    splits: Mapping[str, str]
    """Split set to split."""


_VIDEO_TYPES: Mapping[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int32(),
    Gaps: pa.list_(pa.int32()),
    Places: pa.list_(pa.uint32()),
    Times: pa.list_(pa.int64()),
}
VIDEO_TYPE = pa.struct([(fact.name, _VIDEO_TYPES[fact.type]) for fact in fields(VideoIndex)])
"""Parquet's type of a ``VideoIndex``."""
_TYPES: Mapping[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    Status: pa.string(),
    Sizes: pa.list_(pa.int64()),
    Mapping[str, str]: pa.map_(pa.string(), pa.string()),
    VideoIndex | None: VIDEO_TYPE,
}
"""Column type of a field of each type."""
_LISTED = ("key", "source_id", "path", "label", "class_name", "splits")
"""What the official list says; these columns come first."""


def _schema() -> pa.Schema:
    types = {fact.name: _TYPES[fact.type] for fact in fields(ManifestRow)}
    return pa.schema([(name, types[name]) for name in dict.fromkeys((*_LISTED, *types))])


MANIFEST_SCHEMA = _schema()
"""One row a listed clip; ``docs/design.md`` says what each column means."""

_ROWS_PER_GROUP = 8192
_values = attrgetter(*FIELD_NAMES)


def write_manifest(path: Path, records: Iterable[ClipRecord], outcomes: Iterable[ClipOutcome]) -> None:
    """Write the table of all clips in key order, at once or not at all. It holds no times: equal work, equal table.

    ``outcomes`` are those of ``records``, one for each.
    """
    ordered = iter(sorted(zip(outcomes, records, strict=True), key=lambda pair: pair[0].key))
    with written_whole(path) as temporary, temporary.open("wb") as raw, _writer(file := _HashingFile(raw)) as writer:
        while batch := list(itertools.islice(ordered, _ROWS_PER_GROUP)):
            writer.write_table(_table(*zip(*batch, strict=True)))
    write_text_whole(checksum_path(path), f"{file.digest.hexdigest()}  {path.name}\n")


def _writer(file: "_HashingFile") -> pq.ParquetWriter:
    return pq.ParquetWriter(file, MANIFEST_SCHEMA, write_page_checksum=True)


class _HashingFile(io.RawIOBase):
    """A file that is written front to back and hashed on the way: what is read back might already be damaged."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: "ReadableBuffer") -> int:
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()


def checksum_path(manifest: Path) -> Path:
    """The file with the SHA-256 of a manifest; ``sha256sum --check`` takes it."""
    return manifest.with_name(f"{manifest.name}.sha256")


def _table(outcomes: Sequence[ClipOutcome], records: Sequence[ClipRecord]) -> pa.Table:
    """Rows of the manifest, made column by column."""
    came = dict(zip(FIELD_NAMES, zip(*map(_values, outcomes), strict=True), strict=True))
    listed = {
        "source_id": printables([record.source_id for record in records]),
        "path": printables([record.path for record in records]),
        "label": [record.label for record in records],
        "class_name": printables([record.class_name for record in records]),
        "splits": [record.splits for record in records],
        "video": [plain(video) for video in came["video"]],
    }
    columns = came | listed
    made = [make_column(columns[field.name], field.type) for field in MANIFEST_SCHEMA]
    return pa.Table.from_arrays(made, schema=MANIFEST_SCHEMA)


def manifest_rows(table: pa.Table) -> Iterator[ManifestRow]:
    """The rows of a manifest, in its order.

    Raises:
        ValueError: A value is missing.
    """
    if any(table[name].null_count for name in table.column_names if name != "video"):
        raise ValueError("a value is missing")
    for batch in table.to_batches(_ROWS_PER_GROUP):
        columns = {name: batch.column(name).to_pylist() for name in batch.schema.names if name != "frame_sizes"}
        columns["splits"] = [dict(splits) for splits in columns["splits"]]
        columns["frame_sizes"] = _sizes_of_rows(batch.column("frame_sizes"))
        columns["video"] = [None if video is None else VideoIndex.of(video) for video in columns["video"]]
        for values in zip(*columns.values(), strict=True):
            yield ManifestRow(**dict(zip(columns, values, strict=True)))


def _sizes_of_rows(column: pa.ListArray) -> list[Sizes]:
    lengths = column.value_lengths().to_numpy(zero_copy_only=False)
    sizes = column.flatten().to_numpy(zero_copy_only=False).astype(np.uint32)
    return np.split(sizes, np.cumsum(lengths)[:-1]) if len(lengths) else []


def read_manifest(frames_dir: Path | str, modality: Modality = "rgb") -> pa.Table:
    """The manifest of an extracted dataset, compared with its checksum.

    Raises:
        ActcliError: There is none (the extraction has not been run, or not to its end), or it is damaged.
    """
    path = modality_file(Path(frames_dir), "manifest", modality, ".parquet")
    try:
        with open_regular(checksum_path(path)) as file:
            stated = file.read(64)
        if file_checksum(path).encode() != stated:
            raise ValueError("it is not the file that its checksum was made of")
        with open_regular(path) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            check_expansion(parquet, MANIFEST_SCHEMA.names)
            check_texts(parquet, MANIFEST_SCHEMA, path.stat().st_size)
            file.seek(0)
            table = pq.read_table(file, schema=MANIFEST_SCHEMA, page_checksum_verification=True)
        _check_sizes(table, planes=1 if modality == "rgb" else 2)
        return table
    except FileNotFoundError:
        missing = checksum_path(path) if path.exists() else path
        raise ActcliError(f"There is no {missing}: run actcli extract to its end first.") from None
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        if isinstance(error, ActcliError):
            raise
        raise ActcliError(
            f"{path} is damaged ({error}). Make it again, which keeps the frames: "
            f"actcli extract --dataset {shlex.quote(path.parent.name)}"
        ) from None


def _check_sizes(table: pa.Table, planes: int) -> None:
    """Raise ``ValueError`` unless each clip's frames are as many, and as many bytes, as its row says."""
    table = table.filter(table["video"].is_null())  # packets of videos are compared one by one, when they are read
    sizes = table["frame_sizes"].combine_chunks()
    counts = sizes.value_lengths().to_numpy(zero_copy_only=False)
    ends = np.cumsum(np.concatenate([[0], sizes.flatten().to_numpy(zero_copy_only=False)]))
    borders = np.concatenate([[0], np.cumsum(counts)])
    if not np.array_equal(np.diff(ends[borders]), table["bytes"].to_numpy()):
        raise ValueError("frame sizes and bytes of a clip differ")
    if not np.array_equal(counts, planes * table["num_frames"].to_numpy()):
        raise ValueError("frame sizes and number of frames of a clip differ")
