"""UCF101: AVI videos in class folders, three official splits."""

from pathlib import Path, PurePosixPath

from actcli.errors import ActcliError
from actcli.ingest.datasets._annotations import AnnotationFiles, first_folder, ordered_splits, read_lines
from actcli.ingest.datasets._spelling import SpellingIndex, folded
from actcli.ingest.records import ClipRecord, DatasetAdapter, Listing

_FOLDERS = ("ucfTrainTestlist", ".", "UCF101TrainTestSplits-RecognitionTask/ucfTrainTestlist", "annotations")


def read_listing(raw_dir: Path) -> Listing:
    """Read ``classInd.txt`` and the three pairs of lists; the class is the list's folder, never the file's name."""
    files = AnnotationFiles(raw_dir, _FOLDERS)
    class_file = files.find(("classInd.txt",))
    lists = {
        (split_id, split): files.find((f"{split}list0{split_id}.txt",))
        for split_id in "123"
        for split in ("train", "test")
    }
    class_path, *_ = files.need((class_file, *lists.values()))
    classes = _read_classes(class_path)
    splits: dict[str, dict[str, str]] = {}
    for (split_id, split), path in lists.items():
        for line in read_lines(path) if path else ():
            source_id = line.rsplit(None, 1)[0] if split == "train" else line
            splits.setdefault(source_id, {})[split_id] = split
    spelling = SpellingIndex(raw_dir / first_folder(raw_dir, ("UCF-101", "videos")))
    label_of = {folded(name): label for label, name in enumerate(classes)}
    unknown = sorted(s for s in splits if folded(PurePosixPath(s).parent.name) not in label_of)
    if unknown:
        raise ActcliError(f"{len(unknown)} clips lie in folders that {class_path} does not name: {unknown[0]}, ….")
    records = []
    for source_id in sorted(splits):
        label = label_of[folded(PurePosixPath(source_id).parent.name)]
        actual = spelling.root.relative_to(raw_dir) / spelling.find(source_id)
        records.append(ClipRecord(source_id, actual.as_posix(), label, classes[label], splits[source_id]))
    split_sets = {split_id: ordered_splits(s.get(split_id, "") for s in splits.values()) for split_id in "123"}
    return Listing(tuple(classes), tuple(records), split_sets)


def _read_classes(path: Path) -> list[str]:
    """Names in the order of their index, which counts from 1."""
    numbered = []
    for line in read_lines(path):
        number, name = (*line.split(None, 1), "")[:2]
        if not number.isdecimal() or not name:
            raise ActcliError(f"{path} has the line {line[:80]!r}; lines are a number and a class. Download it again.")
        numbered.append((int(number), name))
    numbered.sort()
    if [number for number, _ in numbered] != list(range(1, len(numbered) + 1)):
        raise ActcliError(f"The class numbers in {path} do not run from 1 to {len(numbered)}; download it again.")
    return [name for _, name in numbered]


ADAPTER = DatasetAdapter(
    name="ucf101",
    title="UCF101",
    storage="video",
    expects="""\
    UCF-101/<Class>/v_<Class>_g01_c01.avi     UCF101.rar unpacked
    ucfTrainTestlist/classInd.txt, trainlist01.txt … 03, testlist01.txt … 03""",
    reader=read_listing,
    published_counts={"classes": 101, "train1": 9537, "test1": 3783, "total": 13320},
    marks=("UCF-101", "ucfTrainTestlist", "trainlist01.txt", "*/trainlist01.txt"),
)
