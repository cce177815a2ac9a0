"""Anybody's own dataset: a tree of videos or of frame folders, or lists that name them."""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import cast

from actcli.errors import ActcliError
from actcli.files import open_regular
from actcli.ingest.datasets._annotations import SPLIT_OF_WORD, VIDEO_SUFFIXES, ordered_splits
from actcli.ingest.datasets._lists import ListedClip, read_lists
from actcli.ingest.frame_names import holds_frames
from actcli.ingest.records import UNLABELLED, ClipRecord, DatasetAdapter, FlipPolicy, Listing, Storage, shown_names
from actcli.words import counted

_LARGEST_FLIP = 1 << 20
_OUR_FILES = {"flip.json", "dataset.json", "category.txt", "classes.txt"}
_EXPECTS = """\
    <class>/<any name>.mp4 …     divided into train and val, see --val-fraction and --group-by
      or train/<class>/<any name>.mp4 …, val/<class>/…, and if at hand test/<class>/…
      or any files, and one CSV file with the columns path,label or path,label,split
      or train_videofolder.txt, val_videofolder.txt with lines <path> <number of frames> <label>, as in TSN and TSM
    In place of a video file there may be a folder of numbered JPEG frames.
    flip.json, if mirroring changes classes: {"flip": "swap", "flip_swaps": [["turn left", "turn right"]]}
      or {"flip": "forbidden"}"""


@dataclass(frozen=True)
class _Tree:
    """What lies under a raw folder."""

    videos: tuple[str, ...]
    """Paths of video files with ``/``, sorted."""
    frames: tuple[str, ...]
    """Paths of folders of numbered JPEGs with ``/``, sorted."""
    others: Counter[str]
    """Suffixes of the files that are neither, or what they are in place of files; with how many there are."""


def read_listing(raw_dir: Path) -> Listing:
    """List what the lists name, or else the tree; an own dataset's clips are known by their path."""
    lists = read_lists(raw_dir)
    if lists is not None:
        return _listing(raw_dir, lists.clips, lists.classes, lists.storage, ())
    tree = _scan(raw_dir)
    paths = sorted((*tree.videos, *tree.frames))
    clips = _place(raw_dir, paths)
    if not clips:
        found = f" {len(paths)} lie in none: {shown_names(paths)}." if paths else ""
        raise ActcliError(f"{raw_dir} holds no video and no folder of frames in a class folder.{found}{_others(tree)}")
    loose = len(paths) - len(clips)
    warnings = [f"Passed over {counted(loose, 'clip')} in no class folder."] if loose else []
    if tree.others:
        warnings.append(_others(tree).strip())
    classes = sorted({clip.label for clip in clips})
    return _listing(raw_dir, clips, classes, "video" if tree.videos else "frames", warnings)


def _listing(
    raw_dir: Path, clips: Sequence[ListedClip], classes: Sequence[str], storage: Storage, warnings: Sequence[str]
) -> Listing:
    label_of = {name: label for label, name in enumerate(classes)}
    is_divided = any(clip.split for clip in clips)
    flip, flip_swaps = _read_flip(raw_dir, classes)
    return Listing(
        classes=tuple(classes),
        records=tuple(
            ClipRecord(
                source_id=clip.path,
                path=clip.path,
                label=label_of.get(clip.label, UNLABELLED),
                class_name=clip.label,
                splits={"1": clip.split} if clip.split else {},
            )
            for clip in clips
        ),
        split_sets={"1": ordered_splits(clip.split for clip in clips) if is_divided else ("train", "val")},
        storage=storage,
        is_divided=is_divided,
        flip=flip,
        flip_swaps=flip_swaps,
        warnings=(*warnings, *(_left_right_warning(classes) if flip == "allowed" else ())),
    )


def _place(raw_dir: Path, paths: Sequence[str]) -> list[ListedClip]:
    """Split and class of each path, from the folders above it; paths without a class folder are left out.

    Splits may be the outer folders (``train/wave/1.mp4``) or the inner ones (``wave/train/1.mp4``).
    """
    parts_of = {path: PurePosixPath(path).parts for path in paths}
    outer = {parts[0] for parts in parts_of.values() if len(parts) > 1}
    inner = {parts[1] if len(parts) > 2 else "" for parts in parts_of.values()}
    outer_splits = {name for name in outer if name.lower() in SPLIT_OF_WORD}
    if split_of := _split_folders(outer):
        placed = [ListedClip(path, parts[1], split_of[parts[0]]) for path, parts in parts_of.items() if len(parts) > 2]
        if placed:
            return placed
    if len({_split(name) for name in outer_splits}) > 1:
        others = sorted(outer - outer_splits) or sorted(outer)
        raise ActcliError(
            f"{raw_dir} has the split folders {', '.join(sorted(outer_splits))} and beside them {shown_names(others)}. "
            "Either all folders in it are splits with class folders below, or all are classes."
        )
    if all(name.lower() in SPLIT_OF_WORD for name in inner):
        return [ListedClip(path, parts[0], _split(parts[1])) for path, parts in parts_of.items()]
    return [ListedClip(path, parts[0], "") for path, parts in parts_of.items() if len(parts) > 1]


def _split_folders(names: set[str]) -> dict[str, str]:
    """Name to split, if all are splits and alike but for that word: ``rawframes_train`` and ``rawframes_val``."""
    split_of, rests = {}, set()
    for name in names:
        words = re.split(r"([^a-z]+)", name.lower())
        split_word = next((word for word in words if word in SPLIT_OF_WORD), "")
        split_of[name] = SPLIT_OF_WORD.get(split_word, "")
        rests.add("".join(word for word in words if word != split_word))
    is_clear = rests == {""} or len(set(split_of.values())) > 1
    return split_of if all(split_of.values()) and len(rests) == 1 and is_clear else {}


def _split(name: str) -> str:
    return SPLIT_OF_WORD[name.lower()]


def _scan(raw_dir: Path) -> _Tree:
    """Walk the tree, through links too, but into no folder twice; hidden files and folders are left out."""
    videos: list[str] = []
    frames: list[str] = []
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        status = os.stat(raw_dir / folder)
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = [entry for entry in os.scandir(raw_dir / folder) if not entry.name.startswith(".")]
        folders = [entry.name for entry in entries if entry.is_dir()]
        files = [entry for entry in entries if not entry.is_dir()]
        names = [entry.name for entry in files]
        found = [entry.name for entry in files if _is_video(entry)]
        if not found and folder and holds_frames(names):
            frames.append(folder)
            continue
        prefix = f"{folder}/" if folder else ""
        videos += [prefix + name for name in found]
        waiting += [prefix + name for name in folders]
        others.update(_kind(entry) for entry in files if entry.name not in _OUR_FILES.union(found))
    return _Tree(tuple(sorted(videos)), tuple(sorted(frames)), others)


def _is_video(entry: "os.DirEntry[str]") -> bool:
    """Whether an entry is a file with a video's suffix; a link that leads nowhere counts, pipes and devices do not."""
    if os.path.splitext(entry.name)[1].lower() not in VIDEO_SUFFIXES:
        return False
    return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))


def _kind(entry: "os.DirEntry[str]") -> str:
    """What an entry is that is no video."""
    if not entry.is_file() and os.path.exists(entry.path):
        return "pipe, socket or device"
    return os.path.splitext(entry.name)[1].lower() or "without suffix"


def _others(tree: _Tree) -> str:
    if not tree.others:
        return ""
    kinds = ", ".join(f"{count} {kind}" for kind, count in tree.others.most_common(5))
    number = tree.others.total()
    return f" Passed over {counted(number, 'file')} that {'is no video' if number == 1 else 'are no videos'}: {kinds}."


def _read_flip(raw_dir: Path, classes: Sequence[str]) -> tuple[FlipPolicy, tuple[tuple[str, str], ...]]:
    path = raw_dir / "flip.json"
    if not path.exists():
        return "allowed", ()
    try:
        with open_regular(path) as file:
            value = json.loads(file.read(_LARGEST_FLIP))
        flip, swaps = value["flip"], tuple((a, b) for a, b in value.get("flip_swaps", ()))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ActcliError(f"{path} cannot be read ({error!r}).") from None
    unknown = [name for pair in swaps for name in pair if name not in classes]
    if flip not in ("allowed", "swap", "forbidden") or unknown or (flip == "swap") != bool(swaps):
        raise ActcliError(f"{path} must hold flip (allowed, swap, forbidden) and, for swap, pairs of existing classes.")
    return cast(FlipPolicy, flip), swaps


def _left_right_warning(classes: Sequence[str]) -> Iterator[str]:
    sided = [name for name in classes if {"left", "right"} & set(name.lower().replace("_", " ").split())]
    if sided:
        yield f"Mirroring is allowed, yet the class {sided[0]!r} has a side: say in flip.json what mirroring does."


def folder_adapter(name: str, refuse: Callable[[Path], None]) -> DatasetAdapter:
    """The adapter of a user's own dataset ``raw/<name>``; ``refuse`` raises where the folder is not theirs."""
    title = "Your own videos" if name == "folder" else f"{name}, no known dataset and so one of your own videos,"
    return DatasetAdapter(
        name=name, title=title, storage="video", expects=_EXPECTS, reader=read_listing, is_own=True, refuse=refuse
    )
