"""Anybody's own videos: one folder a class, with or without train, val and test folders above."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import VIDEO_SUFFIXES, ordered_splits
from actcli.ingest.records import ClipRecord, DatasetAdapter, Listing

_SPLIT_OF_FOLDER = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_TRAIN_SHARE = 0.8
_EXPECTS = """\
    <class>/<any name>.mp4 …     a hash of the path puts four clips in five into train, the others into val
      or train/<class>/<any name>.mp4 …, val/<class>/…, and if at hand test/<class>/…
    flip.json, if mirroring changes classes: {"flip": "swap", "flip_swaps": [["turn left", "turn right"]]}
      or {"flip": "forbidden"}"""


def read_listing(raw_dir: Path) -> Listing:
    """List ``class/video`` or ``split/class/video``; classes are sorted, and the hash of the path decides the split."""
    paths = [PurePosixPath(path) for path in _videos(raw_dir)]
    tops = {path.parts[0] for path in paths if len(path.parts) > 1}
    has_splits = "train" in tops and tops <= _SPLIT_OF_FOLDER.keys()
    clips = []
    for path in paths:
        split, names = _hashed_split(str(path)), path.parts
        if has_splits:
            split, names = _SPLIT_OF_FOLDER.get(names[0], ""), names[1:]
        if len(names) >= 2:
            clips.append((str(path), split, names[0]))
    if not clips:
        raise ActcliError(f"{raw_dir} holds no video in a class folder.")
    classes = sorted({class_name for _, _, class_name in clips})
    flip, flip_swaps = _read_flip(raw_dir, classes)
    return Listing(
        classes=tuple(classes),
        records=tuple(ClipRecord(p, p, classes.index(name), name, {"1": split}) for p, split, name in clips),
        split_sets={"1": ordered_splits(split for _, split, _ in clips)},
        flip=flip,
        flip_swaps=flip_swaps,
        warnings=_left_right_warning(classes) if flip == "allowed" else (),
    )


def _videos(raw_dir: Path) -> Iterator[str]:
    """Paths of all video files with ``/``, sorted; hidden files and folders are left out."""
    found = []
    for folder, subfolders, names in os.walk(raw_dir, followlinks=True):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES:
                found.append((Path(folder) / name).relative_to(raw_dir).as_posix())
    return iter(sorted(found))


def _hashed_split(path: str) -> str:
    """``"train"`` or ``"val"``, drawn from the path alone, so that a clip stays in its split as the folder grows."""
    digest = hashlib.sha256(os.fsencode(path)).digest()
    return "train" if int.from_bytes(digest[:8], "big") < _TRAIN_SHARE * 2**64 else "val"


def _read_flip(raw_dir: Path, classes: list[str]) -> tuple[Any, tuple[tuple[str, str], ...]]:
    path = raw_dir / "flip.json"
    if not path.is_file():
        return "allowed", ()
    try:
        value = json.loads(path.read_text("utf-8"))
        flip, swaps = value["flip"], tuple((a, b) for a, b in value.get("flip_swaps", ()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ActcliError(f"{path} cannot be read ({error!r}).") from None
    unknown = [name for pair in swaps for name in pair if name not in classes]
    if flip not in ("allowed", "swap", "forbidden") or unknown or (flip == "swap") != bool(swaps):
        raise ActcliError(f"{path} must hold flip (allowed, swap, forbidden) and, for swap, pairs of existing classes.")
    return flip, swaps


def _left_right_warning(classes: list[str]) -> tuple[str, ...]:
    sided = [name for name in classes if {"left", "right"} & set(name.lower().replace("_", " ").split())]
    if not sided:
        return ()
    return (
        f"Mirroring is allowed, yet the class {sided[0]!r} has a side: say in flip.json what mirroring does to it.",
    )


def folder_adapter(name: str) -> DatasetAdapter:
    """The adapter of a user's own dataset ``raw/<name>``."""
    title = "Your own videos" if name == "folder" else f"{name}, no known dataset and so one of your own videos,"
    return DatasetAdapter(name=name, title=title, storage="video", expects=_EXPECTS, reader=read_listing)
