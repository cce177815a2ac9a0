"""Where the listed clips lie: videos and frame folders under the raw folder, or the folders of existing dumps.

Folders are listed once each and looked up in memory: a list of 650,000 clips of which few are there costs seconds.

A dump is searched in its roots and in the folders directly below them that are named after a split or after what they
hold (``rawframes_train``, ``val``, ``rgb``, ``u``), those of the clip's own split first. There a clip's folder may be

1. the official path without suffix: ``Archery/v_Archery_g01_c01``,
2. ``<class>/<name>``, the class in any of the customary spellings (``_`` for spaces, without ``()`` and ``'``),
3. the name alone, where no other clip has it; numeric names also padded to six digits.

Names are the file's and those in ``ClipRecord.other_names``.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from actcli.ingest.datasets._annotations import VIDEO_SUFFIXES, split_in_name
from actcli.ingest.frame_names import is_flow
from actcli.ingest.layout import Modality
from actcli.ingest.records import ClipRecord

_SECTION_WORDS = {"frames", "images", "img", "jpeg", "jpegs", "jpg", "rawframes"}
_SECTION_OF_MODALITY: dict[Modality, set[str]] = {"rgb": {"rgb"}, "flow": {"flow", "u"}}
_SECTION_DEPTH = 2


def locate_in(raw_dir: Path, records: Sequence[ClipRecord]) -> dict[str, str]:
    """Source id to path under ``raw_dir``, of the clips that are there."""
    names = _FolderNames()
    root = os.fspath(raw_dir)
    return {record.source_id: record.path for record in records if names.has(f"{root}/{record.path}")}


class DumpFinder:
    """Finds the folders of clips in a dump.

    Args:
        roots: The dump's folders; ``rawframes_train`` and ``rawframes_val``, or their parent.
        records: All clips of the dataset, so that a name that two of them share is not mistaken.
        modality: What is looked for.
    """

    def __init__(self, roots: Sequence[Path], records: Sequence[ClipRecord], modality: Modality) -> None:
        self._names = _FolderNames()
        self._records = records
        self._modality = modality
        self._sections = [s for root in roots for s in self._sections_of(os.fspath(root.absolute()), modality)]
        self._classes = {section: self._class_folders(section) for section in self._sections}

    def locate(self) -> dict[str, str]:
        """Source id to the absolute path of the clip's folder, of the clips that the dump has."""
        found = ((record.source_id, self._find(record)) for record in self._records)
        return {source_id: path for source_id, path in found if path is not None}

    def looked_for(self, record: ClipRecord) -> list[str]:
        """Folder names of a clip, relative to the dump, most exact first."""
        official = _without_suffix(record.source_id)
        names = list(_names(record))
        in_class = [f"{record.class_name}/{name}" for name in names] if record.class_name else []
        alone = [name for name in names if self._owners[name] == 1]
        return list(dict.fromkeys([official, *in_class, *alone]))

    def _find(self, record: ClipRecord) -> str | None:
        split = next(iter(record.splits.values()), "")
        sections = sorted(self._sections, key=lambda section: split_in_name(os.path.basename(section)) != split)
        paths = list(dict.fromkeys(path for path in self._candidates(record, sections) if self._names.has(path)))
        fitting = (path for path in paths if self._modality != "flow" or is_flow(Path(path)))
        return next(fitting, paths[0]) if len(paths) > 1 else next(iter(paths), None)

    def _candidates(self, record: ClipRecord, sections: Sequence[str]) -> Iterator[str]:
        names = list(_names(record))
        for section in sections:
            yield f"{section}/{_without_suffix(record.source_id)}"
            for folder in self._classes[section].get(_plain(record.class_name), ()) if record.class_name else ():
                yield from (f"{section}/{folder}/{name}" for name in names)
            yield from (f"{section}/{name}" for name in names if self._owners[name] == 1)

    @cached_property
    def _owners(self) -> Counter[str]:
        """How many clips go by each name."""
        return Counter(name for record in self._records for name in _names(record))

    def _sections_of(self, folder: str, modality: Modality, depth: int = 0) -> Iterator[str]:
        below = sorted(self._names.of(folder)) if depth < _SECTION_DEPTH else ()
        if modality == "flow" and {"u", "v"} <= set(below):
            below = [name for name in below if name == "u"]
            yield f"{folder}/u"
        words = _SECTION_WORDS | _SECTION_OF_MODALITY[modality]
        yield folder
        for name in below:
            parts = set(re.split(r"[^a-z]+", name.lower()))
            if (parts & words or split_in_name(name)) and os.path.isdir(f"{folder}/{name}"):
                yield from self._sections_of(f"{folder}/{name}", modality, depth + 1)

    def _class_folders(self, section: str) -> Mapping[str, list[str]]:
        folders: dict[str, list[str]] = {}
        for name in sorted(self._names.of(section)):
            folders.setdefault(_plain(name), []).append(name)
        return folders


class _FolderNames:
    """Names in folders; each folder is listed once."""

    def __init__(self) -> None:
        self._listed: dict[str, frozenset[str]] = {}

    def of(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder or "/"))
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def has(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self.of(folder)


def _names(record: ClipRecord) -> Iterator[str]:
    name = _without_suffix(PurePosixPath(record.source_id).name)
    yield name
    yield from record.other_names
    if name.isdecimal() and len(name) < 6:
        yield f"{int(name):06d}"


def _without_suffix(path: str) -> str:
    """The path without a video's suffix; other dots are part of the name."""
    stem, suffix = os.path.splitext(path)
    return stem if suffix.lower() in VIDEO_SUFFIXES else path


def _plain(name: str) -> str:
    """A class name without the marks that its spellings differ in."""
    return re.sub(r"[^\w]|_", "", name.lower())
