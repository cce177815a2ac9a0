"""Writing one tar as it was planned.

Not on ``tarfile.open``, which copies each member in pieces of 16 kB and writes blocks of 10 kB: hashing and writing
whole payloads is what makes packing as fast as copying. The headers are those of ``tarfile``.
"""

import hashlib
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import BinaryIO

from actcli.files import written_whole
from actcli.shards.card import ShardFile
from actcli.shards.clip import StoredClip
from actcli.shards.manifest import Clip, payload_crcs, read_payload
from actcli.shards.note import seal, write_note
from actcli.shards.plan import BLOCK, TAR_END, PlannedTar

_WRITE_BYTES = 128 << 10
"""Bytes handed to the system at a time: megabytes in one call take it two to three times as long."""


@dataclass(frozen=True)
class WrittenTar:
    """A tar that is whole, and what the indexes say of it."""

    file: ShardFile
    """As the card lists it."""
    clips: tuple[StoredClip, ...]
    """Its clips, in the order of the tar."""
    dali_index: str
    """DALI's index of it."""


def write_tar(tar: PlannedTar, folder: Path) -> WrittenTar:
    """Write a tar, whole or not at all.

    Raises:
        ActcliError: A payload is not the file that was extracted.
    """
    with written_whole(folder / tar.name) as partial, partial.open("wb") as raw:
        return pack_tar(tar, raw)


def pack_tar(tar: PlannedTar, raw: BinaryIO) -> WrittenTar:
    """Write the bytes of a tar to an open file; raises as ``write_tar`` does."""
    crcs = {}
    writer, scratch = TarWriter(raw), Scratch()
    for clip in tar.clips:
        members = clip_members(clip, scratch)
        for payload, data in zip(clip.payloads, list(members.values())[1:], strict=True):
            crcs[clip.member_name(payload)] = payload_crcs(payload, data)
        writer.add(members)
    writer.close()
    return WrittenTar(writer.file(tar.name), tuple(tar.stored_clips(crcs)), tar.dali_index())


class Scratch:
    """Memory for the payloads of one clip at a time: to ask the system for it anew takes time."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray())

    def parts(self, sizes: Sequence[int]) -> list[memoryview]:
        """Parts of so many bytes; what the last call gave is overwritten."""
        ends = list(accumulate(sizes, initial=0))
        if ends[-1] > len(self._buffer):
            self._buffer = memoryview(bytearray(ends[-1]))
        return [self._buffer[begin:end] for begin, end in pairwise(ends)]


def clip_members(clip: Clip, scratch: Scratch) -> dict[str, bytes | memoryview]:
    """What a tar holds of a clip, by member name: its sealed JSON, then its payloads, read and checked.

    They are good until the next call with the same ``scratch``.

    Raises:
        ActcliError: A payload is not the file that was extracted.
    """
    parts = scratch.parts([payload.bytes for payload in clip.payloads])
    for payload, part in zip(clip.payloads, parts, strict=True):
        read_payload(payload, part)
    payloads = dict(zip(map(clip.member_name, clip.payloads), parts, strict=True))
    return {f"{clip.key}.json": seal(write_note(clip.stored().note()), payloads.values()), **payloads}


class TarWriter:
    """A tar that is written front to back, clip by clip, and hashed on the way."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()
        self._size = self._num_clips = 0

    def add(self, members: Mapping[str, bytes | memoryview]) -> None:
        """Write the files of one clip, by name."""
        self._num_clips += 1
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            self._write([member.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % BLOCK)])

    def close(self) -> None:
        """End the tar as ``tarfile`` does: two empty blocks, and more up to a multiple of ``TAR_END``."""
        self._write([bytes(2 * BLOCK + -(self._size + 2 * BLOCK) % TAR_END)])

    def file(self, name: str) -> ShardFile:
        """What the card says of the tar."""
        return ShardFile(name, self._size, self._hash.hexdigest(), self._num_clips)

    def _write(self, pieces: Iterable[bytes | memoryview]) -> None:
        for piece in pieces:
            self._hash.update(piece)
            self._size += len(piece)
            for begin in range(0, len(piece), _WRITE_BYTES):
                self._raw.write(piece[begin : begin + _WRITE_BYTES])
