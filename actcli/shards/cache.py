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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import is_temporary, open_regular, temporary_path
from actcli.shards.card import ShardCard
from actcli.shards.reader import Range
from actcli.shards.stream import Encoded, RetryingReader

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


class ChunkCache:
    """The folder. Safe for threads and processes; a limit that several share may be passed by a few per cent each."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Make the folder if it is not there.

        Raises:
            ActcliError: Nothing can be written there, or the limit is below a few chunks.
        """
        if max_bytes < 16 * CHUNK_BYTES:
            raise ActcliError(
                f"a cache of {max_bytes:,} bytes is too small; give cache_bytes (--cache-bytes) of at least "
                f"{16 * CHUNK_BYTES:,}."
            )
        self._folder, self._max_bytes = folder / _FOLDER, max_bytes
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))
        except OSError as error:
            raise ActcliError(
                f"the cache {folder} cannot be used ({error.strerror}). Choose another folder with cache_dir "
                "(--cache-dir)."
            ) from error
        self._checked: set[tuple[str, int, int]] = set()
        self._being_read: dict[tuple[str, int], threading.Lock] = {}
        self._mutex = threading.Lock()
        self._added = max_bytes  # looks at once what others left
        self._broken = False

    def read(
        self, reader: RetryingReader, shard_name: str, checksum: str, size: int, number: int, place: slice
    ) -> bytes:
        """The bytes ``place`` of chunk ``number`` of a tar; what is not kept is read by ``reader``.

        Args:
            reader: Where the tar is.
            shard_name: Name of the tar there.
            checksum: sha256 of the tar.
            size: Bytes of the tar.
            number: 0-based.
            place: Within the chunk.
        """
        with self._alone(checksum, number):
            kept = self._kept(checksum, number, place)
            if kept is not None:
                return kept
            begin = number * CHUNK_BYTES
            data = bytes(reader.read(shard_name, begin, min(CHUNK_BYTES, size - begin)))
            self._keep(checksum, number, data)
        return data[place]

    def _path(self, checksum: str, number: int) -> Path:
        return self._folder / checksum / f"{number:06d}.chunk"

    def _lock_path(self) -> Path:
        return self._folder / "lock"

    @contextlib.contextmanager
    def _alone(self, checksum: str, number: int) -> Iterator[None]:
        """One thread of this process at a time for each chunk, so that none is fetched twice."""
        with self._mutex:
            lock = self._being_read.setdefault((checksum, number), threading.Lock())
        with lock:
            yield
        with self._mutex:
            self._being_read.pop((checksum, number), None)

    def _kept(self, checksum: str, number: int, place: slice) -> bytes | None:
        """Bytes of a chunk that is there and whole."""
        path = self._path(checksum, number)
        try:
            with open_regular(path) as file:
                status = os.fstat(file.fileno())
                length = status.st_size - _CRC_BYTES
                seen = (checksum, number, status.st_ino)
                if seen not in self._checked:
                    data = file.read()
                    if zlib.crc32(data[:length]) != int.from_bytes(data[length:], "little"):
                        path.unlink(missing_ok=True)
                        return None
                    self._checked.add(seen)
                if time.time() - status.st_mtime > _USE_SECONDS:
                    os.utime(path)
                return os.pread(file.fileno(), min(place.stop, length) - place.start, place.start)
        except (OSError, ActcliError):
            return None

    def _keep(self, checksum: str, number: int, data: bytes) -> None:
        """Write a chunk; a cache that cannot be written to is said once and done without."""
        if self._broken:
            return
        path = self._path(checksum, number)
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

    def _chunks(self) -> Iterator["_Chunk"]:
        for folder in os.scandir(self._folder):
            if not folder.is_dir(follow_symlinks=False):
                continue
            for entry in os.scandir(folder):
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if _CHUNK_NAME.fullmatch(entry.name):
                        yield _Chunk(entry.path, status.st_size, status.st_mtime)
                    elif is_temporary(entry.name) and time.time() - status.st_mtime > _LEFT_OVER_SECONDS:
                        os.unlink(entry.path)


@dataclass(frozen=True)
class _Chunk:
    """A file of the cache."""

    path: str
    size: int
    used: float


class CachedReader:
    """Reads tars through a cache."""

    def __init__(self, reader: RetryingReader, card: ShardCard, cache: ChunkCache) -> None:
        self._reader, self._cache = reader, cache
        self._files = {file.name: file for file in card.shards}

    def try_ranges(self, ranges: Sequence[Range]) -> list[Encoded | ActcliError]:
        """The bytes of each range, or what ``read`` would raise."""
        return [self._try(one) for one in ranges]

    def _try(self, one: Range) -> Encoded | ActcliError:
        try:
            return self.read(one.shard, one.begin, one.end - one.begin)
        except ActcliError as error:
            return error

    def read(self, shard_name: str, offset: int, size: int) -> Encoded:
        """``size`` bytes of a tar from ``offset``; raises as the reader does.

        Raises:
            ActcliError: The card names no such tar, or it is shorter.
        """
        file = self._files.get(shard_name)
        if file is None or offset + size > file.bytes:
            return self._reader.read(shard_name, offset, size)  # which knows what to say
        pieces, end = [], offset + size
        for number in range(offset // CHUNK_BYTES, -(-end // CHUNK_BYTES)):
            begin = number * CHUNK_BYTES
            place = slice(max(offset - begin, 0), min(end - begin, CHUNK_BYTES))
            pieces.append(self._cache.read(self._reader, shard_name, file.checksum, file.bytes, number, place))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
