"""Jester V1: hand gestures as folders of JPEG frames at 12 frames a second, 100 pixels high."""

from pathlib import Path

from actcli.ingest.datasets._annotations import (
    AnnotationFiles,
    check_class_names,
    first_folder,
    read_lines,
    semicolon_entries,
    single_split_listing,
)
from actcli.ingest.records import DatasetAdapter, Listing

_STEM = "jester-v1"


def read_listing(raw_dir: Path) -> Listing:
    """Read ``jester-v1-*.csv`` or ``labels/*.csv``; classes keep the order of the label file."""
    files = AnnotationFiles(raw_dir, (".", "labels", "annotations"))
    labels = files.find((f"{_STEM}-labels.csv", "labels.csv"))
    splits = {
        "train": files.find((f"{_STEM}-train.csv", "train.csv")),
        "val": files.find((f"{_STEM}-validation.csv", "validation.csv")),
        "test": files.find((f"{_STEM}-test.csv", "test.csv"), required=False),
    }
    answers = files.find((f"{_STEM}-test-answers.csv", "test-answers.csv"), required=False)
    labels_path, *_ = files.need((labels, splits["train"], splits["val"]))
    classes = read_lines(labels_path)
    entries = semicolon_entries({split: path for split, path in splits.items() if path}, answers)
    check_class_names(entries, classes, labels_path)
    folder = first_folder(raw_dir, ("20bn-jester-v1", "frames"))
    return single_split_listing(
        entries, classes, lambda entry: f"{folder}/{entry.source_id}", storage="frames", flip="forbidden"
    )


ADAPTER = DatasetAdapter(
    name="jester",
    title="Jester V1",
    storage="frames",
    expects="""\
    20bn-jester-v1/<id>/00001.jpg …     one folder of frames a clip (join and untar the parts)
    jester-v1-labels.csv, -train.csv, -validation.csv, and if at hand -test.csv
      (or the newer package: labels/labels.csv, train.csv, validation.csv, test.csv, test-answers.csv)""",
    reader=read_listing,
    published_counts={"classes": 27, "train": 118562, "val": 14787, "test": 14743, "total": 148092},
    flip="forbidden",
    fps=12.0,
    marks=("20bn-jester-v1*", "jester-v1-*", "*/jester-v1-*"),
)
