"""Shards with a video payload: single frames, exactly those of a full decode."""

import io

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.loaders import open_loader
from actcli.loaders.backends.video import decode_frames
from actcli.loaders.views import Size

from .conftest import ShardMaker, flow_picture, jpeg, picture

SIZE = Size(96, 64)


def encode(num_frames, codec="libx264", width=96, height=64, **options):
    """A short video with B-frames and a key frame every 12 frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "18", **options})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, "yuv420p", 12
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(0, number, width, height), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def decode_all(payload):
    with av.open(io.BytesIO(payload)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture(scope="module")
def video():
    payload = encode(40)
    return payload, decode_all(payload)


@settings(max_examples=40)
@given(frames=st.sets(st.integers(0, 39), min_size=1))
def test_single_frames_are_those_of_a_full_decode(video, frames):
    payload, whole = video
    wanted = sorted(frames)
    got = list(decode_frames(payload, wanted, SIZE))
    assert len(got) == len(wanted)
    for frame, pixels in zip(wanted, got, strict=True):
        np.testing.assert_array_equal(pixels, whole[frame])


def test_a_frame_beyond_the_end_is_refused(video):
    with pytest.raises(ActcliError, match="frame 40 was asked for, the video has 40"):
        list(decode_frames(video[0], [3, 40], SIZE))


def test_a_damaged_video_is_refused(video):
    with pytest.raises(ActcliError, match="cannot be decoded"):
        list(decode_frames(video[0][:500], [0], SIZE))


def video_shards(root, payloads):
    maker = ShardMaker(root)
    for payload, num_frames in payloads:
        maker.add([], payload=(payload, num_frames))
    return maker.finish(payload="mp4")


SETUP = {"num_frames": 5, "size": 64, "scale_size": 64, "batch_size": 2, "training": False}


def test_a_loader_of_video_shards_gives_the_frames_of_a_full_decode(tmp_path, video):
    root = video_shards(tmp_path, [(video[0], 40)] * 3)
    for workers in (0, 2):
        with open_loader(root, workers=workers, **SETUP) as loader:
            batches = [batch.clips.clone() for batch in loader]
        assert [len(batch) for batch in batches] == [2, 1]
        for clip in batches[0]:
            for segment, frame in enumerate((4, 12, 20, 28, 36)):
                np.testing.assert_array_equal(clip[0, segment].movedim(0, -1).numpy(), video[1][frame][:, 16:80])


def test_a_streamed_video_shard_gives_the_indexed_batches(tmp_path, video):
    root = video_shards(tmp_path, [(video[0], 40)] * 3)
    with (
        open_loader(root, workers=0, **SETUP) as indexed,
        open_loader(root, workers=0, shuffle_buffer=2, **SETUP) as streamed,
    ):
        for one, other in zip(indexed, streamed, strict=True):
            np.testing.assert_array_equal(one.clips.numpy(), other.clips.numpy())


def test_a_broken_video_names_shard_and_clip(tmp_path, video):
    root = video_shards(tmp_path, [(video[0], 40), (bytes(3000), 40)])
    with open_loader(root, workers=0, **SETUP) as loader, pytest.raises(ActcliError, match="clip 000000001 in shard"):
        list(loader)


def test_one_changed_byte_of_a_video_is_found(tmp_path, video):
    """H.264 decoders conceal most damage."""
    root = video_shards(tmp_path, [(video[0], 40)])
    data = bytearray((root / "train-000000.tar").read_bytes())
    data[len(data) // 2] ^= 1
    (root / "train-000000.tar").write_bytes(data)
    with open_loader(root, workers=0, **SETUP) as loader, pytest.raises(ActcliError, match="bytes of the video have"):
        list(loader)


def test_flow_beside_a_video_is_read_as_ever(tmp_path, video):
    maker = ShardMaker(tmp_path, flow=True)
    fields = [jpeg(flow_picture(0, field, axis)) for field in range(39) for axis in (0, 1)]
    maker.add([], fields, payload=(video[0], 40))
    root = maker.finish(payload="mp4")
    with open_loader(root, modality="two_stream", workers=0, **SETUP) as loader:
        both = next(iter(loader))
    for name, backend in (("rgb", "cpu"), ("flow", "cpu"), ("flow", "dali")):
        with open_loader(root, modality=name, workers=1, backend=backend, flow_stack=10, **SETUP) as loader:
            alone = next(iter(loader)).clips
        assert alone.shape == getattr(both, name).shape
        if name == "rgb":
            np.testing.assert_array_equal(alone.numpy(), both.rgb.numpy())


def check_same_frames(cpu, dali):
    """DALI spreads the colour planes over the pixels in another way, so the right frame is near, not equal."""
    for ours, theirs in zip(cpu, dali, strict=True):
        assert ours.keys.tolist() == theirs.keys.tolist()
        for one, other in zip(ours.clips[:, 0].int(), theirs.clips[:, 0].cpu().int(), strict=True):
            distance = (one[:, None] - other[None]).abs().float().mean((2, 3, 4))
            assert distance.diag().max() < 3
            assert (distance + 100 * torch.eye(len(one))).min() > 10


def test_dali_decodes_the_frames_of_a_video_shard(tmp_path):
    """DALI decodes VP9 on the CPU, and H.264 on the GPU alone."""
    payload = encode(30, "libvpx-vp9")
    root = video_shards(tmp_path, [(payload, 30)] * 3)
    with open_loader(root, workers=0, **SETUP) as cpu, open_loader(root, workers=1, backend="dali", **SETUP) as dali:
        check_same_frames(cpu, dali)


@pytest.mark.gpu
def test_dali_decodes_the_frames_of_an_h264_shard_on_the_gpu(tmp_path, video):
    root = video_shards(tmp_path, [(video[0], 40)] * 3)
    with (
        open_loader(root, workers=0, **SETUP) as cpu,
        open_loader(root, workers=1, backend="dali", device="cuda", **SETUP) as dali,
    ):
        check_same_frames(cpu, dali)
