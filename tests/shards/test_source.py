"""Shards of the videos themselves: every byte of them, what is refused, and what goes on after a kill."""

import hashlib
import os
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from videos import encode

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, payload_path, read_manifest
from actcli.ingest.ledger import Ledger
from actcli.shards import ShardOptions, ShardSet, verify_shards, write_shards
from actcli.shards.index_file import write_index
from actcli.shards.lists import export_lists
from actcli.shards.repair import repair_shards
from actcli.shards.stream import stream_clips

SUFFIXES = {"000000000": "mp4", "000000001": "webm", "000000002": "avi", "000000003": "mkv", "000000004": "ts"}


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Five videos of five containers, in train and val folders of two classes."""
    root = tmp_path_factory.mktemp("source") / "raw" / "mixed"
    kinds = {"a.mp4": "libx264", "b.webm": "libvpx-vp9", "c.avi": "mpeg4", "d.mkv": "libx264", "e.ts": "libx264"}
    for place, (name, codec) in zip(
        ("train/run", "train/run", "train/sit", "val/run", "val/sit"), kinds.items(), strict=True
    ):
        (root / place).mkdir(parents=True, exist_ok=True)
        encode(root / place / name, codec, num_frames=26)
    return root


@pytest.fixture(scope="module")
def frames(raw):
    folder = raw.parents[1] / "frames" / "mixed"
    extract_dataset(options(raw, folder))
    return folder


@pytest.fixture(scope="module")
def shards(frames):
    folder = frames.parents[1] / "shards" / "mixed"
    write_shards(ShardOptions(frames, folder, workers=1))
    return folder


def options(raw, frames, **changes):
    return ExtractOptions("mixed", raw, frames, **{"payload": "source", "executor": "serial"} | changes)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".actcli-lock"}


# --- Extraction -------------------------------------------------------------------------------------------------------


def test_no_frame_is_written_and_every_video_has_its_row(raw, frames):
    rows = read_manifest(frames).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 5
    for row in rows:
        link = payload_path(frames, row["key"], payload="source")
        assert link.is_symlink()
        assert link.resolve() == (raw / row["path"]).resolve()
        data = link.read_bytes()
        assert (row["bytes"], row["checksum"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert (row["num_frames"], row["width"], row["height"]) == (26, 96, 64)
        assert row["video"]["container"] == SUFFIXES[row["key"]]
    assert sum(path.stat(follow_symlinks=False).st_size for path in frames.rglob("*.video")) < 2000


def test_a_second_run_does_nothing_and_a_ledger_that_was_cut_goes_on(raw, frames, tmp_path):
    mine = tmp_path / "frames"
    first = extract_dataset(options(raw, mine))
    assert extract_dataset(options(raw, mine)).already_done == first.listed == 5
    whole = (mine / "manifest.parquet").read_bytes()
    lines = (mine / "extract.jsonl").read_bytes().splitlines(keepends=True)
    (mine / "extract.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:100])
    assert extract_dataset(options(raw, mine)).already_done == 2
    assert (mine / "manifest.parquet").read_bytes() == whole


def test_broken_videos_are_rows_and_mended_ones_are_taken_up(raw, tmp_path):
    mine = shutil.copytree(raw, tmp_path / "raw" / "mixed")
    whole = (mine / "train/run/a.mp4").read_bytes()
    (mine / "train/run/a.mp4").write_bytes(whole[: len(whole) // 2])
    (mine / "train/run/b.webm").write_bytes(b"")
    summary = extract_dataset(options(mine, tmp_path / "frames"))
    assert {clip.key for clip in summary.failed} == {"000000000", "000000001"}
    (mine / "train/run/a.mp4").write_bytes(whole)
    summary = extract_dataset(options(mine, tmp_path / "frames", retry_failed=True))
    assert {clip.key for clip in summary.failed} == {"000000001"}


def test_a_video_that_went_away_is_missing(raw, tmp_path):
    mine = shutil.copytree(raw, tmp_path / "raw" / "mixed")
    annotations = tmp_path / "frames"
    extract_dataset(options(mine, annotations))
    (mine / "val/sit/e.ts").unlink()
    link = payload_path(annotations, "000000004", payload="source")
    assert os.path.lexists(link)
    with pytest.raises(ActcliError, match=r"000000004\.video \(gone\)"):
        write_shards(ShardOptions(annotations, tmp_path / "shards"))


def test_a_partial_clip_keeps_the_frames_before_the_break(raw, tmp_path):
    mine = tmp_path / "raw" / "mixed"
    for name in ("run", "sit"):
        (mine / name).mkdir(parents=True)
    whole = (raw / "train/run/a.mp4").read_bytes()
    encode(mine / "run" / "a.mkv", num_frames=60)
    data = (mine / "run" / "a.mkv").read_bytes()
    (mine / "run" / "a.mkv").write_bytes(data[: len(data) * 2 // 3])
    (mine / "sit" / "b.mp4").write_bytes(whole)
    extract_dataset(options(mine, tmp_path / "frames", keep_partial=True))
    rows = read_manifest(tmp_path / "frames").to_pylist()
    assert [row["partial"] for row in rows] == [True, False]
    assert 10 < rows[0]["num_frames"] < 60
    write_shards(ShardOptions(tmp_path / "frames", tmp_path / "shards"))
    assert verify_shards(tmp_path / "shards", deep=True) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"modality": "flow"}, "leave it out for flow"),
        ({"layout": "folders"}, "for folders of frames"),
        ({"payload": "gif"}, "payload 'gif' is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(raw, tmp_path, changes, reason):
    with pytest.raises(ActcliError, match=reason):
        extract_dataset(options(raw, tmp_path, **changes))


def test_the_payload_may_not_change(raw, frames, tmp_path):
    with pytest.raises(ActcliError, match="was extracted with --payload source, not mjpeg"):
        extract_dataset(options(raw, frames, payload="mjpeg"))
    extract_dataset(options(raw, tmp_path / "frames", payload="mjpeg"))
    with pytest.raises(ActcliError, match="was extracted with --payload mjpeg, not source"):
        extract_dataset(options(raw, tmp_path / "frames"))


# --- Shards -----------------------------------------------------------------------------------------------------------


def test_the_tars_hold_the_videos_to_the_byte(raw, shards):
    originals = {path.read_bytes() for path in raw.rglob("*.*") if path.suffix not in (".json", ".jsonl")}
    found = set()
    for path in shards.glob("*.tar"):
        with tarfile.open(path) as tar:
            found |= {tar.extractfile(member).read() for member in tar if not member.name.endswith(".json")}
    assert found == originals
    assert ShardSet.open(shards).card.payload == "source"


def test_index_and_json_say_the_same(shards):
    shard_set = ShardSet.open(shards)
    streamed = {clip.clip.key: clip.clip for clip in stream_clips(shard_set, [s.name for s in shard_set.card.shards])}
    for split in ("train", "val"):
        index = shard_set.index(split)
        for row in range(len(index)):
            clip = index.clip(row)
            note, column = streamed[clip.key].note(), clip.note()
            assert {k: v for k, v in note.items() if k not in ("source_id", "class_name", "splits")} == {
                k: v for k, v in column.items() if k not in ("source_id", "class_name", "splits")
            }


def test_clips_are_known_by_their_names(shards):
    shard_set = ShardSet.open(shards)
    assert shard_set.clip_names("train") == ("train/run/a.mp4", "train/run/b.webm", "train/sit/c.avi")
    assert shard_set.clip_names("val") == ("val/run/d.mkv", "val/sit/e.ts")


def test_every_bit_is_checked_and_every_frame_decoded(shards, tmp_path):
    assert verify_shards(shards, deep=True) == []
    mine = shutil.copytree(shards, tmp_path / "shards")
    clip = ShardSet.open(mine).index("train").clip(1)
    data = bytearray((mine / clip.shard).read_bytes())
    where = clip.packet_extents(np.array([7]))
    data[int(where.offsets[0]) + 9] ^= 4
    (mine / clip.shard).write_bytes(data)
    problems = " ".join(finding.problem for finding in verify_shards(mine))
    assert "packet 7 is not the one that was packed" in problems


def test_what_was_not_extracted_cannot_be_packed(frames, few_frames, tmp_path):
    with pytest.raises(ActcliError, match="keeps the videos themselves"):
        write_shards(ShardOptions(frames, tmp_path / "a", payload="video"))
    with pytest.raises(ActcliError, match="holds frames, not the videos"):
        write_shards(ShardOptions(few_frames, tmp_path / "b", payload="source"))
    with pytest.raises(ActcliError, match="hold the videos themselves"):
        write_shards(ShardOptions(frames, tmp_path / "c"))
        export_lists(ShardSet.open(tmp_path / "c"), "tsm", tmp_path / "lists")


def test_a_video_that_changed_since_is_refused(raw, tmp_path):
    mine = shutil.copytree(raw, tmp_path / "raw" / "mixed")
    extract_dataset(options(mine, tmp_path / "frames"))
    path = mine / "train/run/a.mp4"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ActcliError, match="changed since it was extracted"):
        write_shards(ShardOptions(tmp_path / "frames", tmp_path / "shards"))


def test_equal_videos_give_equal_shards_and_damage_is_mended(frames, shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    (mine / "train.index.parquet").unlink()
    tar = mine / "val-000000.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    repair_shards(mine, frames)
    assert files_of(mine) == files_of(shards)


def test_a_manifest_row_that_cannot_be_is_refused(raw, tmp_path):
    folder = tmp_path / "frames"
    extract_dataset(options(raw, folder))
    with Ledger(folder / "extract.jsonl") as ledger:
        outcome = ledger.outcomes["000000000"]
        ledger.append(replace(outcome, video=replace(outcome.video, codec="png")))
    with pytest.raises(ActcliError, match="is damaged"):
        Ledger(folder / "extract.jsonl")


# --- Harm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codec": "png"}, "is not known here"),
        ({"container": "ffconcat"}, "is not known here"),
        ({"picture_width": 100_000, "picture_height": 100_000}, "coded pictures"),
        ({"key_packets": np.array([0, 99], np.uint32), "key_pictures": np.array([0, 99], np.uint32)}, "among"),
        ({"packet_gaps": np.full(26, 2**30, np.int32)}, "outside"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused_clip_by_clip(shards, tmp_path, reseal, changes, reason):
    mine = shutil.copytree(shards, tmp_path / "shards")
    index = ShardSet.open(mine).index("train")
    clips = [replace(index.clip(row), source_id="x") for row in range(len(index))]
    clips[0] = replace(clips[0], video=replace(clips[0].video, **changes))
    write_index(str(mine / "train.index.parquet"), clips, with_flow=False, with_video=True)
    reseal(mine)
    hurt = ShardSet.open(mine).index("train")
    assert hurt.clip(1).key == "000000001"
    with pytest.raises(ActcliError, match=f"index of clip 000000000 says what cannot be.*{reason}"):
        hurt.clip(0)


def test_texts_that_would_take_gigabytes_are_refused(shards, tmp_path, reseal, monkeypatch):
    mine = shutil.copytree(shards, tmp_path / "shards")
    monkeypatch.setattr("actcli.shards.index_file.FREE_EXPANSION_BYTES", 100_000)
    monkeypatch.setattr("actcli.ingest.expansion.MAX_EXPANSION", 10_000)
    index = ShardSet.open(mine).index("train")
    clips = [
        replace(index.clip(row), video=replace(index.clip(row).video, extradata="00" * 60_000)) for row in range(3)
    ]
    write_index(str(mine / "train.index.parquet"), clips, with_flow=False, with_video=True)
    reseal(mine)
    with pytest.raises(ActcliError, match="texts would take too much memory"):
        ShardSet.open(mine).index("train")


@pytest.mark.parametrize("payload", ["mjpeg", "mp4"])
def test_a_card_that_calls_the_payload_otherwise_is_refused(shards, tmp_path, reseal, payload):
    mine = shutil.copytree(shards, tmp_path / "shards")
    reseal(mine, payload=payload)
    with pytest.raises(ActcliError, match="is not a shard index"):
        ShardSet.open(mine).index("train")
    shard_set = ShardSet.open(mine)
    with pytest.raises(ActcliError, match="video of its own"):
        list(stream_clips(shard_set, [shard.name for shard in shard_set.card.shards]))


def test_a_card_that_calls_jpegs_videos_is_refused(few_shards, tmp_path, reseal):
    mine = shutil.copytree(few_shards, tmp_path / "shards")
    reseal(mine, payload="source")
    with pytest.raises(ActcliError, match="is not a shard index"):
        ShardSet.open(mine).index("train")
    shard_set = ShardSet.open(mine)
    with pytest.raises(ActcliError, match="no video"):
        list(stream_clips(shard_set, [shard.name for shard in shard_set.card.shards]))


def test_a_manifest_of_the_time_before_is_read(few_frames, tmp_path):
    mine = shutil.copytree(few_frames, tmp_path / "frames")
    path = mine / "manifest.parquet"
    table = pq.read_table(path)
    pq.write_table(table.drop_columns(["video"]), path)
    (mine / "manifest.parquet.sha256").write_text(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n")
    assert read_manifest(mine).equals(table)
    write_shards(ShardOptions(mine, tmp_path / "shards"))
