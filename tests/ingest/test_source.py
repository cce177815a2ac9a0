"""Single frames of a video file, read from some of its bytes: to the bit those that extraction decodes."""

import json
from dataclasses import replace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from videos import encode

from actcli.errors import ActcliError
from actcli.facts import plain
from actcli.ingest.decode import VideoClip
from actcli.ingest.failure import ClipFailure
from actcli.ingest.packets import decode_planes, read_planes
from actcli.ingest.sizing import DecodeSettings
from actcli.ingest.source import DecodedFrames, index_video
from actcli.ingest.video_index import Stretch, VideoIndex

CLIPS = [
    "arm_wrestling_h264.mp4",
    "av1.mkv",
    "bt709_full_range.mp4",
    "h264_10bit.mp4",
    "hevc_10bit.mp4",
    "kinetics_flipping_pancake.mkv",
    "mma_test_h264.mp4",
    "mma_test_xvid.avi",
    "part0_h264.mp4",
    "rotated_0.mov",
    "rotated_180.mov",
    "rotated_270.mov",
    "rotated_90.mov",
    "street_h264.mp4",
    "unordered.mov",
]
"""The sound ones of the reference footage; ``benchmarks/payloads.py`` does the long ones too."""
OPEN_GOP = {"x264-params": "log-level=none:open-gop=1:bframes=3:scenecut=0"}
QUIET = {"x265-params": "log-level=none"}


def indexed(path, decode=DecodeSettings(), start=None, end=None):  # noqa: B008  frozen
    """What extraction decodes, and the index that was made from it."""
    decoded = DecodedFrames()
    with VideoClip(path, decode, start, end) as clip:
        decoded.read(clip)
    with VideoClip(path, decode, start, end) as clip:
        whole = list(clip)
    video, sizes = index_video(path, clip, decoded)
    video.check(sizes, len(whole), path.stat().st_size)
    return whole, video, sizes, path.read_bytes()


def read_frames(video, sizes, data, size, frames):
    """Frames from the bytes of the packets that the index asks for, and nothing else."""
    return list(read_planes(video, sizes, frames, size, lambda offset, count: data[offset : offset + count]))


def check_frames(whole, video, sizes, data, num_trials=4):
    """All frames at once, and some of them, are those of the whole."""
    size = (whole[0][0].shape[1], whole[0][0].shape[0])
    rng = np.random.default_rng(0)
    for trial in range(num_trials):
        chosen = np.unique(rng.integers(0, len(whole), 3)) if trial else np.arange(len(whole))
        found = read_frames(video, sizes, data, size, chosen)
        assert len(found) == len(chosen)
        for frame, planes in zip(chosen, found, strict=True):
            for plane, expected in zip(planes, whole[frame], strict=True):
                np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize("name", CLIPS)
def test_single_frames_of_real_clips_are_those_of_the_extraction(clips_dir, name):
    check_frames(*indexed(clips_dir / name))


@pytest.mark.parametrize(
    ("name", "codec", "options", "num_keys"),
    [
        ("x264.mp4", "libx264", {"g": 12, "sc_threshold": 0}, 4),
        ("b_frames.avi", "libx264", {"bf": 2, "sc_threshold": 0}, 4),
        ("flash.flv", "libx264", {"sc_threshold": 0}, 4),
        ("open_gop.mp4", "libx264", OPEN_GOP, 4),
        ("open_gop.mkv", "libx265", QUIET, 4),
        ("no_key_but_the_first.mp4", "libx264", {"intra-refresh": 1}, 1),
        ("ten_bit.mkv", "libx265", QUIET | {"pix_fmt": "yuv420p10le"}, 4),
        ("no_subsampling.mp4", "libx264", {"pix_fmt": "yuv444p", "sc_threshold": 0}, 4),
        ("mpeg4.avi", "mpeg4", {"bf": 2}, 4),
        ("mpeg4.mp4", "mpeg4", {"bf": 2}, 4),
        ("divx3.avi", "msmpeg4", {}, 4),
        ("mpeg2.mkv", "mpeg2video", {"bf": 2}, 4),
        ("vp8.webm", "libvpx", {}, 4),
        ("vp9.webm", "libvpx-vp9", {}, 4),
        ("av1.webm", "libsvtav1", {"svtav1-params": "keyint=12"}, None),
        ("pictures.avi", "mjpeg", {"pix_fmt": "yuvj420p"}, 40),
        ("one.mp4", "libx264", {"num_frames": 1}, 1),
        ("two.webm", "libvpx-vp9", {"num_frames": 2}, 1),
        ("stream.ts", "libx264", {}, 0),
        ("program.mpg", "mpeg2video", {"bf": 2}, 0),
        ("windows.wmv", "wmv2", {}, 0),
    ],
)
def test_single_frames_are_those_of_the_extraction(tmp_path, name, codec, options, num_keys):
    """The number of key packets that are used says that the fast way is taken: 0 is the whole file."""
    whole, video, sizes, data = indexed(encode(tmp_path / name, codec, **options))
    assert num_keys in (None, len(video.key_packets))
    check_frames(whole, video, sizes, data)


def test_what_lies_in_memory_behind_packets_is_not_read(tmp_path):
    """MPEG-4 looks at the bytes behind a packet; they have to be zeros, as those behind the codec's header."""
    whole, video, sizes, data = indexed(encode(tmp_path / "clip.mp4", "mpeg4", bf=2))
    for filler in (b"\x01", b"\xff", b"7") * 3:
        garbage = [filler * size for size in range(33, 3000)]
        del garbage
        check_frames(whole, video, sizes, data, num_trials=2)


def test_few_packets_are_read_for_one_frame(tmp_path):
    _, video, sizes, _ = indexed(encode(tmp_path / "clip.mp4", sc_threshold=0))
    [stretch] = video.stretches(np.array([26]), len(sizes))
    assert stretch.first == 24
    assert stretch.end - stretch.first <= 3 + video.delay


def test_where_a_container_says_that_chroma_lies_changes_no_frame(tmp_path):
    """The scaler goes by it, and packets alone do not tell."""
    for place in ("center", "topleft"):
        encode(tmp_path / f"{place}.mkv", "libvpx", chroma_sample_location=place)
    marked = indexed(tmp_path / "topleft.mkv", DecodeSettings(48))
    assert len(marked[1].key_packets) > 1
    check_frames(*marked)
    for ours, theirs in zip(marked[0], indexed(tmp_path / "center.mkv", DecodeSettings(48))[0], strict=True):
        assert all(map(np.array_equal, ours, theirs))


def test_the_container_decides_on_the_suffix(tmp_path):
    path = encode(tmp_path / "clip.webm", "libvpx-vp9", num_frames=3).rename(tmp_path / "clip.mp4")
    assert indexed(path)[1].container == "mkv"


@pytest.mark.parametrize("fps", [7.0, 60.0])
def test_a_rate_is_kept_exactly(clips_dir, fps):
    whole, video, sizes, data = indexed(clips_dir / "part0_h264.mp4", DecodeSettings(fps=fps))
    assert len(video.frame_pictures) == len(whole)
    check_frames(whole, video, sizes, data)


def test_a_part_of_a_longer_video_is_cut_exactly(clips_dir):
    path = clips_dir / "mma_test_h264.mp4"
    whole, video, sizes, data = indexed(path, start=8.5, end=9.5)
    assert len(whole) == 30
    assert len(sizes) < 70  # the packets before the key frame at 7.8 s are not listed
    check_frames(whole, video, sizes, data)


def test_times_are_kept_where_frames_do_not_come_evenly(clips_dir):
    _, video, _, _ = indexed(clips_dir / "part0_h264.mp4")
    assert (len(video.frame_times), video.frame_times[0]) == (32, 0)
    assert (np.diff(video.frame_times) > 0).all()
    assert not len(indexed(clips_dir / "street_h264.mp4")[1].frame_times)


def repeat_first_frame(path, times):
    """Let the tables of a QuickTime file of one chunk say ``times`` chunks, each of them its first frame."""
    data = path.read_bytes()
    moov = data.index(b"moov") - 4

    def box(name):
        begin = data.index(name, moov) - 4
        return begin, int.from_bytes(data[begin : begin + 4], "big")

    stco, stco_size = box(b"stco")
    first = data[stco + 16 : stco + 20]
    grown = bytearray(data[:stco] + (16 + 4 * times).to_bytes(4, "big") + b"stco" + bytes(4) + times.to_bytes(4, "big"))
    grown += first * times + data[stco + stco_size :]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
        begin, size = box(name)
        grown[begin : begin + 4] = (size + 16 + 4 * times - stco_size).to_bytes(4, "big")
    stsz = grown.index(b"stsz", moov)
    grown[stsz + 8 : stsz + 12], grown[stsz + 12 : stsz + 16] = grown[stsz + 16 : stsz + 20], times.to_bytes(4, "big")
    stts = grown.index(b"stts", moov)
    grown[stts + 12 : stts + 16] = times.to_bytes(4, "big")
    stsc = grown.index(b"stsc", moov)
    grown[stsc + 16 : stsc + 20] = (1).to_bytes(4, "big")
    path.write_bytes(grown.replace(b"edts", b"free"))


def test_a_video_whose_tables_name_the_same_bytes_many_times_is_read_whole(tmp_path):
    path = encode(tmp_path / "a.mov", "mjpeg", num_frames=2, pix_fmt="yuvj420p")
    repeat_first_frame(path, 60)
    whole, video, sizes, data = indexed(path)
    assert (len(whole), video.is_whole) == (60, True)
    check_frames(whole, video, sizes, data)


def test_an_index_survives_json(tmp_path):
    _, video, _, _ = indexed(encode(tmp_path / "clip.mp4", **OPEN_GOP))
    assert plain(VideoIndex.of(json.loads(json.dumps(plain(video))))) == plain(video)


def test_sound_alone_is_no_video(tmp_path):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(ClipFailure, match="no video stream"):
        VideoClip(path, DecodeSettings())


# --- Plain integers ---------------------------------------------------------------------------------------------------


def made_index(**changes):
    facts = {
        "container": "mp4",
        "codec": "h264",
        "extradata": "00ff",
        "colour_range": 1,
        "colour_matrix": 2,
        "reorder": 1,
        "picture_width": 96,
        "picture_height": 64,
        "turn": 0,
        "delay": 2,
        "packet_gaps": np.array([32, *[0] * 9], np.int32),
        "key_packets": np.array([0, 5], np.uint32),
        "key_pictures": np.array([0, 5], np.uint32),
    }
    return VideoIndex(**(facts | changes))


SIZES = np.full(10, 100, np.uint32)


def test_stretches_begin_at_the_key_packet_before():
    stretches = made_index().stretches(np.array([3, 4, 7]), 10)
    assert stretches == [Stretch(0, 6, [3, 4]), Stretch(5, 9, [2])]
    assert made_index().stretches(np.array([9]), 10) == [Stretch(5, 10, [4])]
    repeated = made_index(frame_pictures=np.array([0, 0, 6, 6], np.uint32))
    assert repeated.stretches(np.array([0, 1, 3]), 10) == [Stretch(0, 2, [0, 0]), Stretch(5, 8, [1])]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"container": "ffconcat"}, "not known"),
        ({"codec": "png"}, "not known"),
        ({"extradata": "0g"}, "hex"),
        ({"extradata": "00" * 70_000}, "too large"),
        ({"picture_width": 70_000, "picture_height": 70_000}, "pixels"),
        ({"picture_width": 0}, "pixels"),
        ({"turn": 8}, "turn"),
        ({"reorder": 99}, "holds back"),
        ({"delay": 0}, "no order"),
        ({"packet_gaps": np.array([32])}, "places"),
        ({"packet_gaps": np.array([-1, *[0] * 9])}, "outside"),
        ({"packet_gaps": np.array([500, *[-100] * 9], np.int32)}, "more bytes"),
        ({"packet_gaps": np.array([(1 << 31) - 1] * 10, np.int32)}, "outside"),
        ({"packet_gaps": np.array([-(1 << 31)] * 10, np.int32)}, "outside"),
        ({"key_packets": np.array([5, 0], np.uint32)}, "no order"),
        ({"key_packets": np.array([0, 10], np.uint32)}, "among its packets"),
        ({"key_packets": np.array([], np.uint32)}, "no key packet"),
        ({"key_pictures": np.array([1, 5], np.uint32)}, "among its packets"),
        ({"key_pictures": np.array([0], np.uint32)}, "no order"),
        ({"frame_pictures": np.array([0, 1], np.uint32)}, "one picture"),
        ({"frame_pictures": np.array([3, 1, 2, 4, 5, 6, 7, 8, 9, 10], np.uint32)}, "no order"),
        ({"frame_times": np.array([0])}, "one picture, or time"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(changes, reason):
    made_index().check(SIZES, 10, 1032)
    with pytest.raises(ValueError, match=reason):
        made_index(**changes).check(SIZES, 10, 1032 if reason != "more bytes" else 600)
    with pytest.raises(ValueError, match="outside"):
        made_index().check(SIZES, 10, 1031)


# --- Harm -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain_video(tmp_path_factory):
    path = encode(tmp_path_factory.mktemp("video") / "clip.mp4", num_frames=14)
    return indexed(path)[1:]


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_packets_give_frames_of_their_size_or_an_error(plain_video, changes):
    video, sizes, data = plain_video
    changed = bytearray(data)
    for position, value in changes:
        changed[position % len(changed)] = value
    try:
        frames = read_frames(video, sizes, bytes(changed), (96, 64), [0, 5, 11])
    except ActcliError:
        return
    assert [plane.shape for frame in frames for plane in frame] == [(64, 96), (32, 48), (32, 48)] * 3


def test_pictures_larger_than_the_index_says_take_no_memory(tmp_path):
    _, video, sizes, data = indexed(encode(tmp_path / "clip.mp4", width=1280, height=720, num_frames=2))
    small = replace(video, picture_width=96, picture_height=64)
    with pytest.raises(ActcliError, match="cannot be decoded"):
        read_frames(small, sizes, data, (96, 64), [0])


def test_a_script_in_place_of_packets_opens_nothing(tmp_path, plain_video):
    video, _, _ = plain_video
    script = f"ffconcat version 1.0\nfile 'file:{tmp_path}/secret.mp4'\n".encode()
    encode(tmp_path / "secret.mp4")
    with pytest.raises(ActcliError):
        list(decode_planes(video.setup(), [script], [0], (96, 64), is_whole=False))
    for container in ("mp4", "ts"):
        with pytest.raises(ActcliError):
            list(decode_planes(replace(video.setup(), container=container), [script], [0], (96, 64), is_whole=True))


def test_fewer_pictures_than_the_index_says_are_an_error(plain_video):
    video, sizes, data = plain_video
    with pytest.raises(ActcliError, match="ends before its picture"):
        read_frames(video, sizes, data, (96, 64), [5, 99])


@settings(max_examples=60)
@given(
    st.sampled_from(["h264", "hevc", "vp9", "av1", "mpeg4", "msmpeg4v3", "theora", "mjpeg"]),
    st.binary(max_size=80),
    st.integers(0, 16),
    st.integers(0, 7),
)
def test_any_header_gives_frames_of_their_size_or_an_error(plain_video, codec, header, reorder, turn):
    video, sizes, data = plain_video
    changed = replace(video, codec=codec, extradata=header.hex(), reorder=reorder, turn=turn)
    changed.check(sizes, 14, len(data))
    try:
        frames = read_frames(changed, sizes, data, (96, 64), [0, 5])
    except ActcliError:
        return
    assert [plane.shape for frame in frames for plane in frame] == [(64, 96), (32, 48), (32, 48)] * 2
