"""A folder that keeps parts of tars that are far away, for any number of processes at a time.

A tar is kept in chunks of ``CHUNK_BYTES``, each a file of its own under the tar's sha256: a tar that changes is another
one, and two URLs of the same shards share. A chunk ends with its CRC-32, which is compared when a process first uses
it; so neither a kill nor a disk that loses bytes can change what is read. What was not used for longest goes first.
"""

import contextlib
import fcntl
import os
import re
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from actcli.errors import ActcliError
from actcli.files import is_temporary, open_regular, temporary_path
from actcli.shards.card import ShardCard
from actcli.shards.checksum import FileSeal
from actcli.shards.reader import Range, ShardSet
from actcli.shards.stream import Encoded, RetryingReader, all_of

CHUNK_BYTES = 4 << 20
"""Bytes of a tar that are kept together."""
_FOLDER = "actcli-chunks"
_CHUNK_NAME = re.compile(r"\d{6}\.chunk", re.ASCII)
_CRC_BYTES = 4
_USE_SECONDS = 60.0
"""A chunk's last use is noted when the note is older than this."""
_LEFT_OVER_SECONDS = 3600.0
"""A temporary file this old is of a process that was killed."""
_SLACK = 0.02
"""Share of the limit that each process may add before it looks whether something has to go."""


class Chunk(NamedTuple):
    """Consecutive bytes of a tar that are kept together."""

    tar: FileSeal
    """Of the card."""
    number: int
    """0-based."""

    @property
    def begin(self) -> int:
        """First byte in the tar."""
        return self.number * CHUNK_BYTES

    @property
    def num_bytes(self) -> int:
        """``CHUNK_BYTES``, or fewer at the end of the tar."""
        return min(CHUNK_BYTES, self.tar.bytes - self.begin)

    def place(self, begin: int, end: int) -> slice:
        """Which bytes of the chunk are among the bytes ``begin`` to ``end`` of the tar."""
        return slice(max(begin - self.begin, 0), min(end - self.begin, self.num_bytes))


class ChunkCache:
    """The folder. Safe for threads and processes; a limit that several share may be passed by a few per cent each."""

    def __init__(self, folder: Path, max_bytes: int, *, checks: bool = True) -> None:
        """Make the folder if it is not there.

        Args:
            folder: Others may use it at the same time.
            max_bytes: Its limit.
            checks: Whether chunks are read through before they are first used; not where another process did that.

        Raises:
            ActcliError: Nothing can be written there, or the limit is below a few chunks.
        """
        if max_bytes < 16 * CHUNK_BYTES:
            raise ActcliError(
                f"a cache of {max_bytes:,} bytes is too small; give cache_bytes (--cache-bytes) of at least "
                f"{16 * CHUNK_BYTES:,}."
            )
        self._folder, self._max_bytes, self._checks = folder / _FOLDER, max_bytes, checks
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise ActcliError(
                f"the cache {folder} cannot be used ({error.strerror}). Choose another folder with cache_dir "
                "(--cache-dir)."
            ) from error
        self._checked: set[tuple[FileSeal, int, int]] = set()
        self._being_read: dict[Chunk, threading.Lock] = {}
        self._mutex = threading.Lock()
        self._added = max_bytes  # looks at once what others left
        self._broken = False

    def read(self, reader: RetryingReader, chunk: "Chunk", places: Sequence[slice]) -> list[bytes]:
        """The bytes ``places`` of a chunk; what is not kept is read by ``reader``, and kept.

        Raises:
            ActcliError: It could not be read.
        """
        with self._alone(chunk):
            kept = self._kept(chunk, places)
            if kept is not None:
                return kept
            data = bytes(reader.read(chunk.tar.name, chunk.begin, chunk.num_bytes))
            self._keep(chunk, data)
        return [data[place] for place in places]

    def is_checked(self, chunk: "Chunk") -> bool:
        """Whether a chunk is there that this process found whole."""
        try:
            return (*chunk, os.stat(self._path(chunk)).st_ino) in self._checked
        except OSError:
            return False

    def _path(self, chunk: "Chunk") -> str:
        return os.path.join(self._folder, chunk.tar.checksum, f"{chunk.number:06d}.chunk")

    def _lock_path(self) -> Path:
        return self._folder / "lock"

    @contextlib.contextmanager
    def _alone(self, chunk: "Chunk") -> Iterator[None]:
        """One thread of this process at a time for each chunk, so that none is fetched twice."""
        with self._mutex:
            lock = self._being_read.setdefault(chunk, threading.Lock())
        with lock:
            yield
        with self._mutex:
            self._being_read.pop(chunk, None)

    def _kept(self, chunk: "Chunk", places: Sequence[slice]) -> list[bytes] | None:
        """Bytes of a chunk that is there and whole."""
        path = self._path(chunk)
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                if status.st_size != chunk.num_bytes + _CRC_BYTES or not self._is_whole(chunk, status.st_ino, file):
                    os.unlink(path)
                    return None
                if time.time() - status.st_mtime > _USE_SECONDS:
                    os.utime(path)
                return [os.pread(file.fileno(), place.stop - place.start, place.start) for place in places]
        except (OSError, ActcliError):
            return None

    def _is_whole(self, chunk: "Chunk", inode: int, file: BinaryIO) -> bool:
        if self._checks and (*chunk, inode) not in self._checked:
            data = file.read()
            if zlib.crc32(data[:-_CRC_BYTES]) != int.from_bytes(data[-_CRC_BYTES:], "little"):
                return False
            self._checked.add((*chunk, inode))
        return True

    def _keep(self, chunk: "Chunk", data: bytes) -> None:
        """Write a chunk; a cache that cannot be written to is said once and done without."""
        if self._broken:
            return
        path = Path(self._path(chunk))
        partial = temporary_path(path.with_name(f"{path.name}-{threading.get_ident()}"))
        try:
            path.parent.mkdir(exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.write(zlib.crc32(data).to_bytes(_CRC_BYTES, "little"))
            partial.replace(path)
            self._make_room(len(data))
        except OSError as error:
            self._broken = True
            with contextlib.suppress(OSError):
                partial.unlink()
            warnings.warn(
                f"the cache {self._folder.parent} cannot be written to ({error.strerror}); reading goes on without it",
                RuntimeWarning,
                stacklevel=2,
            )

    def _make_room(self, num_bytes: int) -> None:
        with self._mutex:
            self._added += num_bytes
            if self._added < _SLACK * self._max_bytes:
                return
            self._added = 0
        with self._lock_path().open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # another process is at it
            self._evict()

    def _evict(self) -> None:
        """Delete what was not used for longest until the limit holds, and what killed processes left."""
        found = sorted(self._chunks(), key=lambda chunk: chunk.used)
        total = sum(chunk.size for chunk in found)
        for chunk in found:
            if total <= self._max_bytes * (1 - _SLACK):
                return
            with contextlib.suppress(OSError):
                os.unlink(chunk.path)
            total -= chunk.size

    def _chunks(self) -> Iterator["_KeptChunk"]:
        for folder in os.scandir(self._folder):
            if not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _CHUNK_NAME.fullmatch(entry.name):
                        yield _KeptChunk(entry.path, status.st_size, status.st_mtime)
                    elif is_temporary(entry.name) and time.time() - status.st_mtime > _LEFT_OVER_SECONDS:
                        os.unlink(entry.path)


@dataclass(frozen=True)
class _KeptChunk:
    """A file of the cache."""

    path: str
    size: int
    used: float


class CachedReader:
    """Reads tars through a cache."""

    def __init__(self, reader: RetryingReader, card: ShardCard, cache: ChunkCache) -> None:
        self._reader, self._cache = reader, cache
        self._files: dict[str, FileSeal] = {file.name: file for file in card.shards}

    def read_ranges(self, ranges: Sequence[Range]) -> list[Encoded]:
        """The bytes of each range; raises as that of ``RetryingReader`` does."""
        return all_of(self.try_ranges(ranges))

    def try_ranges(self, ranges: Sequence[Range]) -> list[Encoded | ActcliError]:
        """The bytes of each range, or what ``read_ranges`` would raise; each chunk is opened once."""
        wanted: dict[Chunk, list[int]] = {}
        for number, one in enumerate(ranges):
            for chunk in self._chunks_of(one):
                wanted.setdefault(chunk, []).append(number)
        parts: list[list[Encoded | ActcliError]] = [[] for _ in ranges]
        for chunk in sorted(wanted, key=attrgetter("number")):
            places = [chunk.place(ranges[number].begin, ranges[number].end) for number in wanted[chunk]]
            for number, part in zip(wanted[chunk], self._try(chunk, places), strict=True):
                parts[number].append(part)
        return [
            _joined(found) if found else self._reader.try_ranges([one])[0]
            for found, one in zip(parts, ranges, strict=True)
        ]

    def is_near(self, ranges: Sequence[Range]) -> bool:
        """Whether all of it is in the cache, and whole."""
        return all(chunks and all(map(self._cache.is_checked, chunks)) for chunks in map(self._chunks_of, ranges))

    def _chunks_of(self, one: Range) -> list[Chunk]:
        """What a range is in; nothing where the card names no such bytes, which the server knows what to say about."""
        tar = self._files.get(one.shard)
        if tar is None or one.end > tar.bytes:
            return []
        return [Chunk(tar, number) for number in range(one.begin // CHUNK_BYTES, -(-one.end // CHUNK_BYTES))]

    def _try(self, chunk: Chunk, places: Sequence[slice]) -> Sequence[Encoded | ActcliError]:
        try:
            return self._cache.read(self._reader, chunk, places)
        except ActcliError as error:
            return [error] * len(places)


def _joined(parts: Sequence[Encoded | ActcliError]) -> Encoded | ActcliError:
    """A range out of its parts, or why one of them could not be had."""
    try:
        found = all_of(parts)
    except ActcliError as error:
        return error
    return found[0] if len(found) == 1 else b"".join(found)


def reader_maker(shards: ShardSet, *, checks: bool = True) -> Callable[[], RetryingReader | CachedReader]:
    """What opens readers of the tars of ``shards``, one for each thread; they share its cache, which ``checks``."""
    if shards.cache is None:
        return lambda: RetryingReader(shards.root)
    cache = ChunkCache(shards.cache.path, shards.cache.max_bytes, checks=checks)
    return lambda: CachedReader(RetryingReader(shards.root), shards.card, cache)
