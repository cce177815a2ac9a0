"""Open a folder or URL of shards, and read byte ranges of its tars."""

import io
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs

from actcli.errors import ActcliError
from actcli.shards.card import ShardCard
from actcli.shards.index import ShardIndex, read_index

CARD_NAME = "dataset.json"
MAX_OPEN_SHARDS = 64
"""Tars that one reader keeps open."""
ATTEMPTS = 4
"""How often something is asked for over a connection before its failure counts."""
FIRST_WAIT_SECONDS = 0.25
"""Pause after the first failure; it doubles each time."""


@dataclass(frozen=True)
class ShardSet:
    """A folder (or fsspec URL) of shards and its card."""

    root: str
    """Folder or URL."""
    card: ShardCard
    """What ``dataset.json`` says."""

    @staticmethod
    def open(root: "str | os.PathLike[str]") -> "ShardSet":
        """Read the card of a shard folder.

        Raises:
            ActcliError: There is no card, or the protocol of the URL needs a package that is not installed.
        """
        root = os.fspath(root)
        return ShardSet(root, ShardCard.from_json(read_whole(root, CARD_NAME), _join(root, CARD_NAME)))

    def index(self, split: str, split_id: str = "1") -> ShardIndex:
        """The clips of one split.

        Raises:
            ActcliError: No such split, or its index is missing or damaged.
        """
        name = self.card.index_name(split, split_id)
        origin = _join(self.root, name)
        if is_local(self.root):
            if not os.path.exists(origin):
                raise ActcliError(f"{origin} is missing. Write the shards again with: actcli shard --overwrite")
            index = read_index(origin, origin)
        else:
            index = read_index(io.BytesIO(read_whole(self.root, name)), origin)
        listed = self.card.split_sets[split_id][split]
        if len(index) != listed:
            raise ActcliError(
                f"{origin} has {len(index)} clips, the card says {listed}: it belongs to other shards. "
                "Write the shards again with: actcli shard --overwrite"
            )
        return index


class ShardReader:
    """Reads byte ranges of tars: from the file for a folder, by range request for a URL.

    Files are read rather than mapped: of a mapped file that is cut short while it is in use, the next access kills the
    process. Not thread-safe; open one per process.
    """

    def __init__(self, root: "str | os.PathLike[str]") -> None:
        self._root = os.fspath(root)
        self._files: OrderedDict[str, int] = OrderedDict()
        weakref.finalize(self, _close_all, self._files)
        self._filesystem: Any = None
        self._base = ""
        if not is_local(self._root):
            self._filesystem, self._base = _filesystem(self._root)

    def read(self, shard_name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a tar from ``offset``.

        Raises:
            ActcliError: The tar is missing or shorter than that.
        """
        [piece] = self.read_ranges(shard_name, [offset], [size])
        if isinstance(piece, BaseException):
            raise piece
        return bytes(piece)

    def read_ranges(self, shard_name: str, offsets: Sequence[int], sizes: Sequence[int]) -> list[Any]:
        """Several ranges of a tar; over a connection they are asked for at the same time.

        What goes wrong stands in place of the bytes, as an exception: an ``ActcliError`` where asking again is no use.

        Raises:
            ActcliError: A local tar cannot be opened.
        """
        ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
        if self._filesystem is None:
            pieces = [self._read_local(shard_name, *where) for where in zip(offsets, sizes, strict=True)]
        else:
            paths = [f"{self._base}/{shard_name}"] * len(offsets)
            pieces = self._filesystem.cat_ranges(paths, list(offsets), ends, on_error="return")
        return [
            self._wrong_length(shard_name, end, len(piece) > size)
            if isinstance(piece, bytes) and len(piece) != size
            else piece
            for piece, size, end in zip(pieces, sizes, ends, strict=True)
        ]

    def _wrong_length(self, shard_name: str, end: int, too_long: bool) -> ActcliError:
        path = _join(self._root, shard_name)
        if too_long:
            return ActcliError(
                f"the server of {path} gives the whole file where a part is asked for: it knows no range requests. "
                "Take one that does (nginx, S3), or copy the shards to a local folder."
            )
        return ActcliError(f"{path} ends before byte {end}: it was cut short")

    def close(self) -> None:
        """Close all tars."""
        _close_all(self._files)

    def _read_local(self, shard_name: str, offset: int, size: int) -> bytes:
        try:
            return os.pread(self._open(shard_name), size, offset)
        except OSError as error:
            path = os.path.join(self._root, shard_name)
            raise ActcliError(f"{path} cannot be read ({error.strerror})") from error

    def _open(self, shard_name: str) -> int:
        file = self._files.get(shard_name)
        if file is None:
            file = self._files[shard_name] = os.open(os.path.join(self._root, shard_name), os.O_RDONLY | os.O_CLOEXEC)
            if len(self._files) > MAX_OPEN_SHARDS:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard_name)
        return file


def _close_all(files: OrderedDict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def is_local(root: str) -> bool:
    """Whether ``root`` is a folder of this machine rather than a URL."""
    return "://" not in root and "::" not in root


def read_whole(root: str, name: str) -> bytes:
    """A small file of a shard folder or URL.

    Raises:
        ActcliError: It is not there, could not be had, or the URL's protocol is not available.
    """
    path = _join(root, name)
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if is_local(root):
                with open(path, "rb") as file:
                    return file.read()
            filesystem, base = _filesystem(root)
            return bytes(filesystem.cat_file(f"{base}/{name}"))
        except ActcliError:
            raise
        except FileNotFoundError as error:
            raise ActcliError(
                f"there is no {path}. Write shards with: actcli shard, or name the right folder or URL with "
                "--shards-dir"
            ) from error
        except Exception as error:  # every protocol of fsspec has exceptions of its own
            if is_local(root) or attempt == ATTEMPTS:
                raise ActcliError(
                    f"{path} cannot be read ({type(error).__name__}: {error}). "
                    "Check that it is a folder or URL of shards, and that the connection works."
                ) from error
            pause(attempt)
    raise AssertionError("unreachable")


def pause(attempt: int) -> None:
    """Waits after a failed attempt, the first being 1."""
    time.sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))


def _filesystem(root: str) -> tuple[Any, str]:
    try:
        filesystem, base = url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise ActcliError(f"{root} cannot be opened: {error}") from error
    return filesystem, str(base).rstrip("/")


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"
