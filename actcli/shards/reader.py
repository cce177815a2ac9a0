"""Open a folder or URL of shards, and read byte ranges of its tars."""

import io
import mmap
import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from actcli.errors import ActcliError
from actcli.shards.card import ShardCard
from actcli.shards.index import ShardIndex, read_index

CARD_NAME = "dataset.json"
MAX_OPEN_SHARDS = 64
"""Tars that one reader keeps mapped."""


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
            return read_index(origin, origin)
        return read_index(io.BytesIO(read_whole(self.root, name)), origin)


class ShardReader:
    """Reads byte ranges of tars: from the mapped file for a folder, by range request for a URL.

    Not thread-safe; open one per process.
    """

    def __init__(self, root: "str | os.PathLike[str]") -> None:
        self._root = os.fspath(root)
        self._maps: OrderedDict[str, mmap.mmap] = OrderedDict()
        self._filesystem: Any = None
        self._base = ""
        if not is_local(self._root):
            self._filesystem, self._base = _filesystem(self._root)

    def read(self, shard_name: str, offset: int, size: int) -> bytes | memoryview:
        """``size`` bytes of a tar from ``offset``, without a copy where the tar is a local file.

        Raises:
            ActcliError: The tar is missing or shorter than that.
        """
        if self._filesystem is None:
            data = memoryview(self._map(shard_name))[offset : offset + size]
        else:
            data = self._filesystem.cat_file(f"{self._base}/{shard_name}", start=offset, end=offset + size)
        if len(data) != size:
            raise self._cut_short(shard_name, offset + size)
        return data

    def read_ranges(self, shard_name: str, offsets: Sequence[int], sizes: Sequence[int]) -> list[Any]:
        """Several ranges of a tar; over a connection they are asked for at the same time.

        What goes wrong over a connection stands in place of the bytes, as an exception.

        Raises:
            ActcliError: A local tar is missing or shorter than that.
        """
        if self._filesystem is None:
            return [self.read(shard_name, offset, size) for offset, size in zip(offsets, sizes, strict=True)]
        paths = [f"{self._base}/{shard_name}"] * len(offsets)
        ends = [offset + size for offset, size in zip(offsets, sizes, strict=True)]
        pieces = self._filesystem.cat_ranges(paths, list(offsets), ends, on_error="return")
        return [
            self._cut_short(shard_name, end) if isinstance(piece, bytes) and len(piece) != size else piece
            for piece, size, end in zip(pieces, sizes, ends, strict=True)
        ]

    def _cut_short(self, shard_name: str, end: int) -> ActcliError:
        return ActcliError(
            f"{_join(self._root, shard_name)} ends before byte {end}: it was cut short. "
            f"Check all shards with: actcli verify"
        )

    def close(self) -> None:
        """Let go of all mapped tars."""
        while self._maps:
            self._maps.popitem()

    def _map(self, shard_name: str) -> mmap.mmap:
        mapped = self._maps.get(shard_name)
        if mapped is None:
            path = os.path.join(self._root, shard_name)
            try:
                with open(path, "rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise ActcliError(f"{path} cannot be read ({error}). Check all shards with: actcli verify") from error
            self._maps[shard_name] = mapped
            if len(self._maps) > MAX_OPEN_SHARDS:
                self._maps.popitem(last=False)  # unmapped once no frame of it is in use
        self._maps.move_to_end(shard_name)
        return mapped


def is_local(root: str) -> bool:
    """Whether ``root`` is a folder of this machine rather than a URL."""
    return "://" not in root and "::" not in root


def read_whole(root: str, name: str) -> bytes:
    """A small file of a shard folder or URL.

    Raises:
        ActcliError: It is not there, or the URL's protocol is not available.
    """
    path = _join(root, name)
    try:
        with fsspec.open(path if not is_local(root) else os.path.abspath(path), "rb") as file:
            return bytes(file.read())
    except (ImportError, ValueError) as error:
        raise ActcliError(f"{root} cannot be opened: {error}") from error
    except OSError as error:
        raise ActcliError(
            f"{path} cannot be read ({type(error).__name__}). "
            f"Write shards with: actcli shard, or name the right folder or URL with --shards-dir"
        ) from error


def _filesystem(root: str) -> tuple[Any, str]:
    try:
        filesystem, base = url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise ActcliError(f"{root} cannot be opened: {error}") from error
    return filesystem, str(base).rstrip("/")


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"
