import re
import shutil
from dataclasses import replace
from fractions import Fraction

import av
import pytest

from actcli.errors import ActcliError
from actcli.ingest import DatasetCard, SplitRule, extract_dataset
from actcli.ingest.inspect import inspect_dataset


@pytest.fixture
def raw_copy(tiny_raw, tmp_path):
    return shutil.copytree(tiny_raw, tmp_path / "raw")


def test_page_tells_counts_classes_and_flow(tiny_options, tmp_path):
    options = tiny_options()
    extract_dataset(options)
    extract_dataset(tiny_options(modality="flow"))
    report = inspect_dataset(options.frames_dir, tmp_path / "out" / "page.html")
    page = report.path.read_text("utf-8")
    assert (report.num_clips, report.num_failed, report.leaks) == (24, 0, ())
    assert "6 classes" in page and "moving left" in page and "8 to 8, median 8" in page
    assert page.count("url(data:image/webp;base64,") == 6 * (1 + 2)  # contact sheet, frames and flow of each class
    assert "64 × 48" in page
    assert "None: no two clips of different splits" in page


def test_page_needs_nothing_from_elsewhere(tiny_options, tmp_path):
    options = tiny_options()
    extract_dataset(options)
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert not re.search(r"url\((?!data:|#)", page)


def test_lost_clips_are_counted_by_split_and_by_reason(raw_copy, tiny_options, tmp_path):
    for number in range(3):
        (raw_copy / f"train/growing/broken{number}.mp4").write_bytes(b"")
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    text = words(inspect_dataset(options.frames_dir, tmp_path / "page.html").path)
    assert "train 21 18 3 0 85.7 %" in text
    assert re.search(r"3 failed \w+ \w+ train/growing/broken0.mp4, train/growing/broken1.mp4", text)


def words(path):
    """The text of a page between its tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", path.read_text("utf-8")).split())


def test_a_page_of_many_classes_stays_small(tiny_options, tmp_path):
    options = tiny_options()
    extract_dataset(options)
    card = DatasetCard.read(options.frames_dir)
    many = tuple(f"class {number}" for number in range(3000))
    replace(card, classes=(*card.classes, *many)).write(options.frames_dir)
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert "and 2\u202f006 more classes" in page
    assert "class 2999" not in page


def test_equal_clips_in_train_and_val_are_a_leak(raw_copy, tiny_options, tmp_path):
    shutil.copy(raw_copy / "train/growing/00004.mp4", raw_copy / "val/growing/copy.mp4")
    shutil.copy(raw_copy / "train/growing/00004.mp4", raw_copy / "train/growing/copy.mp4")
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    (leak,) = inspect_dataset(options.frames_dir, tmp_path / "page.html").leaks
    assert (leak.split_set, leak.splits, leak.what) == ("1", ("train", "val"), "same frames")
    assert set(leak.clips) == {"train/growing/00004.mp4", "train/growing/copy.mp4", "val/growing/copy.mp4"}


def test_a_group_of_ucf101_in_both_splits_is_a_leak(tiny_raw, tiny_options, tmp_path):
    clips = sorted(tiny_raw.rglob("*.mp4"))
    raw = tmp_path / "raw"
    names = ["v_Archery_g01_c01.avi", "v_Archery_g01_c02.avi", "v_Archery_g02_c01.avi"]
    (raw / "ucfTrainTestlist").mkdir(parents=True)
    (raw / "UCF-101/Archery").mkdir(parents=True)
    for name, clip in zip(names, clips, strict=False):
        shutil.copy(clip, raw / "UCF-101/Archery" / name)
    (raw / "ucfTrainTestlist/classInd.txt").write_text("1 Archery\n")
    for split_id, test in (("1", names[1:2]), ("2", names[2:]), ("3", names[2:])):
        train = "".join(f"Archery/{name} 1\n" for name in names if name not in test)
        (raw / f"ucfTrainTestlist/trainlist0{split_id}.txt").write_text(train)
        (raw / f"ucfTrainTestlist/testlist0{split_id}.txt").write_text("".join(f"Archery/{name}\n" for name in test))
    options = tiny_options(dataset="ucf101", raw_dir=raw)
    extract_dataset(options)
    (leak,) = inspect_dataset(options.frames_dir, tmp_path / "page.html").leaks
    assert (leak.split_set, leak.what) == ("1", "same recording")
    assert leak.clips == tuple(f"Archery/{name}" for name in names[:2])


def test_names_are_escaped(raw_copy, tiny_options, tmp_path):
    evil = "<script>alert(1)<&\"'.mp4"
    shutil.copy(raw_copy / "train/growing/00004.mp4", raw_copy / "val/growing" / evil)
    (raw_copy / "train/growing" / evil).write_bytes(b"")
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;&amp;&#34;&#39;.mp4") == 3  # a leak, a reason, a failed clip


def test_layout_folders_is_shown_too(tiny_options, tmp_path):
    options = tiny_options(layout="folders")
    extract_dataset(options)
    extract_dataset(tiny_options(layout="folders", modality="flow"))
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert page.count("url(data:image/webp;base64,") == 6 * (1 + 2)


def test_without_an_extraction_the_error_says_what_to_run(tmp_path):
    with pytest.raises(ActcliError, match="run actcli extract"):
        inspect_dataset(tmp_path, tmp_path / "page.html")


def reencode(source, target):
    """The same pictures at half the size and a low quality."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream("mpeg4", rate=Fraction(12), options={"qscale": "12"})
        frames = [frame.to_ndarray(format="rgb24")[::2, ::2] for frame in old.decode(video=0)]
        stream.height, stream.width = frames[0].shape[:2]
        for frame in frames:
            new.mux(stream.encode(av.VideoFrame.from_ndarray(frame.copy(), format="rgb24")))
        new.mux(stream.encode())


def test_a_reencoded_copy_in_the_other_split_is_a_leak(raw_copy, tiny_options, tmp_path):
    reencode(raw_copy / "train/growing/00004.mp4", raw_copy / "val/growing/copy.avi")
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    report = inspect_dataset(options.frames_dir, tmp_path / "page.html")
    (leak,) = report.leaks
    assert (leak.splits, leak.what) == (("train", "val"), "nearly the same pictures")
    assert set(leak.clips) == {"train/growing/00004.mp4", "val/growing/copy.avi"}
    assert "nearly the same pictures" in report.path.read_text("utf-8")


def test_equal_clips_of_different_classes_are_named(raw_copy, tiny_options, tmp_path):
    shutil.copy(raw_copy / "train/growing/00004.mp4", raw_copy / "train/shrinking/copy.mp4")
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    report = inspect_dataset(options.frames_dir, tmp_path / "page.html")
    (conflict,) = report.conflicts
    assert conflict.clips == ("train/growing/00004.mp4", "train/shrinking/copy.mp4")
    assert conflict.classes == ("growing", "shrinking")
    assert "Labels in conflict" in report.path.read_text("utf-8")


def test_recordings_of_own_clips_on_both_sides_are_leaks(raw_copy, tiny_options, tmp_path):
    for split in ("train", "val"):
        next((raw_copy / split / "growing").iterdir()).rename(raw_copy / split / "growing" / f"tape7 {split}.mp4")
    options = tiny_options(raw_dir=raw_copy, split_rule=SplitRule(group_by=r"tape\d"))
    assert "1 recordings by --group-by lie in several splits: 'tape7'." in extract_dataset(options).warnings
    (leak,) = inspect_dataset(options.frames_dir, tmp_path / "page.html").leaks
    assert (leak.what, len(leak.clips)) == ("same recording", 2)


def test_a_damaged_manifest_is_said_to_be_damaged(tiny_options, tmp_path):
    options = tiny_options()
    extract_dataset(options)
    manifest = options.frames_dir / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes()[:-100])
    with pytest.raises(ActcliError, match=r"manifest\.parquet is damaged"):
        inspect_dataset(options.frames_dir, tmp_path / "page.html")


def test_a_place_that_cannot_be_written_to_is_refused(tiny_options, tmp_path):
    options = tiny_options()
    extract_dataset(options)
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "file" / "page.html", tmp_path / "folder"):
        with pytest.raises(ActcliError, match=r"Name a file with --out|nothing can be written"):
            inspect_dataset(options.frames_dir, place)
