"""Open a folder or URL of shards, and read byte ranges of its tars."""

import hashlib
import io
import os
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from actcli.errors import ActcliError
from actcli.files import open_regular
from actcli.remote import ATTEMPTS, deadline, is_local, local_path, open_filesystem, persist, too_slow
from actcli.shards.card import ShardCard
from actcli.shards.checksum import FileSeal, difference
from actcli.shards.index import ShardIndex
from actcli.shards.index_file import read_clip_names, read_index

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Piece = bytes | BaseException
"""Bytes of a tar, or why they could not be had."""

CARD_NAME = "dataset.json"
REWRITE = "actcli shard --overwrite"
MAX_OPEN_SHARDS = 64
"""Tars that one reader keeps open."""
MAX_CARD_BYTES = 4 << 20
"""Much more than the card of any dataset takes."""


class Range(NamedTuple):
    """Consecutive bytes of a tar."""

    shard: str
    """Name of the tar."""
    begin: int
    """First byte."""
    end: int
    """Byte after the last one."""


@dataclass(frozen=True)
class CacheFolder:
    """A folder that keeps parts of tars that are far away."""

    path: Path
    """It may serve several runs at the same time."""
    max_bytes: int
    """What was not used for longest goes first."""


@dataclass(frozen=True)
class ShardSet:
    """A folder (or fsspec URL) of shards and its card."""

    root: str
    """Folder or URL."""
    card: ShardCard
    """What ``dataset.json`` says."""
    cache: CacheFolder | None = field(default=None, kw_only=True)
    """Where tars that are far away are kept."""

    @staticmethod
    def open(root: "str | os.PathLike[str]") -> "ShardSet":
        """Read the card of a shard folder.

        Raises:
            ActcliError: There is no card, or the protocol of the URL needs a package that is not installed.
        """
        root = local_path(root)
        return ShardSet(root, ShardCard.from_json(read_whole(root, CARD_NAME), _join(root, CARD_NAME)))

    def index(self, split: str, split_id: str = "1") -> ShardIndex:
        """The clips of one split.

        Raises:
            ActcliError: No such split, or its index is missing or damaged.
        """
        origin, source = self._index_file(split, split_id)
        return read_index(source, origin, self.card, self.card.split_sets[split_id][split])

    def clip_names(self, split: str, split_id: str = "1") -> tuple[str, ...]:
        """Names of the clips in the official list (source ids), in the order of the rows of ``index``.

        Raises:
            ActcliError: No such split, or its index is missing or damaged.
        """
        origin, source = self._index_file(split, split_id)
        return read_clip_names(source, origin, self.card.split_sets[split_id][split])

    def left_out(self, split: str, split_id: str = "1") -> str:
        """Which clips of a split are not seen, in words; empty where all are."""
        return ""

    def _index_file(self, split: str, split_id: str) -> tuple[str, str | BinaryIO]:
        """Path or URL of an index, and what to read it from, once it is the one that the card names."""
        name = self.card.index_name(split, split_id)
        origin = _join(self.root, name)
        seal = self.card.file(name)
        if seal is None:
            raise ActcliError(f"the card of {self.root} lists no {name}. Write the shards again with: {REWRITE}")
        if not is_local(self.root):
            return origin, io.BytesIO(self._remote(seal))
        problem = difference(Path(origin), seal.bytes, seal.checksum)
        if problem:
            raise ActcliError(f"{origin}: {problem}. Write the shards again with: {REWRITE}")
        return origin, origin

    def _remote(self, seal: FileSeal) -> bytes:
        data = read_whole(self.root, seal.name, seal.bytes)
        if len(data) != seal.bytes or hashlib.sha256(data).hexdigest() != seal.checksum:
            raise ActcliError(
                f"{_join(self.root, seal.name)} is not the index that the card names: its sha256 differs. Copy the "
                f"shards there again, or write them again with: {REWRITE}"
            )
        return data


class ShardReader:
    """Reads byte ranges of tars: from the file for a folder, by range request for a URL.

    Files are read rather than mapped: of a mapped file that is cut short while it is in use, the next access kills the
    process. Not thread-safe; open one per process.
    """

    def __init__(self, root: "str | os.PathLike[str]") -> None:
        self._root = local_path(root)
        self._files: OrderedDict[str, int] = OrderedDict()
        weakref.finalize(self, _close_all, self._files)
        self._filesystem: AbstractFileSystem | None = None
        self._base = ""
        if not is_local(self._root):
            self._filesystem, self._base = open_filesystem(self._root)

    def read(self, shard_name: str, offset: int, size: int) -> bytes:
        """``size`` bytes of a tar from ``offset``.

        Raises:
            ActcliError: The tar is missing or shorter than that.
        """
        [piece] = self.read_ranges([Range(shard_name, offset, offset + size)])
        if isinstance(piece, BaseException):
            raise piece
        return bytes(piece)

    def read_ranges(self, ranges: Sequence[Range]) -> list[Piece]:
        """Several ranges; over a connection they are asked for at the same time.

        What goes wrong stands in place of the bytes, as an exception: an ``ActcliError`` where asking again is no use.
        """
        if self._filesystem is None:
            pieces = [self._read_local(one) for one in ranges]
        else:
            pieces = self._ask(self._filesystem, ranges)
        return [
            self._wrong_length(one, len(piece))
            if isinstance(piece, bytes) and len(piece) != one.end - one.begin
            else piece
            for piece, one in zip(pieces, ranges, strict=True)
        ]

    def _ask(self, filesystem: "AbstractFileSystem", ranges: Sequence[Range]) -> list[Piece]:
        paths = [f"{self._base}/{one.shard}" for one in ranges]
        begins, ends = [one.begin for one in ranges], [one.end for one in ranges]
        limit = deadline(filesystem, sum(ends) - sum(begins))
        try:
            return list(filesystem.cat_ranges(paths, begins, ends, on_error="return", **limit))
        except TimeoutError as error:
            return [too_slow(error)] * len(paths)

    def _wrong_length(self, one: Range, length: int) -> ActcliError:
        path = _join(self._root, one.shard)
        if length > one.end - one.begin:
            return ActcliError(
                f"the server of {path} gives the whole file where a part is asked for: it knows no range requests. "
                "Take one that does (nginx, S3), or copy the shards to a local folder."
            )
        return ActcliError(f"{path} ends before byte {one.end}: it was cut short")

    def close(self) -> None:
        """Close all tars."""
        _close_all(self._files)

    def _read_local(self, one: Range) -> Piece:
        try:
            file = self._open(one.shard)
            left = max(os.fstat(file).st_size - one.begin, 0)  # no memory is taken for more than there is
            return os.pread(file, min(one.end - one.begin, left), one.begin)
        except ActcliError as error:
            return error
        except OSError as error:
            return ActcliError(f"{_join(self._root, one.shard)} cannot be read ({error.strerror})")

    def _open(self, shard_name: str) -> int:
        file = self._files.get(shard_name)
        if file is None:
            with open_regular(os.path.join(self._root, shard_name)) as opened:
                file = self._files[shard_name] = os.dup(opened.fileno())
            if len(self._files) > MAX_OPEN_SHARDS:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard_name)
        return file


def _close_all(files: OrderedDict[str, int]) -> None:
    while files:
        os.close(files.popitem()[1])


def read_whole(root: str, name: str, size: int = MAX_CARD_BYTES) -> bytes:
    """A small file of a shard folder or URL, of at most ``size`` bytes.

    Raises:
        ActcliError: It is not there, could not be had, or the URL's protocol is not available.
    """
    path = _join(root, name)
    attempts = 1 if is_local(root) else ATTEMPTS
    try:
        return persist(lambda: _read_once(root, name, size), (ActcliError, FileNotFoundError), attempts)
    except ActcliError:
        raise
    except FileNotFoundError as error:
        raise ActcliError(
            f"there is no {path}. Write shards with: actcli shard, or name the right folder or URL with --shards-dir"
        ) from error
    except Exception as error:  # every protocol of fsspec has exceptions of its own
        error = too_slow(error) if isinstance(error, TimeoutError) else error
        raise ActcliError(
            f"{path} cannot be read ({type(error).__name__}: {error}). "
            "Check that it is a folder or URL of shards, and that the connection works."
        ) from error


def _read_once(root: str, name: str, size: int) -> bytes:
    if is_local(root):
        return _read_local_whole(_join(root, name), size)
    filesystem, base = open_filesystem(root)
    return bytes(filesystem.cat_file(f"{base}/{name}", **deadline(filesystem, size)))


def _read_local_whole(path: str, size: int) -> bytes:
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > size:
            raise ActcliError(f"{path} is larger than any card of shards ({size >> 20} MB)")
        return file.read()


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"
