"""Something-Something V1: folders of JPEG frames at 12 frames a second, 100 pixels high."""

from pathlib import Path

from actcli.ingest.datasets._annotations import (
    AnnotationFiles,
    check_class_names,
    first_folder,
    read_lines,
    semicolon_entries,
    single_split_listing,
)
from actcli.ingest.datasets.something_v2 import FLIP_SWAPS
from actcli.ingest.records import DatasetAdapter, Listing

_STEM = "something-something-v1"


def read_listing(raw_dir: Path) -> Listing:
    """Read the csv files; classes are the sorted labels, as in the TSM family (the label file is not sorted)."""
    files = AnnotationFiles(raw_dir, (".", "labels", "annotations"))
    labels = files.find((f"{_STEM}-labels.csv",))
    splits = {
        "train": files.find((f"{_STEM}-train.csv",)),
        "val": files.find((f"{_STEM}-validation.csv",)),
        "test": files.find((f"{_STEM}-test.csv",), required=False),
    }
    labels_path, *_ = files.need((labels, splits["train"], splits["val"]))
    classes = sorted(read_lines(labels_path))
    entries = semicolon_entries({split: path for split, path in splits.items() if path}, None)
    check_class_names(entries, classes, labels_path)
    folder = first_folder(raw_dir, ("20bn-something-something-v1", "frames"))
    return single_split_listing(
        entries,
        classes,
        lambda entry: f"{folder}/{entry.source_id}",
        storage="frames",
        flip="swap",
        flip_swaps=FLIP_SWAPS,
    )


ADAPTER = DatasetAdapter(
    name="sthv1",
    title="Something-Something V1",
    storage="frames",
    expects="""\
    20bn-something-something-v1/<id>/00001.jpg …     one folder of frames a clip (join and untar the parts)
    something-something-v1-labels.csv, -train.csv, -validation.csv, and if at hand -test.csv""",
    reader=read_listing,
    published_counts={"classes": 174, "train": 86017, "val": 11522, "test": 10960, "total": 108499},
    flip="swap",
    flip_swaps=FLIP_SWAPS,
    fps=12.0,
    marks=("20bn-something-something-v1*", "something-something-v1-*", "*/something-something-v1-*"),
)
