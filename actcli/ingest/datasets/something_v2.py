"""Something-Something V2: WebM videos, one class per caption template."""

import json
from pathlib import Path
from typing import Any

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import (
    AnnotationFiles,
    Entry,
    check_class_names,
    first_folder,
    plain_template,
    read_lines,
    single_split_listing,
)
from actcli.ingest.records import DatasetAdapter, Listing

FLIP_SWAPS = (
    ("Pulling something from left to right", "Pulling something from right to left"),
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Turning the camera left while filming something", "Turning the camera right while filming something"),
)
"""Classes that mirroring exchanges, in V1 as in V2."""

_OLD = "something-something-v2"
_FOLDERS = (".", "labels", "annotations")


def read_listing(raw_dir: Path) -> Listing:
    """Read either package: ``labels/*.json`` or the older ``something-something-v2-*.json``."""
    files = AnnotationFiles(raw_dir, _FOLDERS)
    labels = files.find(("labels.json", f"{_OLD}-labels.json"))
    train = files.find(("train.json", f"{_OLD}-train.json"))
    val = files.find(("validation.json", f"{_OLD}-validation.json"))
    test = files.find(("test.json", f"{_OLD}-test.json"), required=False)
    answers = files.find(("test-answers.csv", f"{_OLD}-test-answers.csv"), required=False)
    labels_path, *_ = files.need((labels, train, val))
    classes = sorted(_read_json(labels_path, dict))
    answer_of = dict(line.split(";", 1) for line in read_lines(answers)) if answers else {}
    entries = [
        Entry(
            str(item["id"]), split, plain_template(item.get("template") or answer_of.get(str(item["id"]), "")) or None
        )
        for split, path in (("train", train), ("val", val), ("test", test))
        if path is not None
        for item in _read_json(path, list)
    ]
    check_class_names(entries, classes, labels_path)
    folder = first_folder(raw_dir, ("20bn-something-something-v2", "videos"))
    return single_split_listing(
        entries, classes, lambda entry: f"{folder}/{entry.source_id}.webm", flip="swap", flip_swaps=FLIP_SWAPS
    )


def _read_json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:
        raise ActcliError(f"{path} is not a JSON file ({error}); download it again.") from error
    if not isinstance(value, kind):
        raise ActcliError(f"{path} holds a {type(value).__name__} where the official file holds a {kind.__name__}.")
    return value


ADAPTER = DatasetAdapter(
    name="sthv2",
    title="Something-Something V2",
    storage="video",
    expects="""\
    20bn-something-something-v2/<id>.webm     all videos in one folder (join and untar the parts)
    labels/labels.json, train.json, validation.json, and if at hand test.json, test-answers.csv
      (or the older package: something-something-v2-labels.json, -train.json, -validation.json, -test.json)""",
    reader=read_listing,
    published_counts={"classes": 174, "train": 168913, "val": 24777, "test": 27157, "total": 220847},
    flip="swap",
    flip_swaps=FLIP_SWAPS,
)
