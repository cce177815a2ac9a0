"""Pictures and videos made to do harm, or with a header that was changed: an error, before memory is taken."""

import io
import json
import os
import struct
import tracemalloc

import av
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.loaders import open_loader
from actcli.loaders.backends.jpeg import JpegDecoder, check_header
from actcli.loaders.backends.video import decode_frames
from actcli.loaders.views import Crop, Size
from actcli.shards.bounds import MAX_PIXELS

from .conftest import ShardMaker, flow_picture, jpeg, picture

SMALL = {"num_frames": 2, "size": 40, "scale_size": 40, "batch_size": 1, "workers": 0, "training": False}
STREAMS = pytest.mark.parametrize("buffer", [None, 2], ids=["index", "stream"])
BACKENDS = pytest.mark.parametrize("backend", ["cpu", "dali"])


def with_size(data, width, height):
    """A JPEG whose header says another size."""
    at = next(at for at in range(len(data)) if data[at : at + 2] in (b"\xff\xc0", b"\xff\xc2"))
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def clips_of(root, **setup):
    with open_loader(root, **SMALL | setup) as loader:
        return [batch.clips.clone() if batch.flow is None else batch.flow.clone() for batch in loader]


def needs_dali(backend):
    if backend == "dali":
        pytest.importorskip("nvidia.dali", reason="DALI exists for Linux on x86-64 only")


@BACKENDS
@STREAMS
@pytest.mark.parametrize("size", [(65500, 65500), (97, 64), (96, 63), (8, 8)])
def test_a_jpeg_of_another_size_than_the_index_says_is_refused(tmp_path, size, buffer, backend):
    needs_dali(backend)
    maker = ShardMaker(tmp_path)
    maker.add([with_size(jpeg(picture(0, frame)), *size) for frame in range(3)])
    root = maker.finish()
    with pytest.raises(ActcliError, match=rf"a picture has {size[0]} x {size[1]} pixels, the index says 96 x 64"):
        clips_of(root, shuffle_buffer=buffer, backend=backend)


@BACKENDS
def test_flow_larger_than_any_picture_is_refused(tmp_path, backend):
    needs_dali(backend)
    maker = ShardMaker(tmp_path, flow=True)
    flow = [with_size(jpeg(flow_picture(0, field, axis)), 65500, 65500) for field in range(3) for axis in (0, 1)]
    maker.add([jpeg(picture(0, frame)) for frame in range(4)], flow)
    with pytest.raises(ActcliError, match=f"a picture has 65500 x 65500 pixels, more than {MAX_PIXELS}"):
        clips_of(maker.finish(), modality="flow", flow_stack=2, backend=backend)


def test_a_header_is_looked_at_before_memory_is_taken():
    data = with_size(jpeg(picture(0, 0)), 65500, 65500)
    decoder, crops = JpegDecoder("RGB"), (Crop(0, 0, 64, 64, False),)
    tracemalloc.start()
    with pytest.raises(ValueError, match="65500 x 65500"):
        list(decoder.decode([data], crops, Size(96, 64), 40, checked=True))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@settings(max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes_have_a_good_header_or_are_refused(noise, cut):
    data = jpeg(picture(0, 0))
    for candidate in (noise, data[:cut], data[:cut] + noise + data[cut:], data[:2] + noise):
        try:
            check_header(candidate, Size(96, 64))
        except ValueError:
            continue
        assert simplejpeg.decode_jpeg_header(candidate)[:2] == (64, 96)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5), st.booleans())
def test_a_changed_jpeg_gives_pixels_of_its_size_or_an_error(changes, checked):
    data = bytearray(jpeg(picture(0, 0)))
    for position, value in changes:
        data[position % len(data)] = value
    crops = (Crop(10, 8, 40, 40, False),)
    try:
        [found] = JpegDecoder("RGB").decode([bytes(data)], crops, Size(96, 64), 40, checked)
    except ValueError:
        return
    [crop] = found.crops
    assert found.pixels[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width].shape == (40, 40, 3)


# --- Videos -----------------------------------------------------------------------------------------------------------


def video(width=96, height=64, codec="libx264", form="mp4", num_frames=12):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(0, number, width, height), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def video_shards(root, payload, num_frames=12):
    maker = ShardMaker(root)
    maker.add([], payload=(payload, num_frames))
    return maker.finish(payload="mp4")


@STREAMS
def test_a_video_of_another_size_than_the_index_says_is_refused(tmp_path, buffer):
    root = video_shards(tmp_path, video(128, 64))
    with pytest.raises(ActcliError, match="the video is h264 of 128 x 64 pixels; h264 or vp9 of 96 x 64"):
        clips_of(root, shuffle_buffer=buffer)


@pytest.mark.parametrize("form", ["matroska", "avi", "mpegts", "h264"])
def test_bytes_are_taken_for_mp4_whatever_they_look_like(tmp_path, form):
    root = video_shards(tmp_path, video(form=form))
    with pytest.raises(ActcliError, match=r"clip 000000000 in shard train-000000\.tar cannot be read"):
        clips_of(root)


def test_a_script_in_place_of_a_video_opens_nothing(tmp_path):
    (tmp_path / "secret.mp4").write_bytes(video())
    script = f"ffconcat version 1.0\nfile 'file:{tmp_path}/secret.mp4'\n".encode()
    root = video_shards(tmp_path / "s", script)
    with pytest.raises(ActcliError, match="cannot be read"):
        clips_of(root)


def test_another_codec_in_mp4_is_refused(tmp_path):
    root = video_shards(tmp_path, video(codec="mpeg4"))
    with pytest.raises(ActcliError, match="the video is mpeg4"):
        clips_of(root)


def test_more_frames_than_a_video_has_are_refused(tmp_path):
    root = video_shards(tmp_path, video(), num_frames=900)
    with pytest.raises(ActcliError, match="the video has 12"):
        clips_of(root)


@settings(max_examples=120)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_changed_video_gives_frames_of_its_size_or_an_error(changes):
    data = bytearray(PLAIN_VIDEO)
    for position, value in changes:
        data[position % len(data)] = value
    try:
        frames = list(decode_frames(bytes(data), [0, 5, 11], Size(96, 64)))
    except ActcliError:
        return
    assert {frame.shape for frame in frames} == {(64, 96, 3)}


PLAIN_VIDEO = video()


# --- Tars -------------------------------------------------------------------------------------------------------------


@STREAMS
@pytest.mark.parametrize("workers", [0, 2])
def test_a_pipe_in_place_of_a_tar_does_not_hang(make_shards, buffer, workers):
    root = make_shards(num_clips=2, num_shards=1)
    (root / "train-000000.tar").unlink()
    os.mkfifo(root / "train-000000.tar")
    with pytest.raises(ActcliError, match=r"train-000000\.tar"):
        clips_of(root, shuffle_buffer=buffer, workers=workers)


@pytest.mark.parametrize("what", ["label", "pixels"])
def test_one_changed_bit_of_a_stream_is_found_before_the_clip_is_used(make_shards, what):
    root = make_shards(num_clips=3, num_shards=1)
    path = root / "train-000000.tar"
    data = bytearray(path.read_bytes())
    at = data.index(b'"label":1') + 8 if what == "label" else data.index(b"000000001.mjpeg") + 512 + 400
    data[at] ^= 2
    path.write_bytes(data)
    given_out = []
    with (
        open_loader(root, shuffle_buffer=1, **SMALL) as loader,
        pytest.raises(ActcliError, match="clip 000000001: its bytes have changed since it was packed"),
    ):
        for batch in loader:
            given_out += batch.keys.tolist()
    assert given_out in ([], [0])


def test_labels_outside_the_classes_never_reach_a_batch(make_shards, reseal):
    root = make_shards(num_clips=3, num_shards=1)
    card = json.loads((root / "dataset.json").read_text())
    reseal(root, classes=tuple(card["classes"][:2]))
    with pytest.raises(ActcliError, match="clip 000000002: its label cannot be"):
        clips_of(root)
    with pytest.raises(ActcliError, match="its label is 2, there are 2 classes"):
        clips_of(root, shuffle_buffer=1)


def test_nvimagecodec_gives_its_pixels_without_the_interface_that_leaks():
    pytest.importorskip("nvidia.nvimgcodec", reason="nvImageCodec comes with DALI")
    data, crops = jpeg(picture(0, 0)), (Crop(0, 0, 40, 40, False),)
    decoder = JpegDecoder("RGB")

    def blocks(num_pictures):
        import sys

        for _ in decoder.decode([data] * num_pictures, crops, Size(96, 64), 40, checked=True):
            pass
        return sys.getallocatedblocks()

    before = blocks(50)
    assert blocks(2000) - before < 200
    assert np.asarray(next(iter(decoder.decode([data], crops, Size(96, 64), 40, True))).pixels).dtype == np.uint8
