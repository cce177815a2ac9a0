"""Files of ours among files of others: names that say whose they are, writing at once or not at all."""

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from actcli.errors import ActcliError

_TEMPORARY = re.compile(r"\.actcli-.+\.\d+\.tmp")
_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))
_KEY_FOLDER = re.compile(r"\d+")


def temporary_path(path: Path) -> Path:
    """Where ``path`` is written before it gets its name: a name that only this process uses."""
    return path.with_name(f".actcli-{path.name}.{os.getpid()}.tmp")


def remove_leftovers(frames_dir: Path) -> None:
    """Delete the temporary files of runs that were killed, and nothing else; the caller holds the folder's lock."""
    folders = [entry for entry in frames_dir.iterdir() if _KEY_FOLDER.fullmatch(entry.name) and entry.is_dir()]
    for folder in (frames_dir, *folders):
        for path in [entry for entry in folder.iterdir() if _TEMPORARY.fullmatch(entry.name)]:
            remove(path)


def remove(path: Path) -> None:
    """Delete a file or a folder of ours, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file: readers see the old or the new one, never a part."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes the place of ``path`` when the block ends well, and is on the disk."""
    temporary = temporary_path(path)
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def open_regular(path: Path) -> BinaryIO:
    """Open a file of ours for reading.

    Raises:
        ActcliError: Something else has its name: a folder, or a pipe, which would be waited for for ever.
        OSError: There is no file, or it cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ActcliError(f"{path} is no file. Move it away and type the same command again.")
    return path.open("rb")


def readable_bytes(size: float) -> str:
    """``12.3 MB``: a size with the unit that suits it."""
    if size < 1000:
        return f"{size:.0f} bytes"
    unit, name = next((pair for pair in _UNITS if size >= pair[0]), _UNITS[-1])
    return f"{size / unit:.1f} {name}"
