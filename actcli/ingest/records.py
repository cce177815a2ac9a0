"""What a dataset adapter promises: clips, classes and splits as the official annotations give them."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from actcli.errors import ActcliError

UNLABELLED = -1
"""Label of a clip whose class the official list keeps back (test sets of challenges)."""

FlipPolicy = Literal["allowed", "swap", "forbidden"]
Storage = Literal["video", "frames"]

_NAMES_SHOWN = 5


@dataclass(frozen=True)
class ClipRecord:
    """One row of the official annotations."""

    source_id: str
    """Name of the clip in the official list, unique in the dataset."""
    path: str
    """File or frame folder relative to the raw folder, with ``/``; it need not exist."""
    label: int
    """Class index from 0, or ``UNLABELLED``."""
    class_name: str
    """Official class name; empty without a label."""
    splits: Mapping[str, str]
    """Split set to split: ``{"1": "train", "2": "test"}``; a split set that leaves the clip out is not there."""
    start: float | None = None
    """First second of the clip, where the file is a longer video."""
    end: float | None = None
    """End of the clip in seconds, exclusive."""
    other_names: tuple[str, ...] = ()
    """Names besides the one in ``path`` under which dumps of frames keep the clip."""


@dataclass(frozen=True)
class Listing:
    """Everything that the annotations of one dataset say."""

    classes: tuple[str, ...]
    """Class names in the order of the published checkpoints."""
    records: tuple[ClipRecord, ...]
    """Clips in key order: the position here is the key of a new extraction."""
    split_sets: Mapping[str, tuple[str, ...]]
    """Split set to its splits."""
    storage: Storage = "video"
    """``"video"`` for encoded files, ``"frames"`` where every clip is a folder of JPEGs."""
    is_divided: bool = True
    """Whether the annotations say what is for training; if not, ``ingest.split.divide`` decides it."""
    flip: FlipPolicy = "allowed"
    """Whether mirroring keeps the class, exchanges some classes, or spoils it."""
    flip_swaps: tuple[tuple[str, str], ...] = ()
    """Pairs of class names that mirroring exchanges."""
    warnings: tuple[str, ...] = ()
    """What looked odd but does not stop the work."""


@dataclass(frozen=True)
class DatasetAdapter:
    """One dataset: what it needs on disk and how its annotations are read."""

    name: str
    """The name typed after ``--dataset``, and of the folders ``raw/<name>`` and ``frames/<name>``."""
    title: str
    """Name in the literature."""
    storage: Storage
    """``"video"`` for encoded files, ``"frames"`` for one folder of JPEGs a clip."""
    expects: str
    """Which official files go where under the raw folder."""
    reader: Callable[[Path], Listing]
    """Reads the annotations of an existing raw folder."""
    published_counts: Mapping[str, int] = field(default_factory=dict)
    """Classes and clips as published."""
    flip: FlipPolicy = "allowed"
    """Whether mirroring keeps the class, exchanges some classes, or spoils it."""
    flip_swaps: tuple[tuple[str, str], ...] = ()
    """Pairs of class names that mirroring exchanges."""
    fps: float | None = None
    """Frame rate of a dataset that comes as frames."""
    is_own: bool = False
    """Whether this is a user's own dataset, without an official list."""
    marks: tuple[str, ...] = ()
    """Glob patterns of files under the raw folder that tell this dataset from all others."""
    refuse: Callable[[Path], None] = lambda raw_dir: None
    """Raises ``ActcliError`` where the raw folder is plainly that of another dataset."""

    def read(self, raw_dir: Path | str) -> Listing:
        """Read the annotations under ``raw_dir``; clips are not opened.

        Raises:
            ActcliError: Files are missing or wrong; the message names all of them and what belongs where.
        """
        raw_dir = Path(raw_dir)
        if not raw_dir.is_dir():
            raise ActcliError(f"There is no folder {raw_dir}. {self.title} is expected like this:\n{self.expects}")
        self.refuse(raw_dir)
        try:
            listing = self.reader(raw_dir)
        except ActcliError as error:
            raise ActcliError(f"{error}\n{self.title} is expected like this:\n{self.expects}") from None
        except OSError as error:
            raise ActcliError(f"{error.filename or raw_dir} cannot be read: {error.strerror or error}.") from None
        if not listing.records:
            raise ActcliError(
                f"The annotations in {raw_dir} list no clip. {self.title} is expected like this:\n{self.expects}"
            )
        problems = list(_record_problems(listing))
        if problems:
            raise ActcliError("\n".join(problems))
        return listing


def shown_names(names: Sequence[str]) -> str:
    """The first five names, quoted, and that there are more."""
    return ", ".join(map(repr, names[:_NAMES_SHOWN])) + (", …" if len(names) > _NAMES_SHOWN else "")


def printable(name: str) -> str:
    """The name with bytes that are no UTF-8 written as escapes, as tables need it."""
    return name if name.isascii() else os.fsencode(name).decode("utf-8", "backslashreplace")


def printables(names: Sequence[str]) -> Sequence[str]:
    """``printable`` of each, at once for the many that are plain."""
    return names if "".join(names).isascii() else [printable(name) for name in names]


def _record_problems(listing: Listing) -> Iterator[str]:
    """What makes a list unusable: clips to learn from that have no class, names that are no file of the raw folder."""
    unlabelled = [record for record in listing.records if record.label == UNLABELLED]
    learnt = [r.source_id for r in unlabelled if not listing.is_divided or {"train", "val"} & set(r.splits.values())]
    if learnt:
        yield (
            f"{len(learnt)} clips for training or validation have no class: {shown_names(learnt)}. "
            "Only test clips may lack one: give them their class in the list, or take them out of it."
        )
    astray = [r.source_id for r in listing.records if not _is_inside(r.path)]
    if astray:
        yield (
            f"{len(astray)} clips of the list name no file in the raw folder: {shown_names(astray)}. "
            "Names are relative to it, and have no '..' in them."
        )


def _is_inside(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return bool(path) and path[0] != "/" and "\0" not in path and not (".." in path and ".." in path.split("/"))
