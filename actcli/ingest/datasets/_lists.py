"""Lists in an own dataset's folder: a CSV with ``path,label[,split]``, or the text lists of TSN and its family."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import SPLIT_OF_WORD, VIDEO_SUFFIXES, natural_key, read_lines, split_in_name
from actcli.ingest.records import Storage, shown_names

_FRAMES_LINE = re.compile(r"(?P<path>.*\S)\s+\d+\s+(?P<label>-?\d+)")
_VIDEO_LINE = re.compile(r"(?P<path>.*\S)\s+(?P<label>-?\d+)")
_CLASS_FILES = ("category.txt", "classes.txt")


class ListedClip(NamedTuple):
    """One clip of an own dataset."""

    path: str
    """Relative to the raw folder, with ``/``."""
    label: str
    """Class name; empty where the list has none."""
    split: str
    """Empty where nobody has said."""


@dataclass(frozen=True)
class Lists:
    """What the lists of a folder say."""

    clips: tuple[ListedClip, ...]
    """Sorted by path."""
    classes: tuple[str, ...]
    """In label order."""
    storage: Storage
    """``frames`` where no path has the suffix of a video."""


def read_lists(raw_dir: Path) -> Lists | None:
    """Read the lists that lie in the folder itself; None where there are none.

    Raises:
        ActcliError: A list is damaged or no regular file, or there are several where one is wanted.
    """
    tables = [path for path in sorted(raw_dir.glob("*.csv")) if _delimiter(path)]
    texts = [path for path in sorted(raw_dir.glob("*.txt")) if _is_text_list(path)]
    if tables and texts:
        raise ActcliError(f"{raw_dir} has {tables[0].name} and {texts[0].name}; keep one kind of list.")
    if not tables and not texts:
        return None
    split_of = _splits(tables or texts)
    return _csv_lists(split_of) if tables else _text_lists(raw_dir, split_of)


def _splits(paths: Sequence[Path]) -> dict[Path, str]:
    """The split in each list's name; a single list needs none."""
    split_of = {path: split_in_name(path.stem) or "" for path in paths}
    splits = list(split_of.values())
    if len(paths) > 1 and (len(set(splits)) < len(splits) or "" in splits):
        raise ActcliError(
            f"{paths[0].parent} has the lists {', '.join(path.name for path in paths)}; "
            "keep one for each of train, val and test, named after it, or one for all."
        )
    return split_of


def _checked(clips: Sequence[ListedClip]) -> tuple[ListedClip, ...]:
    by_path = {clip.path: clip for clip in reversed(clips)}
    if len(by_path) < len(clips):
        unequal = sorted({clip.path for clip in clips if by_path[clip.path] != clip})
        if unequal:
            raise ActcliError(
                f"{len(unequal)} clips are listed twice, with different labels or splits: {shown_names(unequal)}."
            )
    return tuple(by_path[path] for path in sorted(by_path))


def _plain(path: str) -> str:
    """``./a//b`` as ``a/b``; ``..`` and a leading ``/`` stay, to be refused."""
    return PurePosixPath(path).as_posix()


def _csv_lists(split_of: dict[Path, str]) -> Lists:
    clips = [clip for path, split in split_of.items() for clip in _csv_clips(path, split if len(split_of) > 1 else "")]
    if 0 < sum(not clip.split for clip in clips) < len(clips):
        without = [clip.path for clip in clips if not clip.split]
        raise ActcliError(f"{len(without)} clips have no split, others have: {shown_names(without)}.")
    classes = sorted({clip.label for clip in clips if clip.label}, key=natural_key)
    return Lists(_checked(clips), tuple(classes), _storage(clips))


def _storage(clips: Sequence[ListedClip]) -> Storage:
    """What the names look like: files of video, or folders."""
    names_video = any(PurePosixPath(clip.path).suffix.lower() in VIDEO_SUFFIXES for clip in clips)
    return "video" if names_video else "frames"


def _csv_clips(path: Path, split: str) -> Iterator[ListedClip]:
    reader = csv.DictReader(io.StringIO("\n".join(read_lines(path)), newline=""), delimiter=_delimiter(path))
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    try:
        for row in reader:
            word = (row.get("split") or "").strip().lower()
            if not (row["path"] or "").strip() or (word and word not in SPLIT_OF_WORD):
                raise ActcliError(
                    f"{path}, line {reader.line_num}: {','.join(map(str, row.values()))!r} needs a path, "
                    "a label, and if there is a split one of train, val and test."
                )
            yield ListedClip(
                _plain(row["path"].strip()), (row["label"] or "").strip(), SPLIT_OF_WORD[word] if word else split
            )
    except csv.Error as error:
        raise ActcliError(f"{path}, line {reader.line_num}: {error}.") from None


def _delimiter(path: Path) -> str:
    """What divides the columns of a CSV whose first line names ``path`` and ``label``; empty for any other file."""
    header = (read_lines(path) or [""])[0].lower()
    try:
        columns = {mark: {name.strip() for name in next(csv.reader([header], delimiter=mark))} for mark in ",;\t"}
    except csv.Error:
        return ""
    return next((mark for mark, names in columns.items() if {"path", "label"} <= names), "")


def _is_text_list(path: Path) -> bool:
    if split_in_name(path.stem) is None:
        return False
    lines = read_lines(path)
    return bool(lines) and _VIDEO_LINE.fullmatch(lines[0]) is not None


def _text_lists(raw_dir: Path, split_of: dict[Path, str]) -> Lists:
    lines = {path: read_lines(path) for path in split_of}
    counts_frames = all(_FRAMES_LINE.fullmatch(line) for of_file in lines.values() for line in of_file)
    pattern = _FRAMES_LINE if counts_frames else _VIDEO_LINE
    numbered = []
    for path, split in split_of.items():
        for number, line in enumerate(lines[path], 1):
            match = pattern.fullmatch(line)
            if match is None:
                raise ActcliError(
                    f"{path}, line {number}: {line[:80]!r} is not a path, a number of frames and a label "
                    "(nor a path and a label)."
                )
            numbered.append((_plain(match["path"]), int(match["label"]), split))
    classes = _class_names(raw_dir, [(path, label) for path, label, _ in numbered if label >= 0])
    clips = [ListedClip(path, classes[label] if label >= 0 else "", split) for path, label, split in numbered]
    return Lists(_checked(clips), tuple(classes), _storage(clips))


def _class_names(raw_dir: Path, labels: Sequence[tuple[str, int]]) -> list[str]:
    """Names by label: from ``category.txt`` or ``classes.txt``, else the clips' folders, else ``class 0`` and so on.

    Folders name the classes where each label has one folder of its own.
    """
    count = max((label for _, label in labels), default=-1) + 1
    for file in (raw_dir / name for name in _CLASS_FILES):
        if file.exists():
            names = read_lines(file)
            if len(names) < count or len(set(names)) < len(names):
                raise ActcliError(f"{file} names {len(set(names))} classes, and the labels go up to {count - 1}.")
            return names
    if count > len(labels):
        raise ActcliError(f"The labels of the lists in {raw_dir} go up to {count - 1} for {len(labels)} clips.")
    folders: dict[int, set[str]] = {}
    for path, label in labels:
        folders.setdefault(label, set()).add(PurePosixPath(path).parent.name)
    names = [next(iter(folders[label])) if len(folders.get(label, ())) == 1 else "" for label in range(count)]
    is_clear = all(names) and len(set(names)) == count
    return names if is_clear else [f"class {label}" for label in range(count)]
