"""Keys, ledger and manifest: who is who, what is done, and the table made from both.

``keys.jsonl`` holds one source id a line; the line number from 0 is the clip's key, for good. ``extract.jsonl`` (for
flow ``extract.flow.jsonl``) gains a line whenever a clip is finished. ``manifest.parquet`` (``manifest.flow.parquet``)
joins the annotations with the ledger when the job ends.
"""

import itertools
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actcli.errors import ActcliError
from actcli.ingest.card import write_atomically
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

_SYNC_SECONDS = 2.0
_ROWS_PER_GROUP = 8192


def modality_file(frames_dir: Path, stem: str, modality: Modality, suffix: str) -> Path:
    """``manifest.parquet`` and ``manifest.flow.parquet``, for example."""
    return frames_dir / (f"{stem}{suffix}" if modality == "rgb" else f"{stem}.{modality}{suffix}")


def payload_path(frames_dir: Path, key: str, modality: Modality = "rgb", layout: Layout = "mjpeg") -> Path:
    """Where the frames of a clip lie: a Motion-JPEG file, or a folder of JPEGs."""
    name = key if modality == "rgb" else f"{key}.{modality}"
    return frames_dir / str(int(key) // 1000) / (f"{name}.mjpeg" if layout == "mjpeg" else name)


def assign_keys(frames_dir: Path, records: Iterable[ClipRecord]) -> dict[str, str]:
    """Source id to key: known clips keep theirs, new ones get the next numbers in listing order.

    The table is written before any clip is extracted, so an interrupted job finds the same keys again.
    """
    path = frames_dir / "keys.jsonl"
    known = [json.loads(line) for line in path.read_text("ascii").splitlines()] if path.is_file() else []
    numbers = {source_id: number for number, source_id in enumerate(known)}
    for record in records:
        numbers.setdefault(record.source_id, len(numbers))
    if len(numbers) > len(known):
        write_atomically(path, "".join(json.dumps(source_id) + "\n" for source_id in numbers))
    return {source_id: f"{number:09d}" for source_id, number in numbers.items()}


class Ledger:
    """The append-only list of finished clips, one JSON object a line; the last line for a key counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, dict[str, Any]] = {}
        """Key to outcome."""
        self._whole_bytes = self._read() if path.is_file() else 0

    def _read(self) -> int:
        """Fill ``rows``; returns where the last whole line ends: a line that a kill tore is dropped."""
        end = 0
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    self._keep(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    raise ActcliError(
                        f"Line {number} of {self._path} is damaged. Remove that line; its clip is then extracted again."
                    ) from None
                end += len(line)
        return end

    def __enter__(self) -> "Ledger":
        self._file = self._path.open("ab")
        self._file.truncate(self._whole_bytes)
        self._synced = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._sync()
        self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """Record a finished clip; the line is handed to the system at once and to the disk every two seconds."""
        self._keep(row)
        self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """Record many clips at once."""
        for row in rows:
            self._keep(row)
            self._file.write(json.dumps(row, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def _keep(self, row: dict[str, Any]) -> None:
        """Remember a row; frame sizes as an array, since a million clips have hundreds each."""
        self.rows[row["key"]] = row | {"frame_sizes": np.array(row.get("frame_sizes", ()), np.int32)}

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def write_manifest(
    path: Path, records: Iterable[ClipRecord], keys: Mapping[str, str], outcomes: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write the table of all clips in key order, at once or not at all. It holds no times: equal work, equal table."""
    ordered = iter(sorted(records, key=lambda record: keys[record.source_id]))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with pq.ParquetWriter(temporary, MANIFEST_SCHEMA) as writer:
        while batch := list(itertools.islice(ordered, _ROWS_PER_GROUP)):
            rows = [_manifest_row(record, keys[record.source_id], outcomes) for record in batch]
            writer.write_table(pa.Table.from_pylist(rows, schema=MANIFEST_SCHEMA))
    temporary.replace(path)


def _manifest_row(record: ClipRecord, key: str, outcomes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    outcome = outcomes[key]
    return {
        "key": key,
        "source_id": printable(record.source_id),
        "path": printable(record.path),
        "label": record.label,
        "class_name": printable(record.class_name),
        "splits": sorted(record.splits.items()),
        "status": outcome["status"],
        **OUTCOME_DEFAULTS,
        **{name: value for name, value in outcome.items() if name in OUTCOME_DEFAULTS},
    }


def read_manifest(frames_dir: Path | str, modality: Modality = "rgb") -> pa.Table:
    """The manifest of an extracted dataset.

    Raises:
        ActcliError: There is none: the extraction has not been run, or not to its end.
    """
    path = modality_file(Path(frames_dir), "manifest", modality, ".parquet")
    if not path.is_file():
        raise ActcliError(f"There is no {path}: run actcli extract to its end first.")
    try:
        return pq.read_table(path, schema=MANIFEST_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise ActcliError(f"{path} is damaged ({error}): run actcli extract again, it writes it anew.") from None


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written as escapes, as tables need it."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")
