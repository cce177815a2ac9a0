"""Read shards over a connection: retried range requests, and whole tars read through from front to back.

Not on ``webdataset``, which shuffles what is read here (``loaders/epochs.py``): its ``tar_file_iterator`` passes over
members that are no files without a word, reads a member whole before its size can be refused, and takes compressed
tars; its ``group_by_keys`` takes a clip whose JSON comes last or not at all; neither knows how many clips were to come;
and importing it imports torch, which shards do without.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from actcli.errors import ActcliError
from actcli.ingest.video_index import CONTAINERS
from actcli.remote import ATTEMPTS, HOPELESS, Unreachable, advice, is_local, local_path, persist
from actcli.shards.bounds import check_clip
from actcli.shards.card import ShardCard
from actcli.shards.checksum import FileSeal
from actcli.shards.clip import StoredClip
from actcli.shards.note import MAX_NOTE_BYTES, open_note
from actcli.shards.reader import Range, ShardReader, ShardSet

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Encoded = bytes | memoryview
"""Bytes of a tar."""
CHUNK_BYTES = 8 << 20
"""Bytes of one request when a tar is read through."""
MEMBER_NAME = re.compile(rf"(\d{{9}})\.(json|mjpeg|flow\.mjpeg|{'|'.join(CONTAINERS)})", re.ASCII)
DAMAGE = (tarfile.TarError, ValueError, LookupError, TypeError, ArithmeticError, EOFError, RecursionError)
"""What ``tarfile`` raises for tars that no one wrote on purpose."""


class TarReader(Protocol):
    """What reads tars: a ``RetryingReader``, or one behind a cache or for several threads."""

    def try_ranges(self, ranges: Sequence[Range]) -> list[Encoded | ActcliError]:
        """The bytes of each range, or why they could not be had."""
        ...

    def is_near(self, ranges: Sequence[Range]) -> bool:
        """Whether all of it is kept on this machine, where whoever decodes reads it best."""
        ...


class RetryingReader:
    """A ``ShardReader`` that asks again when a connection fails.

    A folder is read once: what a disk does not give, it will not give the next time.
    """

    def __init__(self, root: str) -> None:
        self._reader = ShardReader(root)
        self._attempts = 1 if is_local(local_path(root)) else ATTEMPTS

    def read(self, shard_name: str, offset: int, size: int) -> Encoded:
        """``size`` bytes of a tar from ``offset``; raises as ``read_ranges`` does."""
        return self.read_ranges([Range(shard_name, offset, offset + size)])[0]

    def read_ranges(self, ranges: Sequence[Range]) -> list[Encoded]:
        """The bytes of each range.

        Raises:
            ActcliError: There are no such bytes; names the shard and the bytes.
            Unreachable: They could not be had over the connection.
        """
        return all_of(self.try_ranges(ranges))

    def try_ranges(self, ranges: Sequence[Range]) -> list[Encoded | ActcliError]:
        """The bytes of each range, or what ``read_ranges`` would raise."""
        pieces: dict[Range, Encoded | ActcliError] = {}
        try:
            persist(lambda: self._ask(ranges, pieces), (), self._attempts)
        except Exception as error:  # every protocol of fsspec has exceptions of its own
            pieces |= {one: _unavailable(one, error) for one in ranges if one not in pieces}
        return [pieces[one] for one in ranges]

    def is_near(self, ranges: Sequence[Range]) -> bool:
        """Never: nothing is kept, and who reads a folder through this does so to read it in large pieces."""
        return False

    def _ask(self, ranges: Sequence[Range], pieces: dict[Range, Encoded | ActcliError]) -> None:
        """Ask for what is not among ``pieces`` yet; raises what kept the first of it from coming."""
        left = [one for one in ranges if one not in pieces]
        failed: list[BaseException] = []
        for one, piece in zip(left, self._reader.read_ranges(left), strict=True):
            if isinstance(piece, HOPELESS):
                pieces[one] = _unavailable(one, piece)
            elif isinstance(piece, ActcliError) or not isinstance(piece, BaseException):
                pieces[one] = piece
            else:
                failed.append(piece)
        if failed:
            raise failed[0]


def all_of(pieces: Iterable[Encoded | ActcliError]) -> list[Encoded]:
    """The pieces, where each of them could be had; raises what kept the first that could not."""
    found: list[Encoded] = []
    for piece in pieces:
        if isinstance(piece, ActcliError):
            raise piece
        found.append(piece)
    return found


def _unavailable(one: Range, error: Exception) -> ActcliError:
    """What is said where a range did not come."""
    said = f"bytes {one.begin} to {one.end} of {one.shard} could not be read ({type(error).__name__}: {error})."
    lost = ActcliError(said) if isinstance(error, FileNotFoundError) else Unreachable(f"{said} {advice(error)}")
    lost.__cause__ = error
    return lost


def read_through(reader: RetryingReader, file: FileSeal) -> Iterator[bytes | memoryview]:
    """A file behind a URL from front to back, in pieces."""
    for begin in range(0, file.bytes, CHUNK_BYTES):
        yield reader.read(file.name, begin, min(CHUNK_BYTES, file.bytes - begin))


@dataclass(frozen=True)
class StreamedClip:
    """One clip as it comes out of a tar."""

    clip: StoredClip
    """What its JSON says."""
    payloads: dict[str, bytes]
    """Bytes by suffix: ``mjpeg``, ``mp4`` or that of the video itself, and ``flow.mjpeg``."""


def stream_clips(shards: ShardSet, shard_names: Sequence[str]) -> Iterator[StreamedClip]:
    """The clips of some tars, read through from front to back; needs no index.

    Raises:
        ActcliError: A tar is damaged or could not be read; names the tar and the last clip that came through.
    """
    files = {shard.name: shard for shard in shards.card.shards}
    reader = RetryingReader(shards.root)
    for name in shard_names:
        last, left = "none", files[name].num_clips
        try:
            with _TarBytes(reader, name, files[name].bytes) as file, tarfile.open(fileobj=file, mode="r|") as tar:
                for clip in _group(name, tar, shards.card):
                    yield clip
                    last, left = clip.clip.key, left - 1
            if left:  # tarfile takes a damaged header for the end
                raise tarfile.ReadError(f"{left} more clips were to come")
        except DAMAGE as error:
            raise ActcliError(
                f"shard {name} broke off after clip {last}: {error}. Check all shards with: actcli verify"
            ) from error


def _group(name: str, tar: tarfile.TarFile, card: ShardCard) -> Iterator[StreamedClip]:
    """Members of one clip are adjacent and share what stands before the first dot; the JSON comes first."""
    key, note = "", b""
    payloads: dict[str, bytes] = {}
    for member in tar:
        member_key, suffix, data = read_member(tar, member)
        if suffix == "json":
            if key:
                yield open_clip(name, key, note, payloads, card)
            key, note, payloads = member_key, data, {}
        elif member_key == key and suffix not in payloads:
            payloads[suffix] = data
        else:
            raise tarfile.ReadError(f"member {member.name} does not follow its JSON")
    if key:
        yield open_clip(name, key, note, payloads, card)


def read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[str, str, bytes]:
    """Key, suffix and bytes of a member.

    Raises:
        tarfile.ReadError: It is no member of a clip, or takes more memory than the tar has bytes.
    """
    name = MEMBER_NAME.fullmatch(member.name)
    if name is None or not member.isreg() or member.issparse() or member.size < 0:
        raise tarfile.ReadError(f"it holds {member.name!r}, which is no member of a clip")
    if name[2] == "json" and member.size > MAX_NOTE_BYTES:
        raise tarfile.ReadError(f"{member.name} is larger than any clip needs")
    file = tar.extractfile(member)
    data = file.read() if file else b""
    if len(data) != member.size:
        raise tarfile.ReadError(f"{member.name} ends early")
    return name[1], name[2], data


def open_clip(name: str, key: str, sealed: bytes, payloads: dict[str, bytes], card: ShardCard) -> StreamedClip:
    """The clip, when it is what was packed.

    Args:
        name: Of the tar.
        key: Of the clip, as its members say.
        sealed: Its JSON.
        payloads: Bytes by suffix, in the order of the tar.
        card: What its numbers have to agree with.

    Raises:
        tarfile.ReadError: JSON or payloads have changed, or say what cannot be.
    """
    try:
        note = open_note(sealed, payloads.values())
        if note.get("key") != key:
            raise ValueError(f"its JSON is of {note.get('key')!r}")
        if not payloads:
            raise ValueError("it has no frames")
        clip = StoredClip.from_note(note, name)
        check_clip(clip, {suffix: len(data) for suffix, data in payloads.items()}, card)
    except ValueError as error:
        raise tarfile.ReadError(f"clip {key}: {error}") from error
    return StreamedClip(clip, payloads)


class _TarBytes(io.RawIOBase):
    """A tar as a file that is read forwards, in requests of ``CHUNK_BYTES``, one ahead of the reader."""

    def __init__(self, reader: RetryingReader, name: str, size: int) -> None:
        self._reader, self._name, self._size = reader, name, size
        self._begin = 0
        self._chunk: memoryview = memoryview(b"")
        self._thread = ThreadPoolExecutor(1)
        self._next: Future[Encoded] | None = None
        self._ask()

    def _ask(self) -> None:
        size = min(CHUNK_BYTES, self._size - self._begin)
        self._next = self._thread.submit(self._reader.read, self._name, self._begin, size) if size else None
        self._begin += size

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill ``buffer`` with what the current chunk still has."""
        if not len(self._chunk) and self._next is not None:
            self._chunk = memoryview(self._next.result())
            self._ask()
        wanted = memoryview(buffer)
        count = min(len(wanted), len(self._chunk))
        wanted[:count] = self._chunk[:count]
        self._chunk = self._chunk[count:]
        return count

    def close(self) -> None:
        """Let go of the request that is under way."""
        self._thread.shutdown(cancel_futures=True)
        super().close()
