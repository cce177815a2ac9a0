"""The folder that shards are written to: which of its files are ours, and what goes wrong there, in words.

Ours is what the card or the journal in the folder names, and what begins with ``.actcli-``. Nothing else is touched.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import pyarrow as pa

from actcli.errors import ActcliError
from actcli.files import nearest_folder, open_regular, remove_leftovers
from actcli.shards.card import ShardCard, our_names
from actcli.shards.checksum import FileSeal, difference
from actcli.shards.journal import Journal
from actcli.shards.reader import CARD_NAME


@contextmanager
def plain_errors(folder: Path) -> Iterator[None]:
    """Turn what disks and memory do to a run into one sentence."""
    go_on = "What is whole is kept: the same command continues."
    try:
        yield
    except ActcliError:
        raise
    except MemoryError as error:
        raise ActcliError(f"memory ran out while writing {folder}. Take fewer --workers. {go_on}") from error
    except (OSError, pa.ArrowException, av.FFmpegError) as error:
        raise ActcliError(f"{_in_words(error, folder)}. {go_on}") from error


def check_place(folder: Path) -> None:
    """Refuse a place that cannot be written to before any work is done."""
    place = nearest_folder(folder)
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise ActcliError(f"{place} is not a folder that can be written to; choose another with --shards-dir.")


def _in_words(error: Exception, folder: Path) -> str:
    path = str(getattr(error, "filename", None) or folder)
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: {reason}. Make room, or choose another disk with --shards-dir"
    if path.startswith(str(folder)):
        return f"{path}: {reason}. Give leave to write there, or choose another folder with --shards-dir"
    return f"{path}: {reason}"


ASIDE_NAME = ".actcli-dataset.json"
"""Where the card is while the indexes are exchanged for those of more clips."""


def ours(folder: Path, journal: Journal) -> frozenset[str]:
    """Names that the card and the journal of a folder call ours, the card's own included."""
    owned = journal.names
    for path in (folder / CARD_NAME, folder / ASIDE_NAME):
        if path.exists():
            with open_regular(path) as file:
                named = our_names(file.read())
            owned |= set() if named is None else named | {path.name}
    return owned


def base_card(folder: Path, owned: frozenset[str]) -> ShardCard | None:
    """The card of the finished shards of a folder, also of those that a killed run was adding clips to.

    Raises:
        ActcliError: It is damaged, or of another version.
    """
    for path in (folder / name for name in (CARD_NAME, ASIDE_NAME) if name in owned):
        if path.exists():
            return ShardCard.from_json(path.read_bytes(), os.fspath(path))
    return None


def refuse_foreign(folder: Path, names: Iterable[str], owned: frozenset[str]) -> None:
    """Refuse to write over files that no card or journal of ours names.

    Raises:
        ActcliError: Some are in the way, or one of ours has become a folder.
    """
    there = [name for name in sorted(names) if os.path.lexists(folder / name)]
    foreign = [name for name in there if name not in owned]
    if foreign:
        more = f" and {len(foreign) - 5} more" if len(foreign) > 5 else ""
        raise ActcliError(
            f"{folder} holds {', '.join(foreign[:5])}{more}, which no card or journal there calls shards of actcli. "
            "They are left alone: move them away, or choose another folder with --shards-dir."
        )
    folders = [name for name in there if (folder / name).is_dir()]
    if folders:
        raise ActcliError(f"{folder / folders[0]} is a folder where a file belongs; move it away.")


def remove(folder: Path, names: Iterable[str]) -> None:
    """Remove files of ours, and temporary ones that a killed run left; the lock keeps living runs out."""
    remove_leftovers(folder)
    for name in names:
        (folder / name).unlink(missing_ok=True)


def is_whole(folder: Path, file: FileSeal) -> bool:
    """Whether a file is there with the size and sha256 that it was written with."""
    return difference(folder / file.name, file.bytes, file.checksum) is None
