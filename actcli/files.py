"""Files of ours among files of others: whole or absent, named so that it is clear whose they are, written by one."""

import fcntl
import hashlib
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path

from actcli.errors import ActcliError

SMALL_TEXT_BYTES = 16 << 20
"""Most of a configuration or history; a thousand epochs take a hundredth of that."""
LOCK_NAME = ".actcli-lock"
"""The file that a process locks while it writes to a folder; it stays there."""
_TEMPORARY = re.compile(r"\.actcli-.+\.\d+\.tmp")


def temporary_path(path: Path) -> Path:
    """Where ``path`` is written before it gets its name: a name that only this process uses."""
    return path.with_name(f".actcli-{path.name}.{os.getpid()}.tmp")


def is_temporary(name: str) -> bool:
    """Whether a file or folder of that name was being written by a process of ours."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; what stands there when the block ends becomes ``path``, on disk for good.

    When the block raises, the temporary file goes and ``path`` stays as it was.
    """
    partial = temporary_path(path)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Replace a file: readers see the old or the new one, never a part."""
    with written_whole(path) as partial, partial.open("wb") as file:
        file.write(data)


def write_text_whole(path: Path, text: str) -> None:
    """Replace a text file: readers see the old or the new one, never a part."""
    write_whole(path, text.encode("utf-8"))


def remove_leftovers(*folders: Path) -> None:
    """Delete the temporary files of killed processes, and nothing else; the caller holds the lock of the folders."""
    for folder in folders:
        for path in [entry for entry in folder.iterdir() if is_temporary(entry.name)] if folder.is_dir() else ():
            remove(path)


def remove(path: Path) -> None:
    """Delete a file or a folder of ours, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes out of ``folder``; the system frees the lock when this process ends, however it ends.

    Raises:
        ActcliError: Another process holds the lock; ``what`` names it: "Another training".
    """
    number = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with open(number, "ab", closefd=True):
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ActcliError(f"{what} is writing to {folder}; wait for it to end, or choose another folder.") from None
        yield


def nearest_folder(path: Path) -> Path:
    """The path itself, or the nearest above it that exists."""
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def check_writable(folder: Path, num_bytes: int = 0) -> None:
    """Make ``folder`` and try to write there; see whether ``num_bytes`` more would fit.

    Raises:
        ActcliError: It cannot be made or written to, or the disk has less room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = temporary_path(folder / "probe")
        try:
            probe.write_bytes(b"actcli")
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise ActcliError(f"nothing can be written to {folder} ({error.strerror}). Choose another folder.") from error
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise ActcliError(
            f"{folder} takes about {num_bytes / 1e6:,.0f} MB and its disk has {free / 1e6:,.0f} MB free. Make room, or "
            f"choose another folder."
        )


def check_target(path: Path, flag: str) -> None:
    """See that a file can be written, before the work that leads to it; ``flag`` is what names it.

    Raises:
        ActcliError: It is a folder, or in a folder that cannot be written to.
    """
    if path.is_dir():
        raise ActcliError(f"{path} is a folder. Name a file with {flag}.")
    check_writable(nearest_folder(path.parent))


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """A file for reading; a pipe or a device in its place, which would hang or never end, is refused.

    Raises:
        ActcliError: It is no regular file.
        OSError: There is no file, or it cannot be read.
    """
    with suppress(IsADirectoryError):
        file = open(path, "rb", opener=_open_at_once)  # noqa: SIM115  the caller closes it
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
    raise ActcliError(f"{os.fspath(path)} is no regular file. Move it away and type the same command again.")


def read_small_text(path: str | os.PathLike[str], most_bytes: int = SMALL_TEXT_BYTES) -> str:
    """The text of a file that people write, or that says what others are; of one that is far too large no more is read.

    Raises:
        ActcliError: It is no regular file, or larger than ``most_bytes``.
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text.
    """
    with open_regular(path) as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise ActcliError(
            f"{os.fspath(path)} is larger than {most_bytes >> 20} MB, so it is not what its name says. Move it away."
        )
    return text.decode()


def file_checksum(path: Path) -> str:
    """SHA-256 of a regular file, in hex; raises as ``open_regular`` does."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
