"""The ledger: one line for each finished clip, each with its own checksum."""

import json
import os
import shlex
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from pydantic_core import from_json, to_json

from actcli.errors import ActcliError
from actcli.files import open_regular
from actcli.ingest.outcome import FIELD_NAMES, ClipOutcome

_SYNC_SECONDS = 2.0
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
        self.outcomes: dict[str, ClipOutcome] = {}
        """What came of each clip, by key."""
        self._whole_bytes = self._read() if os.path.lexists(path) else 0

    def _read(self) -> int:
        """Fill ``outcomes``; returns where the last whole line ends: a line that a kill tore is dropped."""
        end = 0
        with open_regular(self._path) as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    break
                outcome = self._outcome(line, number)
                if outcome.is_missing:  # noted by an earlier version; whether a clip is there is looked up each time
                    self.outcomes.pop(outcome.key, None)
                else:
                    self.outcomes[outcome.key] = outcome
                end += len(line)
        return end

    def _outcome(self, line: bytes, number: int) -> ClipOutcome:
        body = line[:-_CHECKSUM_BYTES]
        is_sealed = line == _sealed(body)
        if not is_sealed and number == 1 and _is_of_earlier_version(line):
            raise ActcliError(
                f"{self._path} is of an earlier version of actcli, without checksums, and is not believed. Extract "
                "into a new folder with --frames-dir; what is in this one stays as it is."
            )
        try:
            if not is_sealed:
                raise ValueError("the checksum differs")
            return ClipOutcome.from_json(from_json(body + b"}"))
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

    def append(self, outcome: ClipOutcome) -> None:
        """Record a finished clip; the line is handed to the system at once and to the disk every two seconds."""
        self._file.write(_sealed(to_json(outcome.to_json())[:-1]))
        self._file.flush()
        self.outcomes[outcome.key] = outcome
        if time.monotonic() - self._synced > _SYNC_SECONDS:
            self._sync()

    def names(self) -> dict[str, str]:
        """Key to source id of all clips in the ledger."""
        return {key: outcome.source_id for key, outcome in self.outcomes.items()}

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()


def _is_of_earlier_version(line: bytes) -> bool:
    """Whether it is a line as they were before they had checksums, and no damaged one."""
    try:
        return set(json.loads(line)) <= set(FIELD_NAMES)
    except (ValueError, TypeError, RecursionError):
        return False


def _sealed(body: bytes) -> bytes:
    """A line of the ledger: an object without its closing bracket, and the CRC-32 of that."""
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)
