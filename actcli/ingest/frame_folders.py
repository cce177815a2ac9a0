"""Folders of JPEG frames: official ones (Something-Something V1, Jester) and dumps that other tools have made.

The files are packed as they are, byte for byte, in the order of their numbers. They must be whole, of one size, and
numbered without a gap; other files in the folder are passed over and mentioned in the clip's row.

Where a dump keeps the folder of a clip, ``locate`` finds out; what its files are called, ``frame_names``.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from actcli.ingest.decode import Plane
from actcli.ingest.failure import ClipFailure
from actcli.ingest.frame_names import FLOW_NAME, RGB_NAME, holds
from actcli.ingest.sizing import DecodeSettings, target_size

_IGNORED_SHOWN = 3


class FrameFolder:
    """The numbered JPEGs of one folder whose names match ``pattern``.

    Raises:
        ClipFailure: There is no such folder or file, or the names have several patterns or gaps.
    """

    def __init__(self, folder: Path, pattern: re.Pattern[str] = RGB_NAME) -> None:
        if not folder.is_dir():
            raise ClipFailure("find", "FileNotFoundError", f"there is no folder {folder.name}")
        names = sorted(os.listdir(folder))
        matches = [match for match in map(pattern.fullmatch, names) if match]
        if not matches:
            raise ClipFailure("find", "NoFrames", f"the folder {folder.name} holds no numbered JPEG")
        prefixes = sorted({match["prefix"] for match in matches})
        if len(prefixes) > 1:
            raise ClipFailure("find", "MixedFrames", f"the folder mixes names that begin with {prefixes}")
        name_of = {int(match["number"]): match.string for match in matches}
        gap = next((n for n in range(min(name_of), max(name_of)) if n not in name_of), None)
        if gap is not None or len(name_of) < len(matches):
            raise ClipFailure("find", "MissingFrame", f"frame {gap} is missing" if gap else "a number occurs twice")
        self.paths: list[Path] = [folder / name_of[number] for number in sorted(name_of)]
        """The files in the order of their numbers."""
        matched = set(name_of.values())
        self.ignored: list[str] = [name for name in names if name not in matched]
        """Other names in the folder."""

    @property
    def note(self) -> str:
        """What was passed over, in words; empty where nothing was."""
        if not self.ignored:
            return ""
        more = ", …" if len(self.ignored) > _IGNORED_SHOWN else ""
        return f"passed over {len(self.ignored)} other files: {', '.join(self.ignored[:_IGNORED_SHOWN])}{more}"

    def jpegs(self) -> Iterator[tuple[bytes, tuple[int, int]]]:
        """Bytes of each file with its width and height.

        Raises:
            ClipFailure: A file cannot be read or decoded, or differs in size from the first one.
        """
        first: tuple[int, int] | None = None
        for path in self.paths:
            data = path.read_bytes()
            try:
                height, width, _ = simplejpeg.decode_jpeg(data, "GRAY").shape
            except ValueError as error:
                raise ClipFailure(
                    "decode", "DamagedFrame", f"{path.name}: {error if data else 'the file is empty'}"
                ) from None
            first = first or (width, height)
            if (width, height) != first:
                raise ClipFailure(
                    "decode",
                    "MixedSizes",
                    f"{path.name} is {width}x{height}, the frames before it {first[0]}x{first[1]}",
                )
            yield data, first

    def grey(self, settings: DecodeSettings) -> Iterator[Plane]:
        """The frames as grey planes at the size that ``settings`` ask for."""
        for data, (width, height) in self.jpegs():
            plane = simplejpeg.decode_jpeg(data, "GRAY")[..., 0]
            size = target_size(width, height, settings)
            if size != (width, height):
                plane = cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
            yield np.ascontiguousarray(plane)


def find_flow(folder: Path, roots: Sequence[Path]) -> tuple[FrameFolder, FrameFolder]:
    """The x and y flow pictures of a clip, equal in number, from its folder in a dump with the ``roots``.

    Raises:
        ClipFailure: The folder holds no flow, or x and y differ in number.
    """
    pairs = [(folder / "u", folder / "v", RGB_NAME, RGB_NAME), (folder, folder, FLOW_NAME["x"], FLOW_NAME["y"])]
    for root in roots:
        if folder.is_relative_to(root / "u"):
            pairs.append((folder, root / "v" / folder.relative_to(root / "u"), RGB_NAME, RGB_NAME))
    for x_folder, y_folder, x_name, y_name in pairs:
        if holds(x_folder, x_name):
            return _equally_long(FrameFolder(x_folder, x_name), FrameFolder(y_folder, y_name))
    raise ClipFailure("find", "NoFrames", f"the folder {folder.name} holds no flow")


def _equally_long(x: FrameFolder, y: FrameFolder) -> tuple[FrameFolder, FrameFolder]:
    if len(x.paths) != len(y.paths):
        raise ClipFailure("find", "MissingFrame", f"{len(x.paths)} x pictures, {len(y.paths)} y pictures")
    return x, y
