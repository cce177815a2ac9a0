"""Whose the frames behind a URL are: the frames folder and the URL hold the same little file with a random id.

The card alone does not tell when two extractions begin at one empty URL at the same moment. The id goes to the frames
folder first, so that a run which is killed goes on, and then to the URL before any clip does, unless one is there.
"""

import json
import uuid
from contextlib import suppress
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import write_whole
from actcli.ingest.store import ClipFile, FrameStore, read_parts
from actcli.remote import RemoteFile

OWNER_NAME = ".actcli-frames.json"
_MAX_BYTES = 1000


def owner_problem(frames_dir: Path, store: FrameStore) -> str | None:
    """Why clips may not be put to the place of a store: it holds the id of another frames folder.

    Raises:
        ActcliError: The URL cannot be read, or a file in the folder is no regular one.
    """
    found = _read(_owner_file(store))
    if found is None or found == _read(frames_dir / OWNER_NAME):
        return None
    return (
        f"{store.root} belongs to another extraction: its {OWNER_NAME} is not that of {frames_dir}. Choose another "
        "--frames-url, or continue with the --frames-dir that began there; if that is gone, delete what lies there."
    )


def claim_place(frames_dir: Path, store: FrameStore) -> None:
    """Make the place of a store that of this frames folder, whose lock the caller holds.

    Raises:
        ActcliError: It is that of another one, or cannot be read or written.
    """
    if _read(frames_dir / OWNER_NAME) is None:
        write_whole(frames_dir / OWNER_NAME, json.dumps({"id": uuid.uuid4().hex}).encode() + b"\n")
    if _read(_owner_file(store)) is None:
        _create(_owner_file(store), (frames_dir / OWNER_NAME).read_bytes())
    check_owner(frames_dir, store)


def check_owner(frames_dir: Path, store: FrameStore) -> None:
    """See that the place of a store is still that of this frames folder.

    Raises:
        ActcliError: It is that of another one, or nobody's.
    """
    if problem := owner_problem(frames_dir, store):
        raise ActcliError(problem)
    if _read(_owner_file(store)) is None:
        raise ActcliError(f"{_owner_file(store)} is gone. Type the same command again; it continues.")


def _owner_file(store: FrameStore) -> ClipFile:
    return store.root / OWNER_NAME if isinstance(store.root, Path) else RemoteFile(store.root, OWNER_NAME)


def _read(file: ClipFile) -> bytes | None:
    """The first bytes of a file; None where there is none."""
    try:
        return next(read_parts(file, [0], [_MAX_BYTES]))
    except FileNotFoundError:
        return None


def _create(file: ClipFile, data: bytes) -> None:
    """Write a file unless there is one, which may be that of an extraction that began at the same moment."""
    if isinstance(file, RemoteFile):
        file.create(data)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), file.open("xb") as opened:
        try:
            opened.write(data)
            opened.flush()
        except BaseException:
            file.unlink()
            raise
