"""Batches of videos that are stored as they were downloaded: those of decoding every frame and taking the crops."""

import shutil

import numpy as np
import pytest
from range_server import served
from videos import encode

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, payload_path
from actcli.ingest.decode import VideoClip, planes_to_rgb
from actcli.ingest.sizing import DecodeSettings
from actcli.loaders import Reading, open_loader
from actcli.loaders.backends import choose_backend
from actcli.loaders.backends._writer import BatchWriter
from actcli.loaders.backends.jpeg import Picture
from actcli.shards import ShardOptions, ShardSet, write_shards

SETUP = {"num_frames": 4, "size": 48, "scale_size": 64, "batch_size": 2, "workers": 0, "seed": 3}
TEST = {"training": False, "num_crops": 3, "num_test_clips": 2, "size": 64}
OPEN_GOP = {"x264-params": "log-level=none:open-gop=1:bframes=3:scenecut=0"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Videos of several kinds, extracted and packed as they are (``source``) and as JPEGs (``mjpeg``)."""
    root = tmp_path_factory.mktemp("source")
    places = {
        "run/a.mp4": ("libx264", OPEN_GOP),
        "run/b.webm": ("libvpx-vp9", {}),
        "run/c.avi": ("mpeg4", {"bf": 2}),
        "sit/d.mkv": ("libx264", {"pix_fmt": "yuv444p"}),
        "sit/e.ts": ("libx264", {}),
        "sit/f.mp4": ("libx264", {"num_frames": 1}),
    }
    for split in ("train", "val"):
        for name, (codec, changes) in places.items():
            path = root / "raw" / "mixed" / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            encode(path, codec, **{"num_frames": 20, "width": 160, "height": 120} | changes)
    for payload in ("source", "mjpeg"):
        frames = root / payload / "mixed"
        extract_dataset(
            ExtractOptions(
                "mixed",
                root / "raw" / "mixed",
                frames,
                short_side=64,
                payload=payload,
                executor="serial",
                quality=100 if payload == "mjpeg" else 90,
            )
        )
        write_shards(ShardOptions(frames, root / f"{payload}-shards", workers=1, shard_bytes=60_000))
    return root


@pytest.fixture(scope="module")
def shards(workspace):
    return workspace / "source-shards"


def batches(root, split="train", **changes):
    with open_loader(root, split, **SETUP | changes) as loader:
        return [(batch.clips.numpy().copy(), batch.labels.tolist(), batch.keys.tolist()) for batch in loader]


def check_equal(one, other):
    assert [batch[1:] for batch in one] == [batch[1:] for batch in other]
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])


@pytest.mark.parametrize(
    "setup", [{}, TEST, {"num_frames": 9}, {"sampling": "dense"}], ids=["train", "test", "9", "dense"]
)
def test_batches_are_those_of_decoding_all_frames(workspace, shards, monkeypatch, setup):
    found = batches(shards, **setup)

    def all_frames(self, clip, wanted, size):
        path = payload_path(workspace / "source" / "mixed", f"{clip.key:09d}", payload="source")
        with VideoClip(path, DecodeSettings(short_side=64)) as video:
            whole = [planes_to_rgb(planes) for planes in video]
        return (Picture(whole[frame], clip.crops) for frame in wanted.frames)

    monkeypatch.setattr(BatchWriter, "_pictures", all_frames)
    check_equal(found, batches(shards, **setup))
    assert sum(len(batch[2]) for batch in found) == 6


@pytest.mark.parametrize("setup", [{}, TEST], ids=["train", "test"])
def test_only_the_loss_of_jpeg_tells_them_from_jpeg_shards(workspace, shards, setup):
    ours, theirs = batches(shards, **setup), batches(workspace / "mjpeg-shards", **setup)
    for one, other in zip(ours, theirs, strict=True):
        assert one[1:] == other[1:]
        assert np.abs(one[0].astype(int) - other[0]).mean() < 1.0


def test_workers_give_the_same(shards):
    check_equal(batches(shards), batches(shards, workers=2))


def test_streams_give_the_clips_of_the_index(shards):
    def clips(**changes):
        found = batches(shards, "val", training=False, batch_size=1, **changes)
        return {keys[0]: pixels for pixels, _, keys in found}

    indexed, streamed = clips(), clips(shuffle_buffer=2)
    assert indexed.keys() == streamed.keys()
    for key, pixels in indexed.items():
        np.testing.assert_array_equal(pixels, streamed[key])


def test_what_is_far_away_gives_the_same(shards, tmp_path):
    with served(shards) as server:
        check_equal(batches(shards), batches(server.url, reading=Reading("index")))
        asked = sum(end - begin for name, begin, end in server.requests if name.endswith(".tar"))
        check_equal(batches(shards, reading=Reading("blocks")), batches(server.url))
        check_equal(batches(shards), batches(server.url, reading=Reading("index", str(tmp_path / "cache"))))
    assert asked < sum(shard.bytes for shard in ShardSet.open(shards).card.shards if shard.name.startswith("train"))


def test_a_loader_goes_on_where_it_stopped(shards):
    whole = batches(shards)
    with open_loader(shards, **SETUP) as loader:
        next(iter(loader))
        state = loader.state_dict()
    with open_loader(shards, **SETUP) as loader:
        loader.load_state_dict(state)
        left = [batch.clips.numpy().copy() for batch in loader]
    for (one, _, _), other in zip(whole[1:], left, strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_changed_bit_of_a_packet_is_found(shards, tmp_path):
    mine = shutil.copytree(shards, tmp_path / "shards")
    clip = ShardSet.open(mine).index("train").clip(1)
    where = clip.packet_extents(np.array([2]))
    data = bytearray((mine / clip.shard).read_bytes())
    data[int(where.offsets[0]) + 3] ^= 1
    (mine / clip.shard).write_bytes(data)
    for setup in ({}, {"workers": 1}):
        with pytest.raises(ActcliError, match="packet 2 of those that were read have changed"):
            batches(mine, num_frames=20, batch_size=1, **setup)
    with pytest.raises(ActcliError, match="000000001: its bytes have changed"):
        batches(mine, shuffle_buffer=1)


def test_dali_refuses_and_auto_takes_the_cpu(shards):
    import torch

    with pytest.raises(ActcliError, match="Use backend cpu"):
        batches(shards, backend="dali")
    assert choose_backend("auto", torch.device("cuda"), "source") == "cpu"
    assert choose_backend("auto", torch.device("cuda"), "mjpeg") == "dali"
    check_equal(batches(shards), batches(shards, backend="auto"))


def test_folders_of_videos_and_of_frames_cannot_be_joined(workspace, shards):
    with pytest.raises(ActcliError, match="same payload"):
        batches([shards, workspace / "mjpeg-shards"])
