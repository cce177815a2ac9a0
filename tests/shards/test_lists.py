"""Each list is read by a small reader written from the documentation of its project."""

import shutil
from pathlib import Path

import av
import cv2
import pandas as pd
import pytest

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.shards import ShardOptions, ShardSet, write_shards
from actcli.shards.lists import export_lists


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """18 training and 6 validation clips of 5 frames in six classes."""
    root = tmp_path_factory.mktemp("lists")
    make_synthetic(root / "raw", num_clips=24, size=(64, 48), num_frames=5)
    extract_dataset(ExtractOptions("tiny", root / "raw", root / "frames", short_side=0, executor="serial"))
    write_shards(ShardOptions(root / "frames", root / "shards"))
    return ShardSet.open(root / "shards")


def expected(shards, split):
    index = shards.index(split)
    return sorted((f"{key:09d}", label) for key, label in zip(index.keys.tolist(), index.labels.tolist(), strict=True))


def read_tsm(folder, split):
    """``VideoRecord``: path, frames, label; pictures from 1 as ``img_{:05d}.jpg`` below the root."""
    for line in (folder / f"{split}_videofolder.txt").read_text().splitlines():
        path, num_frames, label = line.strip().split(" ")
        assert cv2.imread(str(folder / path / f"img_{int(num_frames):05d}.jpg")).shape == (48, 64, 3)
        assert not (folder / path / f"img_{int(num_frames) + 1:05d}.jpg").exists()
        yield Path(path).name, int(label)


def read_mmaction2(folder, split):
    """``VideoDataset``: path and label below ``data_root``, divided by whitespace."""
    for line in (folder / f"{split}.txt").read_text().splitlines():
        path, label = line.strip().split()
        assert num_pictures(folder / path) == 5
        yield Path(path).stem, int(label)


def read_mmaction2_frames(folder, split):
    """``RawframeDataset``: directory, total frames, label."""
    for line in (folder / f"{split}.txt").read_text().splitlines():
        path, total, label = line.strip().split()
        assert len(list((folder / path).glob("img_*.jpg"))) == int(total)
        yield Path(path).name, int(label)


def read_slowfast(folder, split):
    """``Kinetics``: lines of path and label divided by one space (``DATA.PATH_LABEL_SEPARATOR``)."""
    for line in (folder / f"{split}.csv").read_text().splitlines():
        fields = line.split(" ")
        assert len(fields) == 2
        assert num_pictures(Path(fields[0])) == 5
        yield Path(fields[0]).stem, int(fields[1])


def read_pandas(folder, split):
    """VideoMAE's and V-JEPA 2's ``VideoDataset``: ``pd.read_csv(path, header=None, delimiter=" ")``."""
    table = pd.read_csv(folder / f"{split}.csv", header=None, delimiter=" ")
    for path, label in table.itertuples(index=False):
        assert num_pictures(Path(path)) == 5
        yield Path(path).stem, int(label)


def num_pictures(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


@pytest.mark.parametrize(
    ("project", "media", "read"),
    [
        ("tsm", None, read_tsm),
        ("mmaction2", None, read_mmaction2),
        ("mmaction2", "frames", read_mmaction2_frames),
        ("slowfast", None, read_slowfast),
        ("videomae", None, read_pandas),
        ("vjepa2", None, read_pandas),
    ],
)
def test_the_list_gives_every_clip_and_its_label(shards, tmp_path, project, media, read):
    done = export_lists(shards, project, tmp_path, media=media)
    assert (done.num_clips, done.num_unlabelled) == (24, 0)
    for split in ("train", "val"):
        assert sorted(read(tmp_path, split)) == expected(shards, split)
    if project in ("slowfast", "videomae"):
        assert (tmp_path / "test.csv").read_text() == (tmp_path / "val.csv").read_text()


def test_what_is_kept_in_the_folder_is_of_the_same_shards(shards, tmp_path):
    root, out_dir = tmp_path / "other", tmp_path / "lists"
    make_synthetic(root / "raw", num_clips=12, size=(64, 48), num_frames=5, seed=1)
    extract_dataset(ExtractOptions("tiny", root / "raw", root / "frames", short_side=0, executor="serial"))
    write_shards(ShardOptions(root / "frames", root / "shards"))
    export_lists(ShardSet.open(root / "shards"), "tsm", out_dir)
    with pytest.raises(ActcliError, match="holds frames or videos that are not of these shards"):
        export_lists(shards, "tsm", out_dir)
    export_lists(ShardSet.open(root / "shards"), "tsm", out_dir)  # its own are kept
    shutil.rmtree(out_dir / "frames")
    export_lists(shards, "tsm", out_dir)
    assert len(list((out_dir / "frames").iterdir())) == 24


def test_classes_are_named_in_the_order_of_the_labels(shards, tmp_path):
    export_lists(shards, "tsm", tmp_path)
    assert (tmp_path / "category.txt").read_text().splitlines() == list(shards.card.classes)


def test_frames_are_the_bytes_of_the_shards(shards, tmp_path):
    export_lists(shards, "tsm", tmp_path)
    clip = shards.index("val").clip(0)
    sizes = [(tmp_path / "frames" / clip.key / f"img_{n:05d}.jpg").stat().st_size for n in range(1, 6)]
    assert sizes == clip.frame_sizes.tolist()


@pytest.mark.parametrize(
    ("project", "media", "folder", "message"),
    [
        ("tsm", "mp4", "out", "tsm does not read mp4; allowed are: frames"),
        ("slowfast", None, "with space", "has a space in it, where slowfast divides a line"),
        ("torch", None, "out", "project is 'torch'; allowed are: tsm"),
    ],
)
def test_what_no_reader_could_read_is_refused(shards, tmp_path, project, media, folder, message):
    with pytest.raises(ActcliError, match=message):
        export_lists(shards, project, tmp_path / folder, media=media)
