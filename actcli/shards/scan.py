"""What a tar holds, found by reading it from front to back, whole or damaged.

A member begins at a multiple of 512 bytes with a header that has a checksum of its own. Where none is found, the next
block is tried: damage costs the clip that it hits, and no other.
"""

import hashlib
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from actcli.files import open_regular
from actcli.shards.card import ShardCard, ShardFile
from actcli.shards.clip import StoredClip
from actcli.shards.dali import Member, write_dali_index
from actcli.shards.index import frame_crcs
from actcli.shards.plan import BLOCK
from actcli.shards.stream import MEMBER_NAME, open_clip
from actcli.shards.tar import WrittenTar

_Found = tuple[Member, bytes]
"""A member and its bytes."""


@dataclass(frozen=True)
class ScannedTar:
    """What was found in a tar."""

    written: WrittenTar
    """The tar as a card would list it, with its sound clips; the whole one where this is what the card does list."""
    members: dict[str, tuple[Member, ...]]
    """Of each sound clip, by key: its JSON and its payloads."""
    places: dict[str, int]
    """Of each key that any header names, also of a hurt clip: where the first of its members begins."""


def scan_tar(path: Path, card: ShardCard) -> ScannedTar:
    """Everything that is sound in a tar, in one pass.

    Args:
        path: The tar.
        card: What its clips have to agree with.

    Raises:
        ActcliError: It is no regular file.
        OSError: It is not there, or cannot be read.
    """
    places: dict[str, int] = {}
    with open_regular(path) as file:
        reader = _Reader(file)
        found = list(_sound_clips(_noted(_members(reader), places), path.name, card))
    listed = ShardFile(path.name, reader.position, reader.digest.hexdigest(), len(found))
    members = {clip.key: members for clip, members in found}
    index = write_dali_index(member for _, members in found for member in members)
    return ScannedTar(WrittenTar(listed, tuple(clip for clip, _ in found), index), members, places)


class _Reader:
    """A file that is read front to back, and hashed on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        self.position += len(data)
        return data


def _noted(members: Iterator[_Found], places: dict[str, int]) -> Iterator[_Found]:
    """The same members; where the first one of each key begins is put into ``places``."""
    for member, data in members:
        places.setdefault(member.key, member.offset)
        yield member, data


def _sound_clips(
    found: Iterator[_Found], shard: str, card: ShardCard
) -> Iterator[tuple[StoredClip, tuple[Member, ...]]]:
    for key, group in groupby(found, lambda one: one[0].key):
        (first, note), *rest = group
        payloads = {member.suffix: data for member, data in rest}
        try:
            if first.suffix != "json" or len(payloads) < len(rest):
                continue
            clip = open_clip(shard, key, note, payloads, card).clip
        except tarfile.ReadError:
            continue
        members = (first, *(member for member, _ in rest))
        yield _placed(clip, members, payloads), members


def _placed(clip: StoredClip, members: tuple[Member, ...], payloads: dict[str, bytes]) -> StoredClip:
    """The clip with the places and the checksums of its frames."""
    places = {"flow" if member.suffix == "flow.mjpeg" else member.suffix: member for member in members}
    flow = places.pop("flow", None)
    if flow:
        crcs = frame_crcs(payloads[flow.suffix], clip.flow_frame_sizes)
        clip = replace(clip, flow_offset=flow.offset, flow_frame_crcs=crcs)
    for rgb in (member for suffix, member in places.items() if suffix != "json"):
        crcs = frame_crcs(payloads[rgb.suffix], clip.frame_sizes, clip.video)
        clip = replace(clip, offset=rgb.offset, bytes=rgb.size, frame_crcs=crcs)
    return clip


def _members(reader: _Reader) -> Iterator[_Found]:
    """The members of clips with their bytes; what is none is passed over, block by block."""
    while block := reader.read(BLOCK):
        member = _member(block, reader.position)
        if member and reader.position + member.size <= reader.size:
            data = reader.read(member.size)
            reader.read(-member.size % BLOCK)
            yield member, data


def _member(header: bytes, offset: int) -> Member | None:
    try:
        found = tarfile.TarInfo.frombuf(header, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return None
    name = MEMBER_NAME.fullmatch(found.name)
    if name is None or not found.isreg() or found.size < 0:
        return None
    return Member(name[1], name[2], offset, found.size)
