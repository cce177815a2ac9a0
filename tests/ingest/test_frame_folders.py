import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from actcli.ingest import extract_dataset, payload_path, read_manifest
from actcli.ingest.failure import ClipFailure
from actcli.ingest.frame_folders import FrameFolder, find_flow
from actcli.ingest.locate import DumpFinder
from actcli.ingest.records import ClipRecord
from actcli.ingest.sizing import DecodeSettings


def jpeg(level: int, width: int = 32, height: int = 24) -> bytes:
    return simplejpeg.encode_jpeg(np.full((height, width, 3), level, np.uint8), 90)


def write_frames(folder: Path, names: str, count: int = 4, first: int = 1, level: int = 0) -> list[bytes]:
    """Write ``count`` JPEGs named by the pattern ``names``; returns their bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = [jpeg(level + 10 * index) for index in range(count)]
    for index, data in enumerate(frames):
        (folder / (names % (first + index))).write_bytes(data)
    return frames


def contents(folder: FrameFolder) -> list[bytes]:
    return [data for data, _ in folder.jpegs()]


@pytest.mark.parametrize(
    "names", ["%05d.jpg", "%06d.jpg", "img_%05d.jpg", "image_%05d.jpg", "frame%06d.jpg", "frames%05d.jpg", "%d.JPEG"]
)
def test_frames_come_in_the_order_of_their_numbers_byte_for_byte(tmp_path, names):
    frames = write_frames(tmp_path / "7", names, count=12)
    assert contents(FrameFolder(tmp_path / "7")) == frames


def test_other_files_are_passed_over_and_mentioned(tmp_path):
    frames = write_frames(tmp_path / "7", "%05d.jpg")
    for name in ("Thumbs.db", ".DS_Store", "00001 (1).jpg", "00002.txt"):
        (tmp_path / "7" / name).write_text("x")
    folder = FrameFolder(tmp_path / "7")
    assert contents(folder) == frames
    assert folder.note.startswith("passed over 4 other files: .DS_Store, 00001 (1).jpg")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (b"", "00003.jpg: the file is empty"),
        (jpeg(9)[:-200], "00003.jpg"),
        (b"<html>", "00003.jpg"),
        (jpeg(9, width=48), "00003.jpg is 48x24, the frames before it 32x24"),
    ],
)
def test_a_damaged_frame_fails_by_name(tmp_path, damage, message):
    write_frames(tmp_path / "7", "%05d.jpg")
    (tmp_path / "7" / "00003.jpg").write_bytes(damage)
    with pytest.raises(ClipFailure) as failure:
        contents(FrameFolder(tmp_path / "7"))
    assert message in failure.value.message


def test_a_gap_in_the_numbers_fails(tmp_path):
    write_frames(tmp_path / "7", "%05d.jpg")
    (tmp_path / "7" / "00003.jpg").unlink()
    with pytest.raises(ClipFailure, match="frame 3 is missing"):
        FrameFolder(tmp_path / "7")


def test_two_patterns_in_one_folder_fail(tmp_path):
    write_frames(tmp_path / "7", "%05d.jpg")
    write_frames(tmp_path / "7", "img_%05d.jpg")
    with pytest.raises(ClipFailure, match="mixes names"):
        FrameFolder(tmp_path / "7")


def test_grey_frames_are_shrunk_to_the_short_side(tmp_path):
    write_frames(tmp_path / "7", "%05d.jpg")
    planes = list(FrameFolder(tmp_path / "7").grey(DecodeSettings(short_side=16)))
    assert [plane.shape for plane in planes] == [(16, 22)] * 4
    assert [round(float(plane.mean()) / 10) for plane in planes] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("x_name", "y_name"),
    [
        ("A/v/flow_x_%05d.jpg", "A/v/flow_y_%05d.jpg"),
        ("v/x_%05d.jpg", "v/y_%05d.jpg"),
        ("v/000042-x_%05d.jpg", "v/000042-y_%05d.jpg"),
        ("v/u/frame%06d.jpg", "v/v/frame%06d.jpg"),
        ("u/v/frame%06d.jpg", "v/v/frame%06d.jpg"),
        ("u/A/v/frame%06d.jpg", "v/A/v/frame%06d.jpg"),
    ],
)
def test_every_customary_flow_dump_is_read(tmp_path, x_name, y_name):
    xs = write_frames((tmp_path / x_name).parent, Path(x_name).name)
    ys = write_frames((tmp_path / y_name).parent, Path(y_name).name, level=100)
    write_frames(tmp_path / "A" / "v", "img_%05d.jpg")
    record = ClipRecord("A/v.avi", "UCF-101/A/v.avi", 0, "A", {"1": "train"})
    folder = DumpFinder((tmp_path,), [record], "flow").locate()["A/v.avi"]
    x, y = find_flow(Path(folder), (tmp_path,))
    assert (contents(x), contents(y)) == (xs, ys)


def test_flow_axes_of_different_length_fail(tmp_path):
    write_frames(tmp_path / "v", "x_%05d.jpg", count=4)
    write_frames(tmp_path / "v", "y_%05d.jpg", count=3)
    with pytest.raises(ClipFailure, match="4 x pictures, 3 y pictures"):
        find_flow(tmp_path / "v", (tmp_path,))


@pytest.fixture
def jester(tmp_path):
    raw = tmp_path / "raw"
    frames = {number: write_frames(raw / "20bn-jester-v1" / str(number), "%05d.jpg", level=number) for number in (1, 2)}
    (raw / "jester-v1-labels.csv").write_text("Wave\nClap\n")
    (raw / "jester-v1-train.csv").write_text("1;Clap\n")
    (raw / "jester-v1-validation.csv").write_text("2;Wave\n")
    return raw, frames


def test_frame_datasets_are_packed_without_reencoding(jester, tiny_options):
    raw, frames = jester
    options = tiny_options(dataset="jester", raw_dir=raw)
    assert extract_dataset(options).counts["ok"] == 2
    row = read_manifest(options.frames_dir).to_pylist()[0]
    assert payload_path(options.frames_dir, "000000000").read_bytes() == b"".join(frames[1])
    assert (row["num_frames"], row["width"], row["height"], row["fps"]) == (4, 32, 24, 12.0)
    assert (row["decoder"], row["frame_sizes"]) == ("copied", [len(frame) for frame in frames[1]])


def test_short_side_is_said_to_have_no_effect_on_copied_frames(jester, tiny_options):
    summary = extract_dataset(tiny_options(dataset="jester", raw_dir=jester[0], short_side=64))
    assert summary.warnings == ("--short-side has no effect here: frames are copied as they are.",)


def test_flow_of_a_frame_dataset_has_its_size(jester, tiny_options):
    options = tiny_options(dataset="jester", raw_dir=jester[0], modality="flow")
    extract_dataset(options)
    row = read_manifest(options.frames_dir, "flow").to_pylist()[0]
    assert (row["num_frames"], row["width"], row["height"]) == (3, 32, 24)


def test_dumps_are_packed_in_place_of_videos(tiny_options, tmp_path):
    dump = tmp_path / "dump"
    packed = {}
    options = tiny_options(from_frames=(dump,))
    clips = sorted(path for path in options.raw_dir.rglob("*.mp4"))
    for clip in clips[:-1]:
        folder = dump / clip.parent.name / clip.stem
        packed[clip.stem] = write_frames(folder, "img_%05d.jpg", level=1)
        write_frames(folder, "x_%05d.jpg", count=3, level=2)
        write_frames(folder, "y_%05d.jpg", count=3, level=3)
    rgb = extract_dataset(options)
    assert rgb.counts == {"ok": 23, "partial": 0, "failed": 0, "missing": 1}
    assert payload_path(options.frames_dir, "000000000").read_bytes() == b"".join(packed[clips[0].stem])
    flow = extract_dataset(replace(options, modality="flow", flow_bound=15.0))
    assert flow.counts["ok"] == 23
    row = read_manifest(options.frames_dir, "flow").to_pylist()[0]
    assert (row["num_frames"], len(row["frame_sizes"]), row["bound"]) == (3, 6, 15.0)


def test_a_stray_file_whose_name_is_no_text_is_mentioned(tmp_path, tiny_options):
    for number in range(4):
        for name in "ab":
            folder = tmp_path / "raw" / name / f"clip{number}"
            folder.mkdir(parents=True)
            (folder / "img_00001.jpg").write_bytes(simplejpeg.encode_jpeg(np.zeros((48, 64, 3), np.uint8)))
    (tmp_path / "raw" / "a" / "clip0" / os.fsdecode(b"od\xff.txt")).write_text("x")
    options = tiny_options(dataset="own", raw_dir=tmp_path / "raw")
    assert extract_dataset(options).counts["ok"] == 8
    assert extract_dataset(options).already_done == 8
    assert read_manifest(options.frames_dir)["message"][0].as_py() == "passed over 1 other files: od\\xff.txt"
