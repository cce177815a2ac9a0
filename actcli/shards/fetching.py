"""The files of clips that lie behind a URL, fetched before it is their turn to be packed.

One after the other, each would cost the latency of its request. Memory: ``AHEAD_BYTES`` and a clip for each tar that is
being written.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from actcli.ingest.store import CHUNK_BYTES
from actcli.remote import RemoteFile
from actcli.shards.manifest import Clip, Payload

AHEAD_BYTES = 32 << 20
"""Bytes that are asked for before they are packed; the next file in any case."""
NUM_REQUESTS = 16
"""Files asked for at a time."""


@contextmanager
def fetched_ahead(clips: Sequence[Clip]) -> Iterator[tuple[Clip, ...]]:
    """The clips, to be read once in their order; those behind a URL are on their way before they are asked for."""
    payloads = [payload for clip in clips for payload in clip.payloads]
    far = [(payload.file, payload.bytes) for payload in payloads if isinstance(payload.file, RemoteFile)]
    if not far:
        yield tuple(clips)
        return
    pool = ThreadPoolExecutor(NUM_REQUESTS)
    try:
        queue = _Queue(far, pool)
        yield tuple(replace(clip, rgb=queue.of(clip.rgb), flow=queue.of(clip.flow)) for clip in clips)
    finally:
        pool.shutdown(cancel_futures=True)


class _Queue:
    """Files in the order in which they are taken."""

    def __init__(self, files: Sequence[tuple[RemoteFile, int]], pool: ThreadPoolExecutor) -> None:
        self._waiting, self._pool = deque(files), pool
        self._coming: deque[tuple[str, int, Future[bytes]]] = deque()
        """Name and size of the files that are on their way or here, the one that is read first."""
        self._ask()

    def of(self, payload: Payload | None) -> Payload | None:
        """The payload with a file that comes from here."""
        if payload is None or not isinstance(payload.file, RemoteFile):
            return payload
        return replace(payload, file=_FetchedFile(payload.file.root, payload.file.name, self))

    def read(self, name: str, offset: int, size: int) -> bytes:
        """Bytes of a file; asking for one lets those before it go."""
        while self._coming[0][0] != name:
            self._coming.popleft()
            self._ask()
        return self._coming[0][2].result()[offset : offset + size]

    def _ask(self) -> None:
        held = sum(size for _, size, _ in self._coming)
        while self._waiting and (len(self._coming) < 2 or held + self._waiting[0][1] <= AHEAD_BYTES):
            file, size = self._waiting.popleft()
            self._coming.append((file.name, size, self._pool.submit(_fetch, file, size)))
            held += size


@dataclass(frozen=True, slots=True)
class _FetchedFile(RemoteFile):
    """A file behind a URL whose bytes a queue has asked for."""

    queue: _Queue

    def read_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges of it."""
        return [self.queue.read(self.name, *where) for where in zip(offsets, sizes, strict=True)]


def _fetch(file: RemoteFile, size: int) -> bytes:
    begins = range(0, size, CHUNK_BYTES)
    return b"".join(file.read_ranges(begins, [min(CHUNK_BYTES, size - begin) for begin in begins]))
