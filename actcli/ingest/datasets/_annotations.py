"""Reading annotation files: the steps that several datasets share."""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from actcli.errors import ActcliError
from actcli.files import open_regular
from actcli.ingest.records import UNLABELLED, ClipRecord, FlipPolicy, Listing, Storage

Kind = TypeVar("Kind")
VIDEO_SUFFIXES = frozenset(
    ".3g2 .3gp .asf .avi .divx .dv .f4v .flv .m2t .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogm .ogv "  # noqa: SIM905
    ".rm .rmvb .ts .vob .webm .wmv".split()
)
SPLIT_OF_WORD = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""The splits, by the words that stand for them in names of folders and lists."""


@dataclass(frozen=True)
class Entry:
    """One line of an annotation file; ``class_name`` is None where the official list keeps it back."""

    source_id: str
    split: str
    class_name: str | None


def split_in_name(name: str) -> str | None:
    """The split that a name speaks of (``rawframes_train``, ``val_256``, ``validation``); None where it is none."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_OF_WORD[word] for word in words if word in SPLIT_OF_WORD), None)


def read_json(path: Path, kind: type[Kind]) -> Kind:
    """The value in a JSON file.

    Raises:
        ActcliError: It is no JSON, nested absurdly deep, or not of the ``kind``.
    """
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ActcliError(f"{path} is not a JSON file ({error}); download it again.") from None
    if not isinstance(value, kind):
        raise ActcliError(f"{path} holds a {type(value).__name__} where a {kind.__name__} is expected.")
    return value


def read_lines(path: Path) -> list[str]:
    """Lines without white space around them and without empty ones; UTF-8 (with or without mark) or Latin-1."""
    with open_regular(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [line for line in map(str.strip, text.splitlines()) if line]


def first_folder(raw_dir: Path, names: Sequence[str]) -> str:
    """The first of ``names`` that is a folder under ``raw_dir``, else the first: its clips are then missing."""
    return next((name for name in names if (raw_dir / name).is_dir()), names[0])


class AnnotationFiles:
    """Finds annotation files and remembers which are missing, so that all are reported at once."""

    def __init__(self, raw_dir: Path, folders: Sequence[str]) -> None:
        self._raw_dir = raw_dir
        self._folders = folders
        self._missing: list[str] = []

    def find(self, names: Sequence[str], *, required: bool = True) -> Path | None:
        """The first existing file of ``names`` in the folders, or None."""
        for folder in self._folders:
            for name in names:
                path = self._raw_dir / folder / name
                if path.is_file():
                    return path
        if required:
            self._missing.append(" or ".join(names))
        return None

    def need(self, paths: Iterable[Path | None]) -> list[Path]:
        """All the paths.

        Raises:
            ActcliError: One of the files asked for so far is missing.
        """
        if self._missing:
            raise ActcliError(f"{self._raw_dir} lacks these annotation files: {'; '.join(self._missing)}.")
        return [path for path in paths if path is not None]


def check_class_names(entries: Iterable[Entry], classes: Sequence[str], source: Path) -> None:
    """Raise ``ActcliError`` if an entry's class is not in ``classes``, which ``source`` lists."""
    known = set(classes)
    unknown = sorted({e.class_name for e in entries if e.class_name is not None and e.class_name not in known})
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:5])
        raise ActcliError(f"{len(unknown)} classes of the annotations are not in {source}: {shown}.")


def natural_key(source_id: str) -> tuple[int, int, str]:
    """A key that sorts numbers by value, before names."""
    return (0, int(source_id), source_id) if source_id.isdecimal() else (1, 0, source_id)


def single_split_listing(
    entries: Iterable[Entry],
    classes: Sequence[str],
    path_of: Callable[[Entry], str],
    *,
    storage: Storage = "video",
    flip: FlipPolicy = "allowed",
    flip_swaps: Iterable[tuple[str, str]] = (),
    warnings: Iterable[str] = (),
) -> Listing:
    """A listing with the one split set ``"1"``; of clips that are listed twice the first entry counts."""
    unique: dict[str, Entry] = {}
    repeated = []
    for entry in entries:
        if unique.setdefault(entry.source_id, entry) is not entry:
            repeated.append(entry.source_id)
    label_of = {name: label for label, name in enumerate(classes)}
    records = [
        ClipRecord(
            source_id=entry.source_id,
            path=path_of(entry),
            label=UNLABELLED if entry.class_name is None else label_of[entry.class_name],
            class_name=entry.class_name or "",
            splits={"1": entry.split},
        )
        for entry in sorted(unique.values(), key=lambda entry: natural_key(entry.source_id))
    ]
    return Listing(
        classes=tuple(classes),
        records=tuple(records),
        split_sets={"1": ordered_splits(entry.split for entry in unique.values())},
        storage=storage,
        flip=flip,
        flip_swaps=present_swaps(flip_swaps, classes),
        warnings=(*warnings, *repeat_warning(repeated)),
    )


def repeat_warning(repeated: Sequence[str]) -> list[str]:
    """One warning about clips that are listed more than once, if any."""
    if not repeated:
        return []
    return [f"{len(repeated)} clips are listed more than once ({repeated[0]}, …); the first entry counts."]


def ordered_splits(splits: Iterable[str]) -> tuple[str, ...]:
    """The splits that occur, in the order train, val, test."""
    found = set(splits)
    return tuple(split for split in ("train", "val", "test") if split in found)


def present_swaps(pairs: Iterable[tuple[str, str]], classes: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The pairs of which both classes exist."""
    return tuple((a, b) for a, b in pairs if a in classes and b in classes)


def semicolon_entries(paths: Mapping[str, Path], answers: Path | None) -> list[Entry]:
    """Entries of ``id;class`` files by split; a line without a class takes it from ``answers``, if there are any."""
    answer_of = dict(map(id_and_class, read_lines(answers))) if answers else {}
    entries = []
    for split, path in paths.items():
        for line in read_lines(path):
            source_id, class_name = id_and_class(line)
            entries.append(Entry(source_id, split, class_name or answer_of.get(source_id)))
    return entries


def id_and_class(line: str) -> tuple[str, str | None]:
    """The parts of a line ``id;class``; a line may end after the id."""
    source_id, _, class_name = line.partition(";")
    return source_id.strip(), plain_template(class_name) or None


def plain_template(template: str) -> str:
    """The class name in a Something-Something template: the text without square brackets."""
    return template.replace("[", "").replace("]", "").strip()
