"""Shards are whole, the same however often a run is killed, and open with everybody's readers."""

import gc
import hashlib
import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import simplejpeg
from killing import run_until

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.shards import Coverage, ShardCard, ShardOptions, ShardReader, ShardSet, verify_shards, write_shards

NUM_CLIPS = 24


@pytest.fixture(scope="module")
def frames_dir(tmp_path_factory):
    root = tmp_path_factory.mktemp("frames")
    make_synthetic(root / "raw", num_clips=NUM_CLIPS, num_frames=8, size=(96, 64))
    for modality in ("rgb", "flow"):
        extract_dataset(
            ExtractOptions("sprites", root / "raw", root / "sprites", modality, short_side=0, executor="serial")
        )
    return root / "sprites"


@pytest.fixture(scope="module")
def shards_dir(frames_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "sprites"
    write_shards(ShardOptions(frames_dir, folder, shard_bytes=200_000))
    return folder


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tar", ".idx", ".json")}


def test_every_clip_is_in_the_index_of_its_split_and_nowhere_else(frames_dir, shards_dir):
    manifest = pd.read_parquet(frames_dir / "manifest.parquet")
    shards = ShardSet.open(shards_dir)
    for split in ("train", "val"):
        expected = sorted(int(row.key) for row in manifest.itertuples() if dict(row.splits)["1"] == split)
        assert shards.index(split).keys.tolist() == expected
    assert shards.card.coverage == {
        "listed": NUM_CLIPS,
        "ok": NUM_CLIPS,
        "failed": 0,
        "missing": 0,
        "ok_flow": NUM_CLIPS,
    }


def test_single_frames_by_offset_are_the_extracted_ones(frames_dir, shards_dir):
    shards, reader = ShardSet.open(shards_dir), ShardReader(shards_dir)
    index = shards.index("train")
    for row in (0, 5, len(index) - 1):
        offsets, sizes, crcs = index.frame_extents(row, [0, 3, 7])
        stored = (frames_dir / "0" / f"{index.keys[row]:09d}.mjpeg").read_bytes()
        read = [bytes(reader.read(index.shard_name(row), int(o), int(s))) for o, s in zip(offsets, sizes, strict=True)]
        assert stored.startswith(read[0])
        assert stored.endswith(read[2])
        assert read[1] in stored
        assert crcs.tolist() == [zlib.crc32(data) for data in read]
        assert simplejpeg.decode_jpeg(read[1]).shape == (index.heights[row], index.widths[row], 3)


def test_flow_extents_give_x_and_y_of_each_field(frames_dir, shards_dir):
    shards, reader = ShardSet.open(shards_dir), ShardReader(shards_dir)
    index = shards.index("val")
    offsets, sizes, _ = index.flow_extents(1, [2, 6])
    assert len(offsets) == 4
    assert index.flow_num_frames[1] == 7
    stored = (frames_dir / "0" / f"{index.keys[1]:09d}.flow.mjpeg").read_bytes()
    last = bytes(reader.read(index.shard_name(1), int(offsets[3]), int(sizes[3])))
    assert stored.endswith(last)


def test_tars_stay_below_the_limit_and_hold_all_clips(shards_dir):
    card = ShardSet.open(shards_dir).card
    assert len(card.shards) > 4
    assert sum(shard.num_clips for shard in card.shards) == NUM_CLIPS
    for shard in card.shards:
        assert (shards_dir / shard.name).stat().st_size == shard.bytes
        assert shard.num_clips == 1 or shard.bytes <= 200_000 + 10_240  # tar's own padding at the end


# webdataset leaves it to the garbage collector to close its tars
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
def test_webdataset_opens_the_tars(shards_dir):
    import webdataset

    names = sorted(str(path) for path in shards_dir.glob("*.tar"))
    samples = list(webdataset.WebDataset(names, shardshuffle=False, empty_check=False))
    assert len(samples) == NUM_CLIPS
    description = json.loads(samples[0]["json"])
    assert description["key"] == samples[0]["__key__"]
    assert sum(description["frame_sizes"]) == len(samples[0]["mjpeg"])
    assert sum(description["flow_frame_sizes"]) == len(samples[0]["flow.mjpeg"])
    del samples
    gc.collect()


def test_dali_opens_the_tars_with_the_index_beside_them(shards_dir):
    fn = pytest.importorskip("nvidia.dali.fn", reason="DALI exists for Linux on x86-64 only")
    from nvidia.dali import pipeline_def

    tar = shards_dir / "train-000000.tar"

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def read():
        return tuple(
            fn.readers.webdataset(paths=[str(tar)], index_paths=[str(tar.with_suffix(".idx"))], ext=["json", "mjpeg"])
        )

    pipe = read()
    pipe.build()
    description, frames = (np.asarray(output.at(0)).tobytes() for output in pipe.run())
    assert len(frames) == sum(json.loads(description)["frame_sizes"])
    first = ShardSet.open(shards_dir).card.shards[0]
    assert pipe.epoch_size().popitem()[1] == first.num_clips


def test_the_same_seed_writes_the_same_bytes_and_another_seed_another_order(frames_dir, shards_dir, tmp_path):
    write_shards(ShardOptions(frames_dir, tmp_path / "same", shard_bytes=200_000, workers=1))
    assert files(tmp_path / "same") == files(shards_dir)
    write_shards(ShardOptions(frames_dir, tmp_path / "other", shard_bytes=200_000, seed=1))
    assert files(tmp_path / "other")["train-000000.tar"] != files(shards_dir)["train-000000.tar"]


def test_a_killed_run_continues_to_the_same_bytes(frames_dir, shards_dir, tmp_path):
    script = (
        "import sys, actcli.shards.writer as w; from pathlib import Path\n"
        "w.write_shards(w.ShardOptions(Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=200_000, workers=1))"
    )
    target = tmp_path / "killed"
    run_until("actcli.shards.journal:Journal", "add", 2, script, frames_dir, target)
    assert not (target / "dataset.json").exists()
    summary = write_shards(ShardOptions(frames_dir, target, shard_bytes=200_000))
    assert 0 < summary.num_written == len(summary.card.shards) - 2
    assert files(target) == files(shards_dir)
    assert not (target / ".actcli-shard.jsonl").exists()


def test_a_finished_run_is_left_alone_and_other_settings_need_overwrite(frames_dir, tmp_path):
    options = ShardOptions(frames_dir, tmp_path / "s")
    write_shards(options)
    assert write_shards(options).num_written == 0
    with pytest.raises(ActcliError, match="--overwrite"):
        write_shards(replace(options, seed=5))
    assert write_shards(replace(options, seed=5, overwrite=True)).num_written > 0
    assert verify_shards(tmp_path / "s") == []


def test_frames_that_changed_since_extraction_are_refused(frames_dir, tmp_path):
    import shutil

    copy = tmp_path / "frames"
    shutil.copytree(frames_dir, copy)
    victim = copy / "0" / "000000003.mjpeg"
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    with pytest.raises(ActcliError, match="changed since it was extracted"):
        write_shards(ShardOptions(copy, tmp_path / "s"))
    victim.unlink()
    with pytest.raises(ActcliError, match=r"000000003\.mjpeg \(gone\)"):
        write_shards(ShardOptions(copy, tmp_path / "s"))


def test_folders_of_jpegs_are_refused_with_the_way_out(tmp_path):
    make_synthetic(tmp_path / "raw", num_clips=6, num_frames=4, size=(64, 48))
    extract_dataset(ExtractOptions("sprites", tmp_path / "raw", tmp_path / "f", layout="folders", executor="serial"))
    with pytest.raises(ActcliError, match="--layout folders"):
        write_shards(ShardOptions(tmp_path / "f", tmp_path / "s"))


def test_verify_finds_a_flipped_byte_a_missing_tar_and_a_wrong_offset(frames_dir, tmp_path):
    folder = tmp_path / "s"
    write_shards(ShardOptions(frames_dir, folder, shard_bytes=200_000))
    assert verify_shards(folder) == []
    tar = folder / "train-000001.tar"
    data = bytearray(tar.read_bytes())
    data[-3000] ^= 255
    tar.write_bytes(data)
    (folder / "val-000000.tar").unlink()
    problems = {(finding.file, finding.problem.split(":")[0]) for finding in verify_shards(folder)}
    assert ("train-000001.tar", "its sha256 is not the card's") in problems
    assert ("val-000000.tar", "is missing") in problems


def test_video_payload_keeps_every_frame(frames_dir, tmp_path):
    summary = write_shards(ShardOptions(frames_dir, tmp_path / "v", payload="video", short_side=32))
    assert summary.card.payload == "mp4"
    shards, reader = ShardSet.open(tmp_path / "v"), ShardReader(tmp_path / "v")
    index = shards.index("train")
    assert (int(index.heights[0]), int(index.widths[0])) == (32, 48)
    data = reader.read(index.shard_name(0), int(index.offsets[0]), int(index.payload_bytes[0]))
    (tmp_path / "clip.mp4").write_bytes(data)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == index.num_frames[0] == 8
    assert (frames[0].height, frames[0].width) == (32, 48)
    assert verify_shards(tmp_path / "v") == []


def test_several_split_sets_store_a_clip_once(tmp_path):
    raw = tmp_path / "raw"
    lists = raw / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Archery\n2 Biking\n")
    make_synthetic(tmp_path / "videos", num_clips=6, num_frames=6, size=(64, 48))
    videos = sorted((tmp_path / "videos").rglob("*.mp4"))
    names = [f"{label}/v_{label}_g0{i % 3 + 1}_c01.avi" for i, label in enumerate(["Archery"] * 3 + ["Biking"] * 3)]
    for video, name in zip(videos, names, strict=True):
        (raw / "UCF-101" / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / "UCF-101" / name).write_bytes(video.read_bytes())
    for split in (1, 2, 3):
        tests = [name for name in names if f"_g0{split}_" in name]
        (lists / f"testlist0{split}.txt").write_text("".join(f"{name}\n" for name in tests))
        trains = [f"{name} {1 if name.startswith('Archery') else 2}\n" for name in names if name not in tests]
        (lists / f"trainlist0{split}.txt").write_text("".join(trains))
    extract_dataset(ExtractOptions("ucf101", raw, tmp_path / "f", executor="serial", short_side=0))
    card = write_shards(ShardOptions(tmp_path / "f", tmp_path / "s")).card
    assert [shard.name for shard in card.shards] == ["all-000000.tar"]
    assert card.split_sets == {str(i): {"train": 4, "test": 2} for i in (1, 2, 3)}
    shards = ShardSet.open(tmp_path / "s")
    tested = np.concatenate([shards.index("test", split_id).keys for split_id in "123"])
    assert sorted(tested.tolist()) == list(range(6))
    assert (tmp_path / "s" / "train2.index.parquet").exists()


def test_a_card_of_another_kind_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "dataset.json").write_text('{"format": "something else"}')
    with pytest.raises(ActcliError, match="not a card of actcli shards"):
        ShardSet.open(tmp_path)
    with pytest.raises(ActcliError, match="actcli shard"):
        ShardSet.open(tmp_path / "nowhere")


@pytest.mark.parametrize(("version", "remedy"), [(1, "actcli shard --overwrite"), (99, "pip install -U actcli")])
def test_shards_of_another_version_are_refused_with_the_remedy(shards_dir, tmp_path, version, remedy):
    card = json.loads((shards_dir / "dataset.json").read_text()) | {"version": version}
    (tmp_path / "dataset.json").write_text(json.dumps(card))
    with pytest.raises(ActcliError, match=rf"dataset\.json has format version {version}, .*{remedy}"):
        ShardSet.open(tmp_path)


def test_an_index_without_checksums_is_refused(shards_dir, tmp_path, reseal):
    shutil.copytree(shards_dir, tmp_path / "s")
    table = pq.read_table(shards_dir / "val.index.parquet")
    pq.write_table(table.drop_columns(["frame_crcs"]), tmp_path / "s" / "val.index.parquet")
    reseal(tmp_path / "s")
    with pytest.raises(ActcliError, match=r"columns frame_crcs are missing.*actcli shard --overwrite"):
        ShardSet.open(tmp_path / "s").index("val")


def test_an_index_of_other_shards_is_refused(shards_dir, tmp_path, reseal):
    shutil.copytree(shards_dir, tmp_path / "mixed")
    shutil.copy(shards_dir / "train.index.parquet", tmp_path / "mixed" / "val.index.parquet")
    with pytest.raises(ActcliError, match=r"val\.index\.parquet: \d+ bytes, the card says \d+"):
        ShardSet.open(tmp_path / "mixed").index("val")
    reseal(tmp_path / "mixed")
    with pytest.raises(ActcliError, match=r"val\.index\.parquet .*has \d+ clips, the card says \d+"):
        ShardSet.open(tmp_path / "mixed").index("val")


def test_every_damaged_byte_of_an_index_is_found(shards_dir, tmp_path):
    shutil.copytree(shards_dir, tmp_path / "damaged")
    path, shards = tmp_path / "damaged" / "val.index.parquet", ShardSet.open(tmp_path / "damaged")
    data = path.read_bytes()
    for position in range(0, len(data), max(len(data) // 150, 1)):
        changed = bytearray(data)
        changed[position] ^= 16
        path.write_bytes(changed)
        with pytest.raises(ActcliError, match=r"val\.index\.parquet: its sha256 is not the card's"):
            shards.index("val")
    path.unlink()
    path.mkdir()
    with pytest.raises(ActcliError, match="is no regular file"):
        shards.index("val")


def test_the_card_survives_its_text(shards_dir):
    card = ShardSet.open(shards_dir).card
    assert ShardCard.from_json(card.to_json(), "x") == card
    assert card.flip_labels() == {
        card.classes.index("moving right"): card.classes.index("moving left"),
        card.classes.index("moving left"): card.classes.index("moving right"),
    }
    digest = hashlib.sha256((shards_dir / card.shards[0].name).read_bytes()).hexdigest()
    assert digest == card.shards[0].checksum


def test_shards_open_from_a_url(shards_dir):
    url = f"file://{Path(shards_dir).resolve()}"
    index = ShardSet.open(url).index("val")
    offsets, sizes, _ = index.frame_extents(0, [1])
    data = ShardReader(url).read(index.shard_name(0), int(offsets[0]), int(sizes[0]))
    assert bytes(data[:2]) == b"\xff\xd8"


def test_the_card_says_what_became_of_the_clips_of_each_split(tmp_path):
    make_synthetic(tmp_path / "raw", num_clips=12, num_frames=3, size=(64, 48))
    videos = sorted((tmp_path / "raw").rglob("*.mp4"))
    raw = tmp_path / "own"
    raw.mkdir()
    for number, video in enumerate(videos[1:], 1):
        video.rename(raw / f"{number}.mp4")
    (raw / "1.mp4").write_bytes(b"no video")
    rows = [f"{number}.mp4,{'ab'[number % 2]},{'val' if number < 4 else 'train'}\n" for number in range(12)]
    (raw / "list.csv").write_text("path,label,split\n" + "".join(rows))
    extract_dataset(ExtractOptions("own", raw, tmp_path / "f", short_side=0, executor="serial"))
    card = write_shards(ShardOptions(tmp_path / "f", tmp_path / "s", workers=1)).card
    by_split = card.split_coverage["1"]
    assert {split: coverage.ok for split, coverage in by_split.items()} == card.split_sets["1"]
    assert card.coverage == {"listed": 12, "ok": 10, "failed": 1, "missing": 1}
    assert by_split == {"train": Coverage(8, 8, 0, 0), "val": Coverage(4, 2, 1, 1)}
    assert ShardSet.open(tmp_path / "s").card == card
