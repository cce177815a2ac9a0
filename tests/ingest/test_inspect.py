import re
import shutil

import pytest

from actcli.errors import ActcliError
from actcli.ingest import extract_dataset
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
    assert page.count("data:image/jpeg;base64,") == 6 * (6 + 6)
    assert "64 × 48" in page
    assert "None: no two clips of different splits" in page


def test_page_needs_nothing_from_elsewhere(tiny_options, tmp_path):
    options = tiny_options()
    extract_dataset(options)
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "url(" not in page


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
    assert (leak.split_set, leak.what) == ("1", "same group")
    assert leak.clips == tuple(f"Archery/{name}" for name in names[:2])


def test_names_are_escaped(raw_copy, tiny_options, tmp_path):
    evil = "<script>alert(1)<&\"'.mp4"
    shutil.copy(raw_copy / "train/growing/00004.mp4", raw_copy / "val/growing" / evil)
    (raw_copy / "train/growing" / evil).write_bytes(b"")
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;&amp;&#34;&#39;.mp4") == 2


def test_layout_folders_is_shown_too(tiny_options, tmp_path):
    options = tiny_options(layout="folders")
    extract_dataset(options)
    extract_dataset(tiny_options(layout="folders", modality="flow"))
    page = inspect_dataset(options.frames_dir, tmp_path / "page.html").path.read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 6 * (6 + 6)


def test_without_an_extraction_the_error_says_what_to_run(tmp_path):
    with pytest.raises(ActcliError, match="run actcli extract"):
        inspect_dataset(tmp_path, tmp_path / "page.html")
