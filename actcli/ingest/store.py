"""Where the frames of clips lie: in a folder, or as one object a clip behind a URL.

The small files of an extraction (card, keys, ledger, manifest) stay in its folder in both cases: a ledger is appended
to, which no object store can do.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from actcli.errors import ActcliError
from actcli.files import check_writable, open_regular, temporary_path
from actcli.ingest.card import DatasetCard
from actcli.ingest.layout import Layout, Modality, Payload, payload_path
from actcli.ingest.payload import payload_bytes
from actcli.remote import RemoteFile, insist, is_local, local_path, open_filesystem

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ClipFile = Path | RemoteFile
"""The file of a clip."""
CHUNK_BYTES = 8 << 20
"""Bytes of one request when a clip is read whole."""
_URL = re.compile(r"(?!file://[^/])[a-z][a-z0-9+.-]*://.+")
_LISTINGS = 8
"""Folders of a URL that are listed at once."""


@dataclass(frozen=True)
class FrameStore:
    """The place of the frames, or of the flow, of one extraction."""

    root: Path | str
    """A folder, or a URL."""
    modality: Modality = "rgb"
    """Which of the two."""
    layout: Layout = "mjpeg"
    """A file or a folder for each clip."""
    payload: Payload = "mjpeg"
    """Frames, or links to the videos."""
    scratch: Path | None = None
    """Folder in which a clip's file is made before it goes to a URL; None is the system's for temporary files."""

    @staticmethod
    def of(frames_dir: Path, card: DatasetCard, modality: Modality) -> "FrameStore":
        """Where an extraction put its frames, as its card says.

        Raises:
            ActcliError: The card names no URL where one belongs.
        """
        settings = card.extraction[modality].settings if modality in card.extraction else {}
        url = settings.get("frames_url")
        if problem := url_problem(url):
            raise ActcliError(f"the card of {frames_dir} is damaged: {problem}")
        return FrameStore(
            store_root(frames_dir, url if isinstance(url, str) else None),
            modality,
            "folders" if settings.get("layout") == "folders" else "mjpeg",
            "source" if settings.get("payload") == "source" else "mjpeg",
        )

    def file(self, key: str) -> ClipFile:
        """The file of a clip, whether it is there or not."""
        if isinstance(self.root, Path):
            return payload_path(self.root, key, self.modality, self.layout, self.payload)
        return RemoteFile(self.root, payload_path(Path(), key, self.modality, self.layout, self.payload).as_posix())

    def sizes(self, keys: Iterable[str]) -> dict[str, int]:
        """Bytes of those of some clips that are there; -1 for what is no file.

        Raises:
            Unreachable: A URL cannot be listed.
        """
        files = ((key, self.file(key)) for key in keys)
        if isinstance(self.root, Path):
            found = ((key, payload_bytes(file)) for key, file in files if isinstance(file, Path))
            return {key: size for key, size in found if size is not None}
        names = {key: file.name for key, file in files if isinstance(file, RemoteFile)}
        folders = sorted({os.path.dirname(name) for name in names.values()})
        listed: dict[str, int] = {}
        with ThreadPoolExecutor(_LISTINGS) as pool:
            for entries in pool.map(partial(_listed, self.root, open_filesystem(self.root)), folders):
                listed |= entries
        return {key: listed[name] for key, name in names.items() if name in listed}

    @contextmanager
    def writing(self, key: str) -> Iterator[Path]:
        """Where the file of a clip is to be written; behind a URL, what is there in the end gets to its place whole.

        Raises:
            Unreachable: A URL cannot be written to.
        """
        file = self.file(key)
        if isinstance(file, Path):
            yield file
            return
        suffix = f".{os.getpid()}.tmp"  # a name that the next run takes away after a kill
        with tempfile.TemporaryDirectory(suffix, ".actcli-clip.", self.scratch) as folder:
            path = Path(folder) / os.path.basename(file.name)
            yield path
            if path.exists():
                file.put(path)

    def names(self) -> list[str]:
        """What lies directly in the folder, or below the URL.

        Raises:
            Unreachable: A URL cannot be listed.
        """
        if isinstance(self.root, Path):
            return sorted(os.listdir(self.root)) if self.root.is_dir() else []
        return sorted(_listed(self.root, open_filesystem(self.root), ""))

    def try_writing(self) -> None:
        """Write a tiny file, and take it away again where that is allowed.

        Raises:
            ActcliError: It cannot be written.
        """
        if isinstance(self.root, Path):
            check_writable(self.root)
            return
        filesystem, base = open_filesystem(self.root)
        path = f"{base}/{temporary_path(Path('probe')).name}"
        insist(lambda: filesystem.pipe_file(path, b"actcli"), f"{self.root} cannot be written to")
        with suppress(Exception):  # every protocol of fsspec has exceptions of its own
            filesystem.rm_file(path)


def _listed(root: str, opened: "tuple[AbstractFileSystem, str]", folder: str) -> dict[str, int]:
    """What lies in a folder below a URL, by its path from there, with its size; nothing where there is no folder."""
    filesystem, base = opened
    path = f"{base}/{folder}".rstrip("/")

    def ask() -> dict[str, int]:
        filesystem.invalidate_cache(path)
        try:
            entries = filesystem.ls(path, detail=True)
        except FileNotFoundError:
            return {}
        finally:
            filesystem.invalidate_cache(path)  # a listing that is kept takes a kilobyte a clip
        return {os.path.join(folder, os.path.basename(entry["name"].rstrip("/"))): entry["size"] for entry in entries}

    return insist(ask, f"{root} cannot be listed")


def url_problem(url: object) -> str | None:
    """Why frames cannot be put to a URL, before it is tried; None where there is no reason, or no URL."""
    if url is None:
        return None
    if not isinstance(url, str) or not _URL.fullmatch(url) or "::" in url:
        return f"--frames-url {url} is no URL such as s3://bucket/frames/sthv2; a folder is named with --frames-dir."
    if urlsplit(url).password:
        return "--frames-url holds a password, which the card would keep: give it as the protocol's own settings do."
    return None


def store_root(frames_dir: Path, url: str | None) -> Path | str:
    """The folder or URL of the frames, given the folder of the extraction and the URL that was asked for, if any."""
    root = local_path(url.rstrip("/")) if url else frames_dir
    return Path(root) if isinstance(root, Path) or is_local(root) else root


def read_into(file: ClipFile, into: memoryview) -> bool:
    """Read a file, and say whether it is exactly as long as ``into``; of one behind a URL no more than that is read.

    Raises:
        ActcliError: It is no regular file, or cannot be had over the connection.
        OSError: There is no such file, or it cannot be read.
    """
    if isinstance(file, Path):
        with open_regular(file) as opened:
            return opened.readinto(into) == len(into) and not opened.read(1)
    for begin in range(0, len(into), CHUNK_BYTES):
        [piece] = file.read_ranges([begin], [min(CHUNK_BYTES, len(into) - begin)])
        if begin + len(piece) < min(begin + CHUNK_BYTES, len(into)):
            return False
        into[begin : begin + len(piece)] = piece
    return True


def read_parts(file: ClipFile, offsets: Sequence[int], sizes: Sequence[int]) -> Iterator[bytes]:
    """Some parts of a file, one by one from a disk, all at once from a URL; raises as ``read_into`` does."""
    if isinstance(file, RemoteFile):
        yield from file.read_ranges(offsets, sizes)
        return
    with open_regular(file) as opened:
        for offset, size in zip(offsets, sizes, strict=True):
            opened.seek(offset)
            yield opened.read(size)
