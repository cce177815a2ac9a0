"""Writing one tar as it was planned, and reading the checksums of one that is there."""

import hashlib
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from actcli.files import written_whole
from actcli.shards.card import ShardFile
from actcli.shards.index import frame_crcs
from actcli.shards.manifest import read_payload
from actcli.shards.note import seal, write_note
from actcli.shards.plan import Crcs, PlannedTar


@dataclass(frozen=True)
class WrittenTar:
    """A tar that is whole."""

    file: ShardFile
    """As the card lists it."""
    crcs: Crcs
    """Checksums of its frames, for the index."""
    is_new: bool
    """Whether this run wrote it."""


def write_tar(tar: PlannedTar, folder: Path) -> WrittenTar:
    """Write a tar, whole or not at all.

    Raises:
        ActcliError: A payload is not the file that was extracted.
    """
    crcs = {}
    with written_whole(folder / tar.name) as partial, partial.open("wb") as raw:
        file = _HashingWriter(raw)
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as archive:  # type: ignore[call-overload]
            for clip in tar.clips:
                payloads = {clip.member_name(payload): read_payload(payload) for payload in clip.payloads}
                for payload, (name, data) in zip(clip.payloads, payloads.items(), strict=True):
                    crcs[name] = frame_crcs(data, payload.frame_sizes)
                note = seal(write_note(clip.stored().note()), payloads.values())
                for name, data in {f"{clip.key}.json": note, **payloads}.items():
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(data), 0o644
                    archive.addfile(member, io.BytesIO(data))
    return WrittenTar(ShardFile(tar.name, file.size, file.digest(), len(tar.clips)), crcs, is_new=True)


def read_crcs(tar: PlannedTar, folder: Path) -> Crcs | None:
    """The checksums of a tar that an earlier run wrote; ``None`` where another encoder gave other videos."""
    crcs = {}
    with (folder / tar.name).open("rb") as file:
        for member in tar.members():
            if member.payload is None:
                continue
            file.seek(member.offset)
            data = file.read(member.size)
            if member.payload.checksum and hashlib.sha256(data).hexdigest() != member.payload.checksum:
                return None
            crcs[member.name] = frame_crcs(data, member.payload.frame_sizes)
    return crcs


class _HashingWriter:
    """A file that is written front to back and hashed on the way."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return self._raw.write(data)

    def digest(self) -> str:
        return self._hash.hexdigest()
