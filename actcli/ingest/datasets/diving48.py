"""Diving48: mp4 videos of single dives, the class in the order of take-off, somersaults, twists and flight position."""

from collections.abc import Sequence
from pathlib import Path

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import AnnotationFiles, Entry, first_folder, read_json, single_split_listing
from actcli.ingest.records import DatasetAdapter, Listing

_FOLDERS = (".", "labels", "annotations")


def read_listing(raw_dir: Path) -> Listing:
    """Read the lists of version 2, or of version 1 where only those are there."""
    files = AnnotationFiles(raw_dir, _FOLDERS)
    vocabulary = files.find(("Diving48_vocab.json",))
    train = files.find(("Diving48_V2_train.json", "Diving48_train.json"))
    test = files.find(("Diving48_V2_test.json", "Diving48_test.json"))
    vocabulary, train, test = files.need((vocabulary, train, test))
    if train.name.startswith("Diving48_V2") != test.name.startswith("Diving48_V2"):
        raise ActcliError(
            f"{train} and {test} are of different versions, whose labels differ. Bring both lists of version 2."
        )
    classes = [_class_name(parts, vocabulary) for parts in read_json(vocabulary, list)]
    entries = [
        _entry(item, split, path, classes)
        for split, path in (("train", train), ("test", test))
        for item in read_json(path, list)
    ]
    folder = first_folder(raw_dir, ("rgb", "videos"))
    return single_split_listing(entries, classes, lambda entry: f"{folder}/{entry.source_id}.mp4")


def _class_name(parts: object, path: Path) -> str:
    """``["Back", "15som", "05Twis", "FREE"]`` in one line."""
    if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
        raise ActcliError(f"{path} holds {str(parts)[:80]!r} where the four words of a class are expected.")
    return " ".join(parts)


def _entry(item: object, split: str, path: Path, classes: Sequence[str]) -> Entry:
    """One object of a list: ``{"vid_name": "zYHstCxnAPA_00361", "label": 26, "start_frame": 0, "end_frame": 151}``.

    The videos are cut already; the frame numbers say how long they are.
    """
    values = item if isinstance(item, dict) else {}
    name, label = values.get("vid_name"), values.get("label")
    if not isinstance(name, str) or not isinstance(label, int) or isinstance(label, bool):
        raise ActcliError(f"{path} holds {str(item)[:80]!r} where an object with vid_name and label is expected.")
    if not 0 <= label < len(classes):
        raise ActcliError(f"{path} gives {name} the label {label}; the vocabulary has {len(classes)} classes.")
    return Entry(name, split, classes[label])


ADAPTER = DatasetAdapter(
    name="diving48",
    title="Diving48",
    storage="video",
    expects="""\
    rgb/<name>.mp4                                  the videos of Diving48_rgb.tar.gz
    Diving48_vocab.json, Diving48_V2_train.json, Diving48_V2_test.json
      (or version 1: Diving48_train.json, Diving48_test.json)""",
    reader=read_listing,
    published_counts={"classes": 48, "train": 15027, "test": 1970, "total": 16997},
    marks=("Diving48_*", "*/Diving48_*"),
)
