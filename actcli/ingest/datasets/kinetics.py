"""Kinetics-400, -600 and -700: ten-second clips of online videos, named in one csv file a split."""

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import (
    SPLIT_OF_WORD,
    VIDEO_SUFFIXES,
    ordered_splits,
    read_lines,
    repeat_warning,
    split_in_name,
)
from actcli.ingest.records import UNLABELLED, ClipRecord, DatasetAdapter, Listing

_LIST_NAME = re.compile(r"(?:kinetics[-_]?\d*[-_])?(?P<word>train|val|validate|validation|test)\.(?:csv|txt)")
_MAX_SECONDS = 1e6  # what six digits hold


class _Row(NamedTuple):
    names: tuple[str, ...]
    """As ``clip_names`` gives them."""
    start: float
    end: float
    split: str
    class_name: str


def read_listing(raw_dir: Path) -> Listing:
    """Read the csv files; classes are the sorted label texts, and folders and their spelling mean nothing."""
    rows: dict[str, _Row] = {}
    repeated = []
    for split, list_path in _find_lists(raw_dir).items():
        for row in _read_rows(list_path, split):
            source_id = row.names[0]
            if rows.setdefault(source_id, row) is not row:
                repeated.append(source_id)
    classes = sorted({row.class_name for row in rows.values() if row.class_name})
    label_of = {name: label for label, name in enumerate(classes)}
    sides = {split: {"1": split} for split in SPLIT_OF_WORD.values()}
    videos = _index_videos(raw_dir)
    records = []
    for source_id in sorted(rows):
        row = rows[source_id]
        path, is_whole_video = _find_video(row, videos)
        records.append(
            ClipRecord(
                source_id=source_id,
                path=path,
                label=label_of.get(row.class_name, UNLABELLED),
                class_name=row.class_name,
                splits=sides[row.split],
                start=row.start if is_whole_video else None,
                end=row.end if is_whole_video else None,
                other_names=row.names[1:],
            )
        )
    split_sets = {"1": ordered_splits(row.split for row in rows.values())}
    return Listing(tuple(classes), tuple(records), split_sets, warnings=tuple(repeat_warning(repeated)))


def is_list(path: Path) -> bool:
    """Whether a csv file is one of Kinetics: of YouTube ids and times."""
    is_named = _LIST_NAME.fullmatch(path.name) is not None and path.is_file()
    return is_named and "youtube_id" in (read_lines(path) or [""])[0]


def _find_lists(raw_dir: Path) -> dict[str, Path]:
    """Split to its file, in the raw folder or one below; where a split has txt and csv, the txt (Kinetics-600)."""
    found: dict[str, list[Path]] = {}
    for folder in (raw_dir, *sorted(path for path in raw_dir.iterdir() if path.is_dir())):
        for path in sorted(folder.glob("*.txt")) + sorted(folder.glob("*.csv")):
            if match := _LIST_NAME.fullmatch(path.name):
                found.setdefault(SPLIT_OF_WORD[match["word"]], []).append(path)
    problems = [f"no {split}.csv" for split in ("train", "val") if split not in found]
    for split, paths in found.items():
        others = [path for path in paths[1:] if path.stem != paths[0].stem or path.parent != paths[0].parent]
        if others:
            problems.append(f"two lists for {split}, {paths[0]} and {others[0]}: remove one")
    if problems:
        raise ActcliError(f"{raw_dir} has {'; '.join(problems)}.")
    return {split: found[split][0] for split in ("train", "val", "test") if split in found}


def _read_rows(path: Path, split: str) -> Iterator[_Row]:
    """Rows of one csv; the label column may be absent (older test lists), and times may be written as floats."""
    rows = _numbered_rows(path)
    header = [name.strip() for name in next(rows, (1, []))[1]]
    if not {"youtube_id", "time_start", "time_end"} <= set(header):
        raise ActcliError(
            f"{path} begins with {','.join(header)!r}; its first line must name the columns "
            "label,youtube_id,time_start,time_end,split."
        )
    id_at, start_at, end_at = (header.index(name) for name in ("youtube_id", "time_start", "time_end"))
    label_at = header.index("label") if "label" in header else len(header)
    for number, cells in rows:
        try:
            start, end = float(cells[start_at]), float(cells[end_at])
            if not 0 <= start <= end < _MAX_SECONDS:
                raise ValueError
            names = clip_names(cells[id_at].strip(), round(start), round(end))
        except (LookupError, ValueError):
            shown = dict(zip(header, cells, strict=False))
            raise ActcliError(f"{path}, line {number}: {shown} has no times in seconds.") from None
        yield _Row(names, start, end, split, cells[label_at].strip() if label_at < len(cells) else "")


def clip_names(youtube_id: str, start: int, end: int) -> tuple[str, ...]:
    """The official name of a clip, then those of other crawlers and frame extractors, exact ones first.

    Times are in seconds; the last name is the id of the online video.
    """
    begin = f"{youtube_id}_{start:06d}"
    return (f"{begin}_{end:06d}", f"{youtube_id}_{start}_{end}", begin, f"{youtube_id}_{start}", youtube_id)


def _numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO("\n".join(read_lines(path)), newline=""))
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise ActcliError(f"{path}, line {reader.line_num}: {error}.") from None


def _index_videos(raw_dir: Path) -> dict[str, list[str]]:
    """File stem to the paths that have it, relative to the raw folder, sorted."""
    videos: dict[str, list[str]] = {}
    for folder, subfolders, names in os.walk(raw_dir, followlinks=True):
        subfolders.sort()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES:
                videos.setdefault(stem, []).append((Path(folder) / name).relative_to(raw_dir).as_posix())
    return videos


def _find_video(row: _Row, videos: Mapping[str, list[str]]) -> tuple[str, bool]:
    """Path of the clip by the first of its names that is there, and whether that is the whole online video's.

    The names are built from the annotation and looked up; an id may begin with or contain ``-`` and ``_``.
    """
    for name in row.names:
        if name in videos:
            return _of_split(videos[name], row.split), name == row.names[-1]
    return f"{row.split}/{row.class_name}/{row.names[0]}.mp4", False


def _of_split(paths: list[str], split: str) -> str:
    """The path below a folder named after the split (``validate``, ``videos_val``, ``train_256``), or the first."""
    for path in paths:
        if any(split_in_name(part) == split for part in PurePosixPath(path).parts[:-1]):
            return path
    return paths[0]


def _adapter(num_classes: int, counts: Mapping[str, int]) -> DatasetAdapter:
    return DatasetAdapter(
        name=f"kinetics{num_classes}",
        title=f"Kinetics-{num_classes}",
        storage="video",
        expects="""\
    <any folders>/<youtube id>_<start>_<end>.mp4     start and end as six digits; class folders or flat
      (older names work too: <youtube id>_<start>.mp4, <youtube id>.mp4)
    annotations/train.csv, val.csv (or validate.csv), and if at hand test.csv     csv, not json""",
        reader=read_listing,
        published_counts={"classes": num_classes, **counts},
    )


ADAPTERS = (
    _adapter(400, {"train": 246500, "val": 19900, "test": 38700, "total": 306245}),
    _adapter(600, {"train": 392000, "val": 30000, "test": 60000, "total": 495547}),
    _adapter(700, {"train": 545000, "val": 35000, "test": 70000, "total": 650000}),
)
