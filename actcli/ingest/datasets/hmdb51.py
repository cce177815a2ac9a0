"""HMDB51: AVI videos in class folders, three official splits of 70 and 30 clips a class."""

import re
from pathlib import Path

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import first_folder, ordered_splits, read_lines
from actcli.ingest.datasets._spelling import SpellingIndex
from actcli.ingest.records import ClipRecord, DatasetAdapter, Listing

_LIST_NAME = re.compile(r"(?P<class_name>.+)_test_split(?P<split_id>[123])\.txt")
_SPLIT_OF_CODE = {"0": None, "1": "train", "2": "test"}


def read_listing(raw_dir: Path) -> Listing:
    """Read ``<class>_test_split<n>.txt``; the class is the list's name, and a clip with code 0 is in neither set."""
    folder = raw_dir / first_folder(raw_dir, ("testTrainMulti_7030_splits", "splits", "annotations", "."))
    lists = (
        {
            (match["class_name"], match["split_id"]): folder / match.string
            for match in map(_LIST_NAME.fullmatch, sorted(path.name for path in folder.iterdir() if path.is_file()))
            if match
        }
        if folder.is_dir()
        else {}
    )
    classes = sorted({class_name for class_name, _ in lists})
    missing = [f"{c}_test_split{n}.txt" for c in classes for n in "123" if (c, n) not in lists]
    if missing or not classes:
        raise ActcliError(f"{folder} lacks annotation files: {', '.join(missing[:5]) or '<class>_test_split1.txt …'}.")
    splits: dict[tuple[str, str], dict[str, str]] = {}
    for (class_name, split_id), path in lists.items():
        for line in read_lines(path):
            name, _, code = line.rpartition(" ")
            if code not in _SPLIT_OF_CODE:
                raise ActcliError(f"{path} has the line {line!r}; lines end with 0, 1 or 2. Download it again.")
            of_clip = splits.setdefault((class_name, name.strip()), {})
            if split := _SPLIT_OF_CODE[code]:
                of_clip[split_id] = split
    spelling = SpellingIndex(raw_dir / first_folder(raw_dir, ("hmdb51_org", "videos")))
    records = []
    for class_name, name in sorted(splits):
        path = spelling.root.relative_to(raw_dir) / spelling.find(f"{class_name}/{name}")
        label = classes.index(class_name)
        records.append(ClipRecord(f"{class_name}/{name}", path.as_posix(), label, class_name, splits[class_name, name]))
    split_sets = {n: ordered_splits(s.get(n, "") for s in splits.values()) for n in "123"}
    return Listing(tuple(classes), tuple(records), split_sets)


ADAPTER = DatasetAdapter(
    name="hmdb51",
    title="HMDB51",
    storage="video",
    expects="""\
    videos/<class>/*.avi     hmdb51_org.rar unpacked, then the rar of each class (hmdb51_org/<class>/ works too)
    testTrainMulti_7030_splits/<class>_test_split1.txt … 3     test_train_splits.rar unpacked""",
    reader=read_listing,
    published_counts={"classes": 51, "train1": 3570, "test1": 1530, "total": 6766},
    marks=("hmdb51_org*", "testTrainMulti_7030_splits", "*_test_split1.txt", "*/*_test_split1.txt"),
)
