"""The folder that shards are written to: its lock, its journal, and which of its files are ours.

Ours is what the card or the journal in the folder names, and what begins with ``.actcli-``. Nothing else is touched.
"""

import errno
import fcntl
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

import av
import pyarrow as pa

from actcli.errors import ActcliError
from actcli.shards.card import ShardFile, our_names
from actcli.shards.checksum import FileSeal, difference, open_regular
from actcli.shards.reader import CARD_NAME

LOCK_NAME = ".actcli-lock"
JOURNAL_NAME = ".actcli-shard.jsonl"
CACHE_NAME = ".actcli-video"
_TEMPORARY = re.compile(r"\.actcli-.+\.\d+\.tmp")
_CACHED_VIDEO = re.compile(r"\d{9}\.[0-9a-f]{64}\.mp4")


def temporary_name(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(f".actcli-{path.name}.{os.getpid()}.tmp")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of ``path`` when the block ends well; otherwise nothing changes."""
    partial = temporary_name(path)
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turns what disks and memory do to a run into one sentence."""
    go_on = "What is whole is kept: the same command continues."
    try:
        yield
    except ActcliError:
        raise
    except MemoryError as error:
        raise ActcliError(f"memory ran out while writing {folder}. Take fewer --workers. {go_on}") from error
    except (OSError, pa.ArrowException, av.FFmpegError) as error:
        raise ActcliError(f"{_in_words(error, folder)}. {go_on}") from error


def existing(path: Path) -> Path:
    """The path itself, or the nearest folder above it that is there."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def check_place(folder: Path) -> None:
    """Refuse a place that cannot be written to before any work is done."""
    place = existing(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ActcliError(f"{place} is not a folder that can be written to; choose another with --shards-dir.")


def _in_words(error: Exception, folder: Path) -> str:
    path = str(getattr(error, "filename", None) or folder)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: {reason}. Make room, or choose another disk with --shards-dir"
    if path.startswith(str(folder)):
        return f"{path}: {reason}. Give leave to write there, or choose another folder with --shards-dir"
    return f"{path}: {reason}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other runs out of the folder."""
    number = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(number, "ab", closefd=True):
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ActcliError(f"another run is writing to {folder}; wait for it to end.") from error
        yield


@dataclass(frozen=True)
class Journal:
    """Which files a run may have written, and which tars are whole; there until the run is finished."""

    digest: str = ""
    """Of the settings and frames of the run."""
    names: frozenset[str] = frozenset()
    """Files that are ours."""
    shards: dict[str, ShardFile] = field(default_factory=dict)
    """Tars that the run finished, by name."""

    @staticmethod
    def read(folder: Path) -> "Journal":
        """The journal of the folder; an empty one where there is none."""
        lines = _journal_lines(folder / JOURNAL_NAME)
        try:
            head = json.loads(next(lines, b"{}"))
            journal = Journal(str(head.get("digest", "")), frozenset(map(str, head.get("names", ()))))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ActcliError(
                f"{folder / JOURNAL_NAME}, which names the files of an unfinished run, is damaged ({error}). "
                "Delete the folder, or write to another one with --shards-dir."
            ) from error
        with suppress(ValueError, TypeError, RecursionError):  # tars from a damaged line on are written again
            for line in lines:
                file = ShardFile(**json.loads(line))
                journal.shards[str(file.name)] = file
        return journal

    def write(self, folder: Path) -> None:
        """Put this journal in place of the folder's."""
        with replacing(folder / JOURNAL_NAME) as file:
            head = {"digest": self.digest, "names": sorted(self.names)}
            for value in (head, *map(asdict, self.shards.values())):
                file.write(json.dumps(value).encode() + b"\n")

    @staticmethod
    def add(folder: Path, shard: ShardFile) -> None:
        """Note a tar as whole."""
        with (folder / JOURNAL_NAME).open("ab") as file:
            file.write(json.dumps(asdict(shard)).encode() + b"\n")


def _journal_lines(path: Path) -> Iterator[bytes]:
    """Whole lines; the one that was being written when the run was killed is left out."""
    if not path.exists():
        return
    with open_regular(path) as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def ours(folder: Path, journal: Journal) -> frozenset[str]:
    """Names that the card and the journal of a folder call ours, the card's own included."""
    path = folder / CARD_NAME
    if not path.exists():
        return journal.names
    with open_regular(path) as file:
        named = our_names(file.read())
    return journal.names if named is None else journal.names | named | {CARD_NAME}


def refuse_foreign(folder: Path, names: Iterable[str], owned: frozenset[str]) -> None:
    """Refuse to write over files that no card or journal of ours names.

    Raises:
        ActcliError: Some are in the way, or one of ours has become a folder.
    """
    there = [name for name in sorted(names) if os.path.lexists(folder / name)]
    foreign = [name for name in there if name not in owned]
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise ActcliError(
            f"{folder} holds {', '.join(foreign[:5])}{more}, which no card or journal there calls shards of actcli. "
            "They are left alone: move them away, or choose another folder with --shards-dir."
        )
    folders = [name for name in there if (folder / name).is_dir()]
    if folders:
        raise ActcliError(f"{folder / folders[0]} is a folder where a file belongs; move it away.")


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files of ours, and temporary ones that a killed run left; the lock keeps living runs out."""
    stale = [path.name for path in folder.iterdir() if _TEMPORARY.fullmatch(path.name) and path.is_file()]
    for name in (*names, *stale):
        (folder / name).unlink(missing_ok=True)


def remove_cache(folder: Path) -> None:
    """Remove the encoded videos that are in the tars by now."""
    cache = folder / CACHE_NAME
    for path in cache.glob("*/*/*"):
        if _CACHED_VIDEO.fullmatch(path.name) or _TEMPORARY.fullmatch(path.name):
            path.unlink()
    for path in (*cache.glob("*/*"), *cache.glob("*"), cache):
        with suppress(OSError):  # something else lies in it, or it was never made
            path.rmdir()


def is_whole(folder: Path, file: FileSeal) -> bool:
    """Whether a file is there with the size and sha256 that it was written with."""
    return difference(folder / file.name, file.bytes, file.checksum) is None
