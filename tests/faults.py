"""Faults at every call with which a piece of code touches the disk: full disk, broken disk, short read, failed rename.

The points are those of the code itself: ``calls_of`` runs it once and lists its calls, ``failing`` runs it again with
one of them failing. Seen are files that Python opens, and renames, deletions and the like, below one folder, in this
process and all its threads; not seen is what C libraries open by name (so hand them an open file, or name the function
that writes in ``WRITERS``). Any test can use it:

    calls = calls_of(lambda: work(), below=folder)
    for number, call in enumerate(calls):
        with failing(number, errors_of(call)[0], below=folder): ...
"""

import builtins
import errno
import io
import os
import pkgutil
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

SHORT = -1
"""In place of an error number: the file seems to end in the middle of what is read."""

_PATH_CALLS = ("open", "replace", "rename", "mkdir", "unlink", "rmdir", "truncate", "utime", "chmod")
WRITERS = {"safetensors.torch.serialize_file": 1}
"""Functions of C libraries that write a file by its name, and the place of that name among their arguments."""


@dataclass(frozen=True)
class Call:
    """One call that touches the disk."""

    name: str
    """``open``, ``read``, ``write``, ``truncate``, ``fsync``, ``replace``, …"""
    file: str
    """Name of the file or folder, without those above it."""


def errors_of(call: Call) -> tuple[int, ...]:
    """The errors that such a call can meet."""
    if call.name == "read":
        return (errno.EIO, SHORT)
    if call.name in ("write", "open", "mkdir"):
        return (errno.ENOSPC, errno.EIO, errno.ENOMEM)
    return (errno.EIO, errno.EROFS)


def points_of(calls: list[Call]) -> list[tuple[int, int]]:
    """Numbers of calls, with an error each: the first or the last call of each kind, such as writes of checkpoints.

    With ``ACTCLI_ALL_FAULTS=1`` in the environment, all calls with all their errors.
    """
    if os.environ.get("ACTCLI_ALL_FAULTS") == "1":
        return [(number, error) for number, call in enumerate(calls) for error in errors_of(call)]
    kinds: dict[tuple[str, str], list[int]] = {}
    for number, call in enumerate(calls):
        kinds.setdefault((call.name, re.sub(r"\d+", "0", call.file)), []).append(number)
    chosen = sorted(numbers[-(place % 2)] for place, numbers in enumerate(kinds.values()))
    errors = [errors_of(calls[number]) for number in chosen]
    return [(number, errors[place][place % len(errors[place])]) for place, number in enumerate(chosen)]


def calls_of(work: Callable[[], Any], below: Path) -> list[Call]:
    """The calls that ``work`` makes for files below a folder, in their order."""
    with _watching(_Watcher(below, None, 0)) as watcher:
        work()
    return watcher.calls


@contextmanager
def failing(number: int, error: int, below: Path) -> Iterator[None]:
    """Let the call of that number (from 0) fail with an ``errno``, or end short; the others succeed."""
    with _watching(_Watcher(below, number, error)):
        yield


class _Watcher:
    def __init__(self, below: Path, number: int | None, error: int) -> None:
        self._below = os.fspath(below.resolve())
        self._number, self._error = number, error
        self._lock = threading.Lock()
        self.calls: list[Call] = []

    def watches(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self._below)

    def meet(self, name: str, path: Any) -> bool:
        """Note one call, and raise its error if it is the one that fails; true where a read ends short."""
        with self._lock:
            self.calls.append(Call(name, os.path.basename(path)))
            is_chosen = len(self.calls) - 1 == self._number
        if is_chosen and self._error != SHORT:
            raise OSError(self._error, os.strerror(self._error), os.fspath(path))
        return is_chosen


class _File(io.FileIO):
    """A file whose reads and writes the watcher sees."""

    def __init__(self, watcher: _Watcher, path: Any, mode: str) -> None:
        watcher.meet("open", path)
        super().__init__(path, mode)
        self._watcher, self._path, self._has_ended = watcher, path, False

    def readinto(self, buffer: Any) -> int | None:
        if self._has_ended:
            return 0
        self._has_ended = self._watcher.meet("read", self._path)
        count = super().readinto(buffer)
        return (count or 0) // 2 if self._has_ended else count

    def readall(self) -> bytes:
        self._has_ended = self._watcher.meet("read", self._path)
        data = super().readall()
        return data[: len(data) // 2] if self._has_ended else data

    def write(self, data: Any) -> int:
        self._watcher.meet("write", self._path)
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._watcher.meet("truncate", self._path)
        return super().truncate(size)


@contextmanager
def _watching(watcher: _Watcher) -> Iterator[_Watcher]:
    whole_open, whole_fsync = io.open, os.fsync

    def open_watched(file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, *rest: Any, **named: Any):
        if not watcher.watches(file):
            return whole_open(file, mode, buffering, encoding, *rest, **named)
        raw = _File(watcher, file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered: Any = io.BufferedReader(raw) if mode.strip("bt") == "r" else io.BufferedWriter(raw)
        if "+" in mode:
            buffered = io.BufferedRandom(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, *rest, **named)

    def fsync_watched(descriptor: Any) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        path = os.readlink(f"/proc/self/fd/{number}")
        if watcher.watches(path):
            watcher.meet("fsync", path)
        whole_fsync(descriptor)

    def watched(name: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **named: Any) -> Any:
            if watcher.watches(path):
                watcher.meet(name, path)
            return whole(path, *rest, **named)

        return call

    def writing(whole: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if watcher.watches(arguments[place]):
                watcher.meet("write", arguments[place])
            return whole(*arguments, **named)

        return call

    calls = {name: watched(name, getattr(os, name)) for name in _PATH_CALLS}
    with (
        ExitStack() as stack,
        mock.patch.multiple(os, fsync=fsync_watched, **calls),
        mock.patch.object(io, "open", open_watched),
        mock.patch.object(builtins, "open", open_watched),
    ):
        for name, place in WRITERS.items():
            if name.rpartition(".")[0] in sys.modules:
                stack.enter_context(mock.patch(name, writing(pkgutil.resolve_name(name), place)))
        yield watcher
