"""What a ledger line may say of a clip, and which clips come to nothing."""

from dataclasses import replace

import av
import numpy as np
import pytest

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions
from actcli.ingest.clip_job import ClipTask, extract_clip
from actcli.ingest.datasets import get_dataset
from actcli.ingest.extract import _clip_job
from actcli.ingest.failure import ClipFailure
from actcli.ingest.keys import assign_keys
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.records import ClipRecord, Listing

GOOD = ClipOutcome(
    key="000000001", source_id="a", status="ok", num_frames=2, width=8, height=8, bytes=7, frame_sizes=np.array([3, 4])
)


def test_an_outcome_comes_back_from_its_line():
    line = GOOD.to_json()
    assert ClipOutcome.from_json(line).to_json() == line
    lost = ClipOutcome.lost("000000002", "b", ClipFailure("find", "FileNotFoundError", "there is no b"))
    assert lost.is_missing
    assert ClipOutcome.from_json(lost.to_json()).to_json() == lost.to_json()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_frames": -1}, "no such number"),
        ({"width": 2**63}, "no such number"),
        ({"fps": float("nan")}, "no such number"),
        ({"bound": float("inf")}, "no such number"),
        ({"key": "1"}, "no such clip"),
        ({"key": "00000000²"}, "no such clip"),
        ({"key": "٠٠٠٠٠٠٠٠١"}, "no such clip"),
        ({"status": "failed"}, "no reason"),
        ({"status": "perhaps"}, "its status is 'perhaps'"),
        ({"bytes": 8}, "the sizes do not add up"),
        ({"num_frames": 1}, "the sizes do not add up"),
        ({"frame_sizes": [], "bytes": 0, "num_frames": 0}, "the sizes do not add up"),
        ({"bound": 20.0}, "the sizes do not add up"),
        ({"frame_sizes": [7, 0]}, "no list of counts"),
    ],
)
def test_a_line_that_cannot_be_of_a_clip_is_refused(changes, problem):
    with pytest.raises(ValueError, match=problem):
        ClipOutcome.from_json(GOOD.to_json() | changes)


def write_video(path, num_frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for number in range(num_frames):
            picture = np.full((32, 32, 3), 10 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture
def job(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "frames").mkdir()
    return _clip_job(get_dataset("mine"), ExtractOptions("mine", tmp_path / "raw", tmp_path / "frames"))


def test_a_clip_of_one_frame_has_no_flow_and_a_file_that_is_not_there_is_missing(job, tmp_path):
    write_video(tmp_path / "raw" / "one.mp4", 1)
    one = ClipTask("000000000", "one", "one.mp4", None, None)
    assert extract_clip(job, one).num_frames == 1
    still = extract_clip(replace(job, store=replace(job.store, modality="flow")), one)
    assert (still.status, still.stage, still.error, still.message) == (
        "failed", "flow", "NoMotion", "a clip of one frame has no flow",
    )  # fmt: skip
    gone = extract_clip(job, ClipTask("000000001", "gone", "gone.mp4", None, None))
    assert (gone.status, gone.message) == ("missing", "there is no gone.mp4")


@pytest.mark.parametrize("line", ["1", "[]", "{}", '"a","b"', "true"])
def test_a_line_of_keys_that_is_no_name_is_refused(tmp_path, line):
    (tmp_path / "keys.jsonl").write_text(f'"a"\n{line}\n')
    with pytest.raises(ActcliError, match=r"keys.jsonl is damaged \(a line is no name\)"):
        assign_keys(tmp_path, [ClipRecord("a", "a.mp4", 0, "x", {})], {})


def test_annotations_that_list_nothing_are_answered_with_what_is_expected(tmp_path):
    empty = Listing(classes=(), records=(), split_sets={"1": ("train",)}, storage="video")
    adapter = replace(get_dataset("sthv2"), reader=lambda raw: empty)
    with pytest.raises(ActcliError, match=r"list no clip. Something-Something V2 is expected like this"):
        adapter.read(tmp_path)
