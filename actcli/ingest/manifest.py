"""The manifest: the table of all clips, made from the annotations and the ledger when a job ends.

``manifest.parquet`` (``manifest.flow.parquet``) has its SHA-256 in a file beside it, in the format of ``sha256sum``.
"""

import hashlib
import io
import itertools
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from actcli.errors import ActcliError
from actcli.ingest.files import open_regular, replacing, write_atomically
from actcli.ingest.records import ClipRecord

Modality = Literal["rgb", "flow"]
Layout = Literal["mjpeg", "folders"]

MANIFEST_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("source_id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int64()),
        ("class_name", pa.string()),
        ("splits", pa.map_(pa.string(), pa.string())),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("error", pa.string()),
        ("message", pa.string()),
        ("num_frames", pa.int64()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("fps", pa.float64()),
        ("frame_sizes", pa.list_(pa.int64())),
        ("bytes", pa.int64()),
        ("checksum", pa.string()),
        ("decoder", pa.string()),
        ("partial", pa.bool_()),
        ("bound", pa.float64()),
    ]
)
"""One row a listed clip; ``docs/design.md`` says what each column means."""

OUTCOME_DEFAULTS: dict[str, Any] = {
    "stage": "",
    "error": "",
    "message": "",
    "num_frames": 0,
    "width": 0,
    "height": 0,
    "fps": 0.0,
    "frame_sizes": [],
    "bytes": 0,
    "checksum": "",
    "decoder": "",
    "partial": False,
    "bound": 0.0,
}
"""What a ledger line leaves out."""

_ROWS_PER_GROUP = 8192
_CHUNK_BYTES = 1 << 22


def modality_file(frames_dir: Path, stem: str, modality: Modality, suffix: str) -> Path:
    """``manifest.parquet`` and ``manifest.flow.parquet``, for example."""
    return frames_dir / (f"{stem}{suffix}" if modality == "rgb" else f"{stem}.{modality}{suffix}")


def payload_path(frames_dir: Path, key: str, modality: Modality = "rgb", layout: Layout = "mjpeg") -> Path:
    """Where the frames of a clip lie: a Motion-JPEG file, or a folder of JPEGs."""
    name = key if modality == "rgb" else f"{key}.{modality}"
    return frames_dir / str(int(key) // 1000) / (f"{name}.mjpeg" if layout == "mjpeg" else name)


def write_manifest(
    path: Path, records: Iterable[ClipRecord], keys: Mapping[str, str], outcomes: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write the table of all clips in key order, at once or not at all. It holds no times: equal work, equal table."""
    ordered = iter(sorted(records, key=lambda record: keys[record.source_id]))
    with replacing(path) as temporary, temporary.open("wb") as raw, _writer(file := _HashingFile(raw)) as writer:
        while batch := list(itertools.islice(ordered, _ROWS_PER_GROUP)):
            writer.write_table(_table(batch, keys, outcomes))
    write_atomically(checksum_path(path), f"{file.digest.hexdigest()}  {path.name}\n")


def _writer(file: "_HashingFile") -> Any:
    return pq.ParquetWriter(file, MANIFEST_SCHEMA, write_page_checksum=True)


class _HashingFile(io.RawIOBase):
    """A file that is written front to back and hashed on the way: what is read back might already be damaged."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()


def checksum_path(manifest: Path) -> Path:
    """The file with the SHA-256 of a manifest; ``sha256sum --check`` takes it."""
    return manifest.with_name(f"{manifest.name}.sha256")


def _digest(path: Path) -> str:
    with open_regular(path) as file:
        digest = hashlib.sha256()
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _table(
    records: Sequence[ClipRecord], keys: Mapping[str, str], outcomes: Mapping[str, Mapping[str, Any]]
) -> pa.Table:
    """Rows of the manifest, made column by column."""
    rows = [outcomes[keys[record.source_id]] for record in records]
    columns = {
        "key": [keys[record.source_id] for record in records],
        "source_id": [printable(record.source_id) for record in records],
        "path": [printable(record.path) for record in records],
        "label": [record.label for record in records],
        "class_name": [printable(record.class_name) for record in records],
        "splits": [sorted(record.splits.items()) for record in records],
        "status": [row["status"] for row in rows],
        **{name: [row.get(name, default) for row in rows] for name, default in OUTCOME_DEFAULTS.items()},
    }
    return pa.table(columns, schema=MANIFEST_SCHEMA)


def read_manifest(frames_dir: Path | str, modality: Modality = "rgb") -> pa.Table:
    """The manifest of an extracted dataset, compared with its checksum.

    Raises:
        ActcliError: There is none (the extraction has not been run, or not to its end), or it is damaged.
    """
    path = modality_file(Path(frames_dir), "manifest", modality, ".parquet")
    try:
        with open_regular(checksum_path(path)) as file:
            stated = file.read(64)
        if _digest(path).encode() != stated:
            raise ValueError("it is not the file that its checksum was made of")
        with open_regular(path) as file:
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
    sizes = table["frame_sizes"].combine_chunks()
    counts = pc.list_value_length(sizes).to_numpy(zero_copy_only=False)
    ends = np.cumsum(np.concatenate([[0], pc.list_flatten(sizes).to_numpy(zero_copy_only=False)]))
    borders = np.concatenate([[0], np.cumsum(counts)])
    if not np.array_equal(np.diff(ends[borders]), table["bytes"].to_numpy()):
        raise ValueError("frame sizes and bytes of a clip differ")
    if not np.array_equal(counts, planes * table["num_frames"].to_numpy()):
        raise ValueError("frame sizes and number of frames of a clip differ")


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written as escapes, as tables need it."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")
