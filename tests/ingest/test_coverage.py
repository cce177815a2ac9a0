"""Damage inside a file, which demuxers and decoders pass over, against what only looks like it."""

import os
import subprocess

import av
import imageio_ffmpeg
import numpy as np
import pytest

from actcli.ingest.decode import VideoClip
from actcli.ingest.failure import ClipFailure
from actcli.ingest.sizing import DecodeSettings

from .test_decode import encode, noise, ramp, read, solid


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def zeroed(path, begin, share):
    data = bytearray(path.read_bytes())
    start, size = int(len(data) * begin), int(len(data) * share)
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
    return path


def shown(path):
    """Frames that come before the end or the failure, and the failure if there is one."""
    frames = []
    try:
        with VideoClip(path, DecodeSettings(short_side=16)) as clip:
            for planes in clip:
                frames.append(planes)
    except ClipFailure as failure:
        return len(frames), failure
    return len(frames), None


@pytest.mark.parametrize("begin", [0.3, 0.45, 0.7])
@pytest.mark.parametrize("name", ["kinetics_flipping_pancake.mkv", "mma_test_xvid.avi", "bt709_full_range.mp4"])
def test_a_tenth_of_a_real_video_zeroed_is_a_failure(clips_dir, tmp_path, name, begin):
    path = tmp_path / name
    path.write_bytes((clips_dir / name).read_bytes())
    num_frames, failure = shown(zeroed(path, begin, 0.1))
    assert num_frames > 0
    assert failure.stage == "decode"


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("x.mkv", "libx264"),
        ("x.webm", "libvpx"),
        ("x9.webm", "libvpx-vp9"),
        ("lossless.mkv", "ffv1"),
        ("x.flv", "flv"),
        ("x.ts", "libx264"),
        ("x.mpg", "mpeg2video"),
        ("x.wmv", "wmv2"),
        ("x.avi", "mjpeg"),
        ("x.3gp", "mpeg4"),
        ("x.mp4", "libx264"),
    ],
)
def test_a_hole_is_a_failure_in_every_container(tmp_path, name, codec):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = {"g": "10", "b": "4000000", "deadline": "realtime", "cpu-used": "8"} | (
        {"cluster_time_limit": "500"} if "mkv" in name else {}
    )
    path = encode(
        tmp_path / name,
        noise(60, *((320, 240) if codec == "wmv2" else (160, 120))),
        codec=codec,
        pix_fmt=pix_fmt,
        rate=25,
        options=options,
    )
    assert shown(path) == (60, None)
    num_frames, failure = shown(zeroed(path, 0.4, 0.1))
    assert 0 < num_frames < 60
    assert failure.stage == "decode"


def test_av1_pictures_that_its_decoder_passes_over_are_missed(clips_dir, tmp_path):
    path = tmp_path / "x.mp4"
    ffmpeg("-i", clips_dir / "av1.mkv", "-c", "copy", path)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    place, size = min(packets[20:60], key=lambda packet: packet[1])
    data = bytearray(path.read_bytes())
    data[place : place + size] = bytes(size)
    path.write_bytes(data)
    assert shown(path)[1] is not None


def test_av1_pictures_that_an_edit_list_hides_are_not_missed(clips_dir, tmp_path):
    path = tmp_path / "x.mp4"
    ffmpeg("-ss", "2.6", "-i", clips_dir / "av1.mkv", "-c", "copy", path)
    with av.open(str(path)) as container:
        assert any(packet.is_discard for packet in container.demux(video=0))
    num_frames, failure = shown(path)
    assert failure is None
    assert num_frames > 0


def with_subtitles(video, path):
    subtitles = path.with_suffix(".srt")
    subtitles.write_text("1\n00:00:00,000 --> 00:00:30,000\nlong after the end\n")
    ffmpeg("-i", video, "-i", subtitles, "-map", "0:v", "-map", "1", "-c:v", "copy", "-c:s", "srt", path)
    return path


def test_subtitles_that_outlast_the_video_are_no_truncation(tmp_path):
    video = encode(tmp_path / "video.mkv", ramp(10))
    assert shown(with_subtitles(video, tmp_path / "x.mkv")) == (10, None)


def test_a_picture_that_stands_still_is_no_hole(tmp_path):
    path = encode(tmp_path / "x.mkv", noise(8), times=[0, 40, 80, 120, 5000, 5040, 5080, 5120])
    assert shown(path) == (8, None)


def test_the_cut_last_picture_of_a_recording_is_kept(tmp_path):
    path = encode(tmp_path / "x.ts", noise(30, 160, 120), codec="mpeg2video", rate=25, options={"b": "2000000"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 188 * 8])
    num_frames, failure = shown(path)
    assert failure is None
    assert num_frames == len(ffmpeg("-i", path, "-s", "2x2", "-f", "rawvideo", "-pix_fmt", "gray", "-")) // 4


@pytest.mark.parametrize("name", ["x.mkv", "x.ts", "x.mp4"])
def test_an_open_group_of_pictures_at_the_start_gives_what_ffmpeg_gives(tmp_path, name):
    whole = encode(
        tmp_path / "whole.ts", noise(60), rate=25, options={"x264-params": "open-gop=1:keyint=12:bframes=3:scenecut=0"}
    )
    path = tmp_path / name
    ffmpeg("-ss", "1.5", "-i", whole, "-c", "copy", "-copyinkf", path)
    counted = ffmpeg("-i", path, "-fps_mode", "passthrough", "-s", "2x2", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    assert shown(path) == (len(counted) // 4, None)


def test_the_error_of_a_cut_video_is_in_plain_words(clips_dir, tmp_path):
    path = tmp_path / "x.mp4"
    data = (clips_dir / "part0_h264.mp4").read_bytes()
    path.write_bytes(data[: int(len(data) * 0.97)])
    failure = shown(path)[1]
    assert failure is None or ("Input/output" not in failure.message and failure.error != "OSError")


def test_a_video_of_which_only_the_header_is_there_is_said_to_break_off(tmp_path):
    whole, path = encode(tmp_path / "whole.webm", noise(3), codec="libvpx-vp9"), tmp_path / "x.webm"
    path.write_bytes(whole.read_bytes()[:200])
    failure = shown(path)[1]
    assert (failure.error, failure.stage) == ("TruncatedVideo", "open")
    assert "breaks off" in failure.message


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{name}\n#EXT-X-ENDLIST\n"
CONCAT = "ffconcat version 1.0\nfile {name}\n"
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n"


@pytest.mark.parametrize("text", [PLAYLIST, CONCAT, SDP])
def test_a_script_under_a_videos_name_opens_nothing_else(tmp_path, text):
    encode(tmp_path / "neighbour.ts", solid())
    (tmp_path / "x.mp4").write_text(text.format(name="neighbour.ts"))
    with pytest.raises(ClipFailure) as failure:
        read(tmp_path / "x.mp4")
    assert failure.value.stage == "open"


def test_a_named_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(ClipFailure, match=r"x\.mp4 is a named pipe, not a file"):
        read(tmp_path / "x.mp4")


def test_a_picture_of_ten_thousand_megapixels_is_refused(tmp_path):
    path = encode(tmp_path / "x.avi", solid(), codec="rawvideo")
    data = path.read_bytes()
    side = (64).to_bytes(4, "little") + (48).to_bytes(4, "little")
    path.write_bytes(data.replace(side, (100_000).to_bytes(4, "little") * 2))
    with pytest.raises(ClipFailure):
        read(path)


def test_a_frame_that_no_jpeg_can_hold_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("actcli.ingest.decode.MAX_SIDE", 60)
    with pytest.raises(ClipFailure, match="frames of 64x48 pixels are refused"):
        read(encode(tmp_path / "x.mkv", solid()))


@pytest.mark.parametrize("flips", [(), ("-display_hflip",), ("-display_vflip",), ("-display_hflip", "-display_vflip")])
@pytest.mark.parametrize("angle", [0, 90, 180, 270])
def test_turned_and_mirrored_display_matrices_are_applied_as_ffmpeg_does(tmp_path, angle, flips):
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(0, 256, (48, 64, 1), np.uint8), 3, axis=2)
    plain = encode(tmp_path / "plain.mp4", [image] * 2, options={"qp": "0"}, pix_fmt="yuvj420p", full=True)
    path = tmp_path / "turned.mp4"
    ffmpeg("-display_rotation", angle, *flips, "-i", plain, "-c", "copy", path)
    y = read(path)[0][0]
    theirs = np.frombuffer(
        ffmpeg("-i", path, "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "yuvj420p", "-"), np.uint8
    )
    assert y.shape == ((64, 48) if angle in (90, 270) else (48, 64))
    assert np.array_equal(y.ravel(), theirs[: y.size])
