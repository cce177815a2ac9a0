"""Writing the frames of one clip: a Motion-JPEG file or a folder of JPEGs, whole or not at all."""

import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from actcli.files import remove, temporary_path
from actcli.ingest.layout import Layout, Modality

_BUFFER_BYTES = 1 << 20
"""Handed to the system at once; a frame has some 20 kB."""


class PayloadWriter:
    """Collects the JPEGs of a clip under a temporary name; ``commit`` gives them their own.

    Leaving the context without ``commit`` removes what was written.
    """

    def __init__(self, target: Path, modality: Modality, layout: Layout) -> None:
        self._target = target
        self._temporary = temporary_path(target)
        self._name_of = _rgb_name if modality == "rgb" else _flow_name
        self._layout = layout
        self._file: BinaryIO | None = None
        self._digest = hashlib.sha256()
        self.frame_sizes: list[int] = []

    def __enter__(self) -> "PayloadWriter":
        self._target.parent.mkdir(parents=True, exist_ok=True)
        remove(self._temporary)
        if self._layout == "mjpeg":
            self._file = self._temporary.open("wb", _BUFFER_BYTES)
        else:
            self._temporary.mkdir()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._file:
            self._file.close()
        remove(self._temporary)

    def write(self, jpeg: bytes) -> None:
        """Add one frame, or one of the two planes of a flow field."""
        if self._file:
            self._file.write(jpeg)
        else:
            (self._temporary / self._name_of(len(self.frame_sizes))).write_bytes(jpeg)
        self._digest.update(jpeg)
        self.frame_sizes.append(len(jpeg))

    def commit(self) -> None:
        """Put the clip in its place, over an older one if there is one."""
        if self._file:
            self._file.close()
        elif self._target.exists():
            remove(self._target)
        self._temporary.replace(self._target)

    @property
    def checksum(self) -> str:
        """SHA-256 of all JPEGs one after the other, in hexadecimal digits."""
        return self._digest.hexdigest()


def link_video(target: Path, video: Path) -> None:
    """Put a link to a video in the place of a clip's frames, at once or not at all."""
    temporary = temporary_path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(temporary)
    temporary.symlink_to(video.absolute())
    temporary.replace(target)


def payload_bytes(path: Path) -> int | None:
    """Bytes on disk of a clip's file or folder; -1 for what is neither, None where there is nothing."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(found.st_mode):
        return sum(entry.stat().st_size for entry in os.scandir(path))
    return found.st_size if stat.S_ISREG(found.st_mode) else -1


def _rgb_name(index: int) -> str:
    return f"img_{index + 1:05d}.jpg"


def _flow_name(index: int) -> str:
    return f"flow_{'xy'[index % 2]}_{index // 2 + 1:05d}.jpg"
