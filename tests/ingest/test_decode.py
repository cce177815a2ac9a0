import os
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
import simplejpeg

from actcli.ingest.decode import TO_FULL_RANGE, VideoClip
from actcli.ingest.failure import ClipFailure
from actcli.ingest.sizing import DecodeSettings, target_size

COLOUR = (200, 60, 30)


def encode(
    path, images, *, codec="libx264", pix_fmt="yuv420p", rate=10, options=None, times=None, matrix=None, full=False
):
    """Write RGB images; ``matrix`` and ``full`` set both the pixels and the marks of the stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if times:
            stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        if matrix:
            stream.codec_context.colorspace = matrix
        if full:
            stream.codec_context.color_range = 2
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if pix_fmt != "rgb24":
                frame = frame.reformat(
                    format=pix_fmt,
                    dst_colorspace=matrix or 5,
                    dst_color_range=2 if full else 1,
                )
            if times:
                frame.pts, frame.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def solid(width=64, height=48, count=5, colour=COLOUR):
    return [np.full((height, width, 3), colour, np.uint8)] * count


def ramp(count, width=64, height=48):
    """Frame i is grey of level 10 + 10 i."""
    return [np.full((height, width, 3), 10 + 10 * index, np.uint8) for index in range(count)]


def read(path, **settings):
    clip_range = {name: settings.pop(name) for name in ("start", "end") if name in settings}
    with VideoClip(path, DecodeSettings(**settings), **clip_range) as clip:
        return list(clip)


def rgb(planes):
    return simplejpeg.decode_jpeg(simplejpeg.encode_jpeg_yuv_planes(*planes, 98))


def levels(frames):
    return [round((float(y.mean()) - 10) / 10) for y, _, _ in frames]


KNOWN_CLIPS = {  # file: frames, (width, height) at short side 256, fps
    "arm_wrestling_h264.mp4": (280, (426, 256), 28),
    "av1.mkv": (125, (456, 256), 25),
    "bt709_full_range.mp4": (30, (456, 256), 30),
    "h264_10bit.mp4": (30, (200, 200), 30),
    "hevc_10bit.mp4": (30, (200, 200), 30),
    "kinetics_flipping_pancake.mkv": (310, (426, 240), 30),
    "mma_test_h264.mp4": (300, (454, 256), 30),
    "mma_test_xvid.avi": (164, (320, 240), 25),
    "nasa_13013_h264_bframes.mp4": (390, (456, 256), 29.97),  # the larger of its two video streams
    "part0_h264.mp4": (32, (454, 256), 30),
    "rotated_0.mov": (3, (454, 256), 30),
    "rotated_180.mov": (3, (454, 256), 30),
    "rotated_270.mov": (3, (256, 454), 30),
    "rotated_90.mov": (3, (256, 454), 30),
    "street_h264.mp4": (57, (340, 256), 6),
    "unordered.mov": (4, (50, 50), 32),
}


@pytest.mark.parametrize("name", KNOWN_CLIPS)
def test_real_clips_give_every_frame_upright_and_square(clips_dir, name):
    num_frames, size, fps = KNOWN_CLIPS[name]
    with VideoClip(clips_dir / name, DecodeSettings()) as clip:
        frames = list(clip)
    assert len(frames) == num_frames
    assert {(y.shape[1], y.shape[0]) for y, _, _ in frames} == {size}
    assert {(2 * u.shape[1], 2 * v.shape[0]) for _, u, v in frames} == {size}
    assert clip.fps == pytest.approx(fps, abs=0.1)


def test_real_corrupt_clip_fails_after_the_frames_before_the_break(clips_dir):
    frames = []
    with (
        pytest.raises(ClipFailure, match="Invalid data") as failure,
        VideoClip(clips_dir / "corrupted.mp4", DecodeSettings(short_side=64)) as clip,
    ):
        for planes in clip:
            frames.append(planes)
    assert failure.value.stage == "decode"
    assert len(frames) == 28


def test_rotated_clips_show_the_same_scene(clips_dir):
    """The four files show one scene, recorded in four positions: its sky is above its ground in all of them."""
    for name in ("rotated_0.mov", "rotated_90.mov", "rotated_180.mov", "rotated_270.mov"):
        y = read(clips_dir / name)[0][0]
        ours = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg_yuv_planes(y, None, None, 90), "GRAY")[..., 0]
        with av.open(str(clips_dir / name)) as container:
            frame = next(container.decode(video=0))
        turned = np.rot90(frame.to_ndarray(format="gray"), k=round(frame.rotation / 90))
        step_y, step_x = turned.shape[0] / ours.shape[0], turned.shape[1] / ours.shape[1]
        rows = (np.arange(0, ours.shape[0], 8) * step_y).astype(int)
        columns = (np.arange(0, ours.shape[1], 8) * step_x).astype(int)
        samples = turned[np.ix_(rows, columns)]
        assert np.corrcoef(samples.ravel(), ours[::8, ::8].ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("width", "height", "settings", "expected"),
    [
        (1280, 720, {}, (456, 256)),
        (720, 1280, {}, (256, 456)),
        (340, 256, {}, (340, 256)),
        (427, 240, {}, (426, 240)),
        (427, 240, {"upscale": True}, (456, 256)),
        (427, 241, {"short_side": 0}, (426, 240)),
        (1920, 1080, {"short_side": 0}, (1920, 1080)),
        (641, 361, {"short_side": 180}, (320, 180)),
    ],
)
def test_target_size(width, height, settings, expected):
    assert target_size(width, height, DecodeSettings(**settings)) == expected


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "matrix", "full"),
    [
        ("libx264", "yuv420p", None, False),
        ("libx264", "yuv420p", None, True),
        ("libx264", "yuvj420p", None, True),
        ("libx264", "yuv420p", 1, False),
        ("libx264", "yuv420p", 1, True),
        ("libx264", "yuv444p", None, False),
        ("libx264", "yuv444p", 1, True),
        ("libx264", "yuv422p10le", None, False),
        ("libx264", "yuv420p10le", 1, False),
        ("png", "rgb24", None, False),
        ("mpeg4", "yuv420p", None, False),
    ],
)
def test_colours_survive_every_range_matrix_and_pixel_format(tmp_path, codec, pix_fmt, matrix, full):
    options = {"crf": "4"} if codec == "libx264" else {}
    path = tmp_path / ("x.mov" if codec == "png" else "x.mkv")
    encode(path, solid(), codec=codec, pix_fmt=pix_fmt, options=options, matrix=matrix, full=full)
    image = rgb(read(path)[2])
    assert np.abs(image.reshape(-1, 3).mean(0) - COLOUR).max() < 4


@pytest.mark.parametrize(("plane", "low", "high", "centre"), [(0, 16, 235, 0), (1, 16, 240, 128), (2, 16, 240, 128)])
def test_every_level_of_limited_range_comes_to_the_nearest_of_full_range(plane, low, high, centre):
    gain, offset = TO_FULL_RANGE[plane]
    levels = np.arange(256, dtype=np.uint8)[None]
    exact = (levels.astype(int) - (centre or low)) * 255 / (high - low) + centre
    found = cv2.addWeighted(levels, gain, levels, 0, offset)
    np.testing.assert_array_equal(found, np.clip(np.rint(exact), 0, 255))


def test_odd_sizes_lose_one_line_and_are_not_resampled(tmp_path):
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(0, 256, (49, 65, 1), np.uint8), 3, axis=2)
    path = encode(tmp_path / "odd.mkv", [image], codec="ffv1", pix_fmt="yuv444p", full=True)
    y, u, _ = read(path)[0]
    assert y.shape == (48, 64)
    assert u.shape == (24, 32)
    assert np.abs(y.astype(int) - image[:48, :64, 0]).max() <= 1


@pytest.mark.parametrize(
    ("short_side", "size"), [(40, "80:40"), (24, "48:24"), (96, "192:96")], ids=["a little", "by half", "enlarged"]
)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p"])
def test_resized_frames_are_those_of_ffmpegs_scale(tmp_path, pix_fmt, short_side, size):
    path = encode(tmp_path / "x.mkv", noise(3, 96, 48), codec="ffv1", pix_fmt=pix_fmt, full=True)
    scale = f"scale={size}:flags=bicubic+accurate_rnd+bitexact"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-vf", scale]
    raw = subprocess.run([*command, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"], capture_output=True, check=True)
    ours = np.concatenate(
        [plane.ravel() for planes in read(path, short_side=short_side, upscale=True) for plane in planes]
    )
    theirs = np.frombuffer(raw.stdout, np.uint8)
    assert np.abs(ours.astype(int) - theirs).max() <= 1  # they are equal; another FFmpeg may round otherwise


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le", "yuv444p", "bgr0"])
@pytest.mark.parametrize("short_side", [0, 24])
def test_grey_stays_grey(tmp_path, pix_fmt, short_side):
    path = encode(tmp_path / "x.mkv", solid(colour=(90, 90, 90)), codec="ffv1", pix_fmt=pix_fmt)
    for y, u, v in read(path, short_side=short_side):
        assert (u == 128).all()
        assert (v == 128).all()
        assert np.abs(y.astype(int) - 90).max() <= 1


def test_pictures_can_become_very_small(tmp_path):
    path = encode(tmp_path / "x.mkv", noise(1, 2048, 1024), codec="mpeg4")
    assert read(path, short_side=2)[0][0].shape == (2, 4)


def test_sample_aspect_ratio_is_applied(tmp_path):
    path = tmp_path / "sar.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for image in solid():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    assert read(path)[0][0].shape == (48, 96)


def test_variable_frame_rate_gives_every_frame_once(tmp_path):
    path = encode(tmp_path / "vfr.mkv", ramp(6), times=[0, 100, 500, 550, 600, 2000])
    assert levels(read(path)) == [0, 1, 2, 3, 4, 5]


def test_fps_shows_what_is_on_screen_at_each_instant(tmp_path):
    path = encode(tmp_path / "vfr.mkv", ramp(6), times=[0, 100, 500, 550, 600, 1000])
    assert levels(read(path, fps=5))[:6] == [0, 1, 1, 4, 4, 5]


def test_b_frames_come_in_presentation_order(tmp_path):
    path = encode(tmp_path / "b.mp4", ramp(20), options={"bf": "3", "crf": "4"})
    assert levels(read(path)) == list(range(20))


def test_start_and_end_cut_an_untrimmed_video(tmp_path):
    path = encode(tmp_path / "long.mp4", ramp(20), rate=2, options={"g": "4", "crf": "4"})
    assert levels(read(path, start=3.0, end=5.0)) == [6, 7, 8, 9]


def test_start_and_end_of_a_trimmed_clip_are_ignored(tmp_path):
    path = encode(tmp_path / "clip.mp4", ramp(20), rate=2, options={"crf": "4"})
    assert levels(read(path, start=100.0, end=110.0)) == list(range(20))


def test_frames_after_a_change_of_size_get_the_size_of_the_first(tmp_path):
    small = encode(tmp_path / "a.ts", solid(64, 48))
    large = encode(tmp_path / "b.ts", solid(128, 96))
    both = tmp_path / "both.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    frames = read(both)
    assert len(frames) == 10
    assert {y.shape for y, _, _ in frames} == {(48, 64)}


@pytest.mark.parametrize("name", ["x.mp4", "fast.mp4", "x.mkv", "x.webm", "x.avi"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.85])
def test_truncated_files_fail(tmp_path, name, share):
    codec = {"x.webm": "libvpx-vp9", "x.avi": "mpeg4"}.get(name, "libx264")
    path = encode(tmp_path / name, noise(60), codec=codec)
    if name == "fast.mp4":
        path = with_index_first(path, tmp_path / "moved.mp4")
    assert len(read(path)) == 60
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ClipFailure):
        read(path)


@pytest.mark.parametrize("name", ["x.mp4", "fast.mp4", "x.mkv", "x.webm", "x.avi"])
@pytest.mark.parametrize("whole_bytes", [200, 0.75])
def test_files_that_end_in_garbage_fail(tmp_path, name, whole_bytes):
    codec = {"x.webm": "libvpx-vp9", "x.avi": "mpeg4"}.get(name, "libx264")
    path = encode(tmp_path / name, noise(60), codec=codec)
    if name == "fast.mp4":
        path = with_index_first(path, tmp_path / "moved.mp4")
    data = path.read_bytes()
    kept = whole_bytes if whole_bytes > 1 else int(len(data) * whole_bytes)
    path.write_bytes(data[:kept] + np.random.default_rng(1).bytes(len(data) - kept))
    with pytest.raises(ClipFailure):
        read(path)


def noise(count, width=64, height=48):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def with_index_first(source: Path, target: Path) -> Path:
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": "faststart"}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target


def test_an_audio_track_longer_than_the_video_is_no_truncation(tmp_path):
    path = tmp_path / "long_audio.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        for image in ramp(10):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        for index in range(30):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 800 * index, Fraction(1, 8000)
            container.mux(audio.encode(frame))
        container.mux(audio.encode())
    assert len(read(path)) == 10


@pytest.mark.parametrize("data", [b"", b"<html>403</html>", os.urandom(5000)])
def test_what_is_no_video_fails_to_open(tmp_path, data):
    path = tmp_path / "x.mp4"
    path.write_bytes(data)
    with pytest.raises(ClipFailure) as failure:
        read(path)
    assert failure.value.stage == "open"


def test_an_empty_file_is_called_empty(tmp_path):
    (tmp_path / "x.mp4").write_bytes(b"")
    with pytest.raises(ClipFailure, match="the file is empty"):
        read(tmp_path / "x.mp4")


def test_a_file_without_video_stream_says_so(tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ClipFailure, match="no video stream"):
        read(path)


def test_a_cover_picture_is_not_taken_for_the_video(tmp_path):
    path = tmp_path / "cover.mkv"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=10)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(solid(32, 32)[0], format="rgb24")))
        container.mux(cover.encode())
        for image in ramp(6):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
    frames = read(path)
    assert len(frames) == 6
    assert frames[0][0].shape == (48, 64)
