"""Connections to object stores and servers, through fsspec: opened, asked again, given up in time, and in words."""

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from actcli.errors import ActcliError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Got = TypeVar("Got")

ATTEMPTS = 4
"""How often something is asked for over a connection before its failure counts."""
BUSY_ATTEMPTS = 8
"""The same where the server says that it has too much to do: half a minute of pauses."""
FIRST_WAIT_SECONDS = 0.25
"""Pause after the first failure; it doubles each time."""
SILENCE_SECONDS = 20.0
"""How long a server may keep silent before the request counts as failed."""
SLOWEST_BYTES_PER_SECOND = 50_000
"""A request may take ``SILENCE_SECONDS`` and as long as this speed needs for what it asks for."""
MAX_CONNECTIONS = 64
"""Requests to one server at a time."""
HOPELESS: tuple[type[Exception], ...] = (FileNotFoundError, PermissionError, NotImplementedError)
"""What asking again does not change."""


class Unreachable(ActcliError):
    """What is behind a URL could not be had or changed, however often it was tried."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file behind a URL."""

    root: str
    """The URL of the folder."""
    name: str
    """Its path below that."""

    def __str__(self) -> str:
        return f"{self.root}/{self.name}"

    def read_ranges(self, offsets: Sequence[int], sizes: Sequence[int]) -> list[bytes]:
        """Several ranges, asked for at the same time; one that the file has no bytes for is shorter.

        Raises:
            FileNotFoundError: There is no such file.
            Unreachable: It could not be read.
        """
        filesystem, base = open_filesystem(self.root)
        paths = [f"{base}/{self.name}"] * len(offsets)
        ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]

        def ask() -> list[bytes]:
            limit = deadline(filesystem, sum(sizes))
            pieces = filesystem.cat_ranges(paths, list(offsets), ends, on_error="return", **limit)
            for piece in pieces:
                if isinstance(piece, BaseException):
                    raise piece
            return list(pieces)

        try:
            return insist(ask, f"{self} cannot be read")
        except Unreachable as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "there is no such file", str(self)) from error
            raise

    def put(self, source: "str | os.PathLike[str]") -> None:
        """Copy a local file to this place.

        Raises:
            Unreachable: It could not be written.
        """
        filesystem, base = open_filesystem(self.root)
        limit = deadline(filesystem, os.path.getsize(source))
        insist(
            lambda: filesystem.put_file(os.fspath(source), f"{base}/{self.name}", **limit), f"{self} cannot be written"
        )

    def create(self, data: bytes) -> None:
        """Put a few bytes to this place unless there is a file; a store that knows no such request replaces one.

        Raises:
            Unreachable: They could not be written.
        """
        filesystem, base = open_filesystem(self.root)
        path, limit = f"{base}/{self.name}", deadline(filesystem, len(data))

        def ask() -> None:
            with suppress(FileExistsError):
                try:
                    filesystem.pipe_file(path, data, mode="create", **limit)
                except (NotImplementedError, TypeError, ValueError):
                    filesystem.pipe_file(path, data, **limit)

        insist(ask, f"{self} cannot be written")


def local_path(root: "str | os.PathLike[str]") -> str:
    """The folder that a ``file://`` URL names; any other root as it is."""
    root = os.fspath(root)
    return unquote(urlsplit(root).path) if root.startswith("file:///") else root


def is_local(root: str) -> bool:
    """Whether ``root`` is a folder of this machine rather than a URL."""
    return "://" not in root and "::" not in root


def pause(attempt: int) -> None:
    """Wait after a failed attempt, the first being 1."""
    time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))


def persist(step: Callable[[], Got], hopeless: tuple[type[Exception], ...], attempts: int = ATTEMPTS) -> Got:
    """Do something over a connection, again when it fails; the last failure, and any ``hopeless`` one, is raised."""
    final: tuple[type[Exception], ...] = (Unreachable, *hopeless)
    for attempt in count(1):
        try:
            return step()
        except final:
            raise
        except Exception as error:  # every protocol of fsspec has exceptions of its own
            if attempt >= (max(attempts, BUSY_ATTEMPTS) if _is_busy(error) else attempts):
                raise
            pause(attempt)
    raise AssertionError


def _is_busy(error: Exception) -> bool:
    """Whether a server asks for patience (503, 429, SlowDown), in the words of s3fs, or those of HTTP and gcsfs."""
    status = error.status if hasattr(error, "status") else getattr(error, "code", None)
    return status in (429, 503) or (isinstance(error, OSError) and error.errno == errno.EBUSY)


def insist(step: Callable[[], Got], failure: str) -> Got:
    """Do something over a connection, again when it fails; ``failure`` begins what is said in the end.

    Raises:
        Unreachable: It failed each time, or there is no hope that it ever will not.
    """
    try:
        return persist(step, HOPELESS)
    except Unreachable:
        raise
    except Exception as error:  # every protocol of fsspec has exceptions of its own
        shown = too_slow(error) if isinstance(error, TimeoutError) else error
        raise Unreachable(f"{failure} ({type(shown).__name__}: {shown}). {advice(error)}") from error


def advice(error: Exception) -> str:
    """What to do about a failure that did not pass."""
    if _is_busy(error):
        return "The server has too much to do: type the same command again later."
    return "Check the URL, the credentials and the connection."


def deadline(filesystem: "AbstractFileSystem", size: int) -> dict[str, float]:
    """The longest that a request for ``size`` bytes may take, for the protocols of fsspec that go over a network."""
    return {"timeout": SILENCE_SECONDS + size / SLOWEST_BYTES_PER_SECOND} if filesystem.async_impl else {}


def too_slow(error: BaseException) -> TimeoutError:
    """A silent server, in words."""
    return TimeoutError(str(error) or f"the server did not answer within {SILENCE_SECONDS:g} s")


def _options(root: str) -> dict[str, object]:
    """How a protocol is opened: it makes folders to write to, and waits for a silent server seconds, not minutes."""
    protocol = root.split("://")[0]
    if protocol in ("file", "local"):
        return {"auto_mkdir": True}
    if protocol in ("http", "https"):
        from aiohttp import ClientTimeout

        limit = ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        return {"client_kwargs": {"timeout": limit}}
    if protocol in ("s3", "s3a"):  # s3fs asks five times by itself, each of which botocore would make five
        patience = {"connect_timeout": SILENCE_SECONDS / 4, "read_timeout": SILENCE_SECONDS / 4}
        once = {"retries": {"total_max_attempts": 1}, "max_pool_connections": MAX_CONNECTIONS}
        return {"config_kwargs": {**patience, **once}}
    return {}


def open_filesystem(root: str) -> "tuple[AbstractFileSystem, str]":
    """The file system of a URL, and the path there.

    Raises:
        ActcliError: The protocol is unknown, or needs a package that is not installed.
    """
    from fsspec.core import url_to_fs  # what reads and writes on disks alone is spared it

    try:
        filesystem, base = url_to_fs(root, **_options(root))
    except (ImportError, ValueError) as error:
        raise ActcliError(f"{root} cannot be opened: {error}") from error
    return filesystem, str(base).rstrip("/")
