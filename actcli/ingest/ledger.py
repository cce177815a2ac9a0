"""The ledger: one line for each finished clip, each with its own checksum."""

import json
import os
import re
import shlex
import time
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from actcli.errors import ActcliError
from actcli.ingest.files import open_regular
from actcli.ingest.manifest import OUTCOME_DEFAULTS

STATUSES = frozenset({"ok", "failed", "missing"})
"""What can come of a clip."""

_SYNC_SECONDS = 2.0
_NO_SIZES = np.zeros(0, np.int32)
_encode = json.JSONEncoder(separators=(",", ":")).encode
_KEY = re.compile(r"\d{9}")
_CHECKSUM = re.compile(rb',"crc32":"([0-9a-f]{8})"}\n')
_CHECKSUM_BYTES = len(',"crc32":"00000000"}\n')


class Ledger:
    """The append-only list of finished clips, one JSON object a line; the last line for a key counts.

    The last member of each line is the CRC-32 of the bytes before it. Nothing is believed without: a line whose
    checksum differs, or that has none, stops the run.

    Raises:
        ActcliError: A line is damaged or has no checksum.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[str, dict[str, Any]] = {}
        """Key to outcome."""
        self._whole_bytes = self._read() if os.path.lexists(path) else 0

    def _read(self) -> int:
        """Fill ``rows``; returns where the last whole line ends: a line that a kill tore is dropped."""
        end = 0
        with open_regular(self._path) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                self._keep(self._row(line, number))
                end += len(line)
        return end

    def _row(self, line: bytes, number: int) -> dict[str, Any]:
        stated = _CHECKSUM.fullmatch(line[-_CHECKSUM_BYTES:])
        body = line[:-_CHECKSUM_BYTES]
        if stated is None and number == 1 and _is_of_earlier_version(line):
            raise ActcliError(
                f"{self._path} is of an earlier version of actcli, without checksums, and is not believed. Extract "
                "into a new folder with --frames-dir; what is in this one stays as it is."
            )
        try:
            if stated is None or int(stated[1], 16) != zlib.crc32(body):
                raise ValueError("the checksum differs")
            return _checked(json.loads(body + b"}"))
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            raise ActcliError(
                f"Line {number} of {self._path} is damaged. Remove that line, and type the same command again; its "
                f"clip is then extracted again. To remove it: sed -i {number}d {shlex.quote(str(self._path))}"
            ) from None

    def __enter__(self) -> "Ledger":
        with ExitStack() as on_failure:
            self._file = on_failure.enter_context(self._path.open("ab"))
            self._file.truncate(self._whole_bytes)
            self._synced = time.monotonic()
            on_failure.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._file:
            self._sync()

    def append(self, row: dict[str, Any]) -> None:
        """Record a finished clip; the line is handed to the system at once and to the disk every two seconds."""
        self.extend([row])
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def extend(self, rows: Iterable[dict[str, Any]]) -> None:
        """Record many clips at once."""
        for row in rows:
            self._file.write(_line(row))
            self._keep(row)
        self._file.flush()

    def names(self) -> dict[str, str]:
        """Key to source id of all clips in the ledger."""
        return {key: row["source_id"] for key, row in self.rows.items()}

    def _keep(self, row: dict[str, Any]) -> None:
        """Remember a row; frame sizes as an array, since a million clips have hundreds each."""
        sizes = np.array(row["frame_sizes"], np.int32) if "frame_sizes" in row else _NO_SIZES
        self.rows[row["key"]] = row | {"frame_sizes": sizes}

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _is_of_earlier_version(line: bytes) -> bool:
    """Whether it is a line as they were before they had checksums, and no damaged one."""
    try:
        return set(json.loads(line)) <= {"key", "source_id", "status", *OUTCOME_DEFAULTS}
    except (ValueError, TypeError, RecursionError):
        return False


def _line(row: Mapping[str, Any]) -> bytes:
    body = _encode(row)[:-1].encode()
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    """The row, if it can be one of ours: flow has two pictures a field, and sizes add up."""
    if not _KEY.fullmatch(row["key"]) or not isinstance(row["source_id"], str) or row["status"] not in STATUSES:
        raise ValueError("no such clip")
    if row["status"] == "ok":
        sizes, planes = row["frame_sizes"], 2 if row["bound"] else 1
        if sum(sizes) != row["bytes"] or len(sizes) != planes * row["num_frames"] or min(sizes) < 1:
            raise ValueError("the sizes do not add up")
    elif not all(isinstance(row[name], str) for name in ("stage", "error", "message")):
        raise ValueError("no reason")
    return row
