"""Keys: the line number of a clip in ``keys.jsonl``, from 0 and for good."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BufferedReader
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import open_regular, write_text_whole
from actcli.ingest.records import ClipRecord, printable, printables

KEYS_NAME = "keys.jsonl"
_MAX_LINE_BYTES = 1 << 20


def assign_keys(frames_dir: Path, records: Sequence[ClipRecord], extracted: Mapping[str, str]) -> dict[str, str]:
    """Source id to key: known clips keep theirs, new ones get the next numbers in listing order.

    The table is written before any clip is extracted, so an interrupted job finds the same keys again.

    Args:
        frames_dir: Where ``keys.jsonl`` lies; if it is gone, it is made again from ``extracted``.
        records: The listed clips.
        extracted: Key to source id of every clip in a ledger, of whatever modality.

    Raises:
        ActcliError: The table is damaged, or names other clips than the ledgers.
    """
    path = frames_dir / KEYS_NAME
    try:
        known = _read(path)
    except FileNotFoundError:
        known = _from_ledgers(records, extracted)
    _check(path, known, extracted)
    numbers = {source_id: number for number, source_id in enumerate(known) if source_id is not None}
    free = (number for number, source_id in enumerate(known) if source_id is None)
    table = list(known)
    for record in records:
        if record.source_id not in numbers:
            number = next(free, len(table))
            table[number : number + 1] = [record.source_id]
            numbers[record.source_id] = number
    if table != known or not path.exists():
        write_text_whole(path, json.dumps(table, separators=("\n", ":"))[1:-1] + "\n")  # a line each, all at once
    return {source_id: f"{number:09d}" for source_id, number in numbers.items()}


def _read(path: Path) -> list[str | None]:
    try:
        with open_regular(path) as file:
            data = b"".join(_whole_lines(file))
        lines = data[:-1].decode("ascii")
        known: list[str | None] = json.loads("[" + lines.replace("\n", ",\n") + "]")  # all at once
        if len(known) != data.count(b"\n"):
            raise ValueError("a line is no name")
        if not all(source_id is None or isinstance(source_id, str) for source_id in known):
            raise ValueError("a line is no name")
    except ActcliError:
        raise
    except (ValueError, RecursionError) as error:
        raise ActcliError(f"{path} is damaged ({error}). {_advice(path)}") from None
    return known


def _whole_lines(file: BufferedReader) -> Iterator[bytes]:
    for number, line in enumerate(iter(partial(file.readline, _MAX_LINE_BYTES), b""), 1):
        if not line.endswith(b"\n"):
            raise ValueError(f"line {number} is cut, or longer than any name")
        yield line


def _from_ledgers(records: Iterable[ClipRecord], extracted: Mapping[str, str]) -> list[str | None]:
    """The table as far as the ledgers tell it; None where they know no clip."""
    listed = {printable(record.source_id): record.source_id for record in records}
    known: list[str | None] = [None] * max((int(key) + 1 for key in extracted), default=0)
    for key, name in extracted.items():
        known[int(key)] = listed.get(name, name)
    return known


def _check(path: Path, known: Sequence[str | None], extracted: Mapping[str, str]) -> None:
    names = _printables(known)
    doubled = len(known) - known.count(None) - len(set(known) - {None})
    if doubled:
        raise ActcliError(f"{path} names {doubled} clips twice. {_advice(path)}")
    wrong = [key for key, name in extracted.items() if int(key) >= len(names) or names[int(key)] != name]
    if wrong:
        key = min(wrong)
        found = names[int(key)] if int(key) < len(names) else None
        raise ActcliError(
            f"{path} was changed: key {key} is {found!r} there, and {extracted[key]!r} in the ledger of what was "
            f"extracted ({len(wrong)} such keys). Frames would get the labels of other clips. {_advice(path)}"
        )


def _printables(known: Sequence[str | None]) -> Sequence[str | None]:
    if None not in known:
        return printables([source_id for source_id in known if source_id is not None])
    return [None if source_id is None else printable(source_id) for source_id in known]


def _advice(path: Path) -> str:
    return (
        "Restore it, or delete it and type the same command: it is then made again from the ledger. "
        f"To delete it: rm {shlex.quote(str(path))}"
    )
