"""Files that are whole or absent, and folders that one process writes at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from actcli.errors import ActcliError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``; what stands there when the block ends becomes ``path``, on disk for good.

    When the block raises, the temporary file goes and ``path`` stays as it was.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.actcli-tmp")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Delete what :func:`written_whole` left in ``folder`` when its process was killed."""
    for path in folder.glob(".*.actcli-tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path, what: str) -> Iterator[None]:
    """Keep other processes out of ``folder``; the system frees the lock when this process ends, however it ends.

    Raises:
        ActcliError: Another process holds the lock; ``what`` names it: "Another training".
    """
    with (folder / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ActcliError(f"{what} is writing to {folder}; wait for it to end, or choose another folder.") from None
        yield


def check_writable(folder: Path) -> None:
    """Make ``folder`` and try to write there.

    Raises:
        ActcliError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.actcli-tmp"
        probe.write_bytes(b"actcli")
        probe.unlink()
    except OSError as error:
        raise ActcliError(f"nothing can be written to {folder} ({error.strerror}). Choose another folder.") from error
