"""Something-Something V2: WebM videos, one class per caption template."""

from collections.abc import Mapping
from pathlib import Path

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import (
    AnnotationFiles,
    Entry,
    check_class_names,
    first_folder,
    id_and_class,
    plain_template,
    read_json,
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
    classes = sorted(read_json(labels_path, dict))
    answer_of = dict(map(id_and_class, read_lines(answers))) if answers else {}
    entries = [
        _entry(item, split, path, answer_of)
        for split, path in (("train", train), ("val", val), ("test", test))
        if path is not None
        for item in read_json(path, list)
    ]
    check_class_names(entries, classes, labels_path)
    folder = first_folder(raw_dir, ("20bn-something-something-v2", "videos"))
    return single_split_listing(
        entries, classes, lambda entry: f"{folder}/{entry.source_id}.webm", flip="swap", flip_swaps=FLIP_SWAPS
    )


def _entry(item: object, split: str, path: Path, answer_of: Mapping[str, str | None]) -> Entry:
    """One object of a list: ``{"id": "78687", "template": "Holding [something]"}``, in test lists the id alone."""
    values = item if isinstance(item, dict) else {}
    source_id, template = values.get("id"), values.get("template") or ""
    if not isinstance(source_id, str | int) or not isinstance(template, str):
        raise ActcliError(f"{path} holds {str(item)[:80]!r} where an object with id and template is expected.")
    return Entry(str(source_id), split, plain_template(template or answer_of.get(str(source_id)) or "") or None)


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
    marks=(
        "20bn-something-something-v2*",
        "something-something-v2-*",
        "*/something-something-v2-*",
        "labels/train.json",
    ),
)
