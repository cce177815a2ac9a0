"""JPEG encoders side by side at equal quality: bytes, time to encode, time to decode.

    python benchmarks/encoders.py VIDEO… [--write]     # results/encoders.json

Frames of the videos at a short side of 256 are encoded at a range of qualities; numbers are read off at a luma PSNR of
46.8 dB, on a straight line between the two neighbouring qualities. Times are processor time of one core a frame, the
median of several rounds in which the encoders take turns. Decoding is that of the loaders (libjpeg-turbo, whole frame).
"""

import argparse
import io
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
import simplejpeg
from nvidia import nvimgcodec
from PIL import Image

from actcli.ingest.decode import VideoClip
from actcli.ingest.sizing import DecodeSettings

RESULTS = Path(__file__).parent / "results" / "encoders.json"
TARGET_DB = 46.8
PER_VIDEO, ROUNDS = 8, 5
QUALITIES = (80, 85, 88, 90, 92, 94, 96)
SCALES = (1, 2, 3, 4, 5, 6)

CPU_ONLY = -99999
"""What nvImageCodec calls no device."""

Planes = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Picture:
    """A frame in the forms that encoders take."""

    planes: Planes
    """Y, U, V, full range, 4:2:0."""
    rgb: np.ndarray
    """The same as ``[H, W, 3]``."""


@dataclass(frozen=True)
class Encoder:
    """One way to make JPEGs."""

    name: str
    encode: Callable[[Picture, int], bytes]
    settings: Sequence[int] = QUALITIES


def opencv(picture: Picture, quality: int, *, optimise: bool) -> bytes:
    """OpenCV's, with fixed or optimised Huffman tables."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, int(optimise)]
    return bytes(cv2.imencode(".jpg", picture.rgb[..., ::-1], flags)[1])


def pillow(picture: Picture, quality: int, *, flat: bool) -> bytes:
    """Pillow's with optimised Huffman tables; ``flat``: one quantiser for all frequencies, as FFmpeg nearly has."""
    out = io.BytesIO()
    how = {"qtables": [[quality] * 64, [quality] * 64]} if flat else {"quality": quality}
    Image.fromarray(picture.rgb).save(out, "JPEG", optimize=True, subsampling="4:2:0", **how)
    return out.getvalue()


def ffmpeg(huffman: str) -> Callable[[Picture, int], bytes]:
    """FFmpeg's through PyAV with ``default`` or ``optimal`` Huffman tables; one encoder for all pictures of a size."""

    @cache
    def encoder(width: int, height: int, scale: int) -> av.VideoCodecContext:
        context = av.CodecContext.create("mjpeg", "w")
        context.width, context.height, context.pix_fmt = width, height, "yuvj420p"
        context.time_base = Fraction(1, 25)
        context.thread_count = 1
        context.options = {"huffman": huffman, "qmin": str(scale), "qmax": str(scale)}
        return context

    def encode(picture: Picture, scale: int) -> bytes:
        height, width = picture.planes[0].shape
        frame = av.VideoFrame(width, height, "yuvj420p")
        for target, plane in zip(frame.planes, picture.planes, strict=True):
            lines = np.frombuffer(memoryview(target), np.uint8).reshape(-1, target.line_size)
            lines[:, : plane.shape[1]] = plane
        return b"".join(map(bytes, encoder(width, height, scale).encode(frame)))

    return encode


def nvidia(optimised: bool) -> Callable[[Picture, int], bytes]:
    """NvImageCodec's on the CPU."""
    backend = nvimgcodec.Backend(nvimgcodec.CPU_ONLY)
    encoder = nvimgcodec.Encoder(device_id=CPU_ONLY, backends=[backend], max_num_cpu_threads=1)

    def encode(picture: Picture, quality: int) -> bytes:
        how = nvimgcodec.EncodeParams(
            quality_type=nvimgcodec.QualityType.QUALITY,
            quality_value=quality,
            chroma_subsampling=nvimgcodec.ChromaSubsampling.CSS_420,
            jpeg_encode_params=nvimgcodec.JpegEncodeParams(optimized_huffman=optimised),
        )
        return bytes(encoder.encode(nvimgcodec.as_image(picture.rgb), "jpeg", params=how))

    return encode


ENCODERS = (
    Encoder("simplejpeg (ours)", lambda picture, quality: simplejpeg.encode_jpeg_yuv_planes(*picture.planes, quality)),
    Encoder("OpenCV", lambda picture, quality: opencv(picture, quality, optimise=False)),
    Encoder("OpenCV, optimised Huffman", lambda picture, quality: opencv(picture, quality, optimise=True)),
    Encoder("Pillow, optimised Huffman", lambda picture, quality: pillow(picture, quality, flat=False)),
    Encoder(
        "Pillow, optimised Huffman, flat quantiser", lambda picture, scale: pillow(picture, scale, flat=True), SCALES
    ),
    Encoder("nvImageCodec", nvidia(False)),
    Encoder("nvImageCodec, optimised Huffman", nvidia(True)),
    Encoder("FFmpeg", ffmpeg("default"), SCALES),
    Encoder("FFmpeg, optimised Huffman", ffmpeg("optimal"), SCALES),
)


def read_pictures(videos: Sequence[Path]) -> list[Picture]:
    """Some frames of each video."""
    pictures = []
    for video in videos:
        with VideoClip(video, DecodeSettings(256)) as clip:
            for planes in islice(clip, 0, PER_VIDEO * 8, 8):
                y, u, v = planes
                wide = [cv2.resize(plane, y.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in (u, v)]
                rgb = cv2.cvtColor(np.stack([y, wide[1], wide[0]], -1), cv2.COLOR_YCrCb2RGB)
                pictures.append(Picture((y, u, v), np.ascontiguousarray(rgb)))
    return pictures


@dataclass(frozen=True)
class Point:
    """One encoder at one setting."""

    psnr: float
    num_bytes: float
    encode_us: float
    decode_us: float


def measure(encoder: Encoder, setting: int, pictures: Sequence[Picture]) -> Point:
    """Means over the pictures."""
    began = time.process_time()
    jpegs = [encoder.encode(picture, setting) for picture in pictures]
    encoded = time.process_time() - began
    began = time.process_time()
    for jpeg in jpegs:
        simplejpeg.decode_jpeg(jpeg)
    decoded = time.process_time() - began
    errors = [
        np.mean((simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0].astype(float) - picture.planes[0]) ** 2)
        for jpeg, picture in zip(jpegs, pictures, strict=True)
    ]
    count = len(pictures)
    psnr = 10 * np.log10(255**2 / np.mean(errors))
    return Point(float(psnr), sum(map(len, jpegs)) / count, 1e6 * encoded / count, 1e6 * decoded / count)


def at_target(rounds: Sequence[Sequence[Point]]) -> dict[str, object]:
    """The numbers at ``TARGET_DB``; None where the settings do not reach it."""
    points = [
        Point(*(statistics.median(getattr(point, name) for point in same) for name in Point.__dataclass_fields__))
        for same in zip(*rounds, strict=True)
    ]
    points.sort(key=lambda point: point.psnr)
    levels = [point.psnr for point in points]
    if not levels[0] <= TARGET_DB <= levels[-1]:
        return {"range_db": [round(levels[0], 1), round(levels[-1], 1)]}
    names = ("num_bytes", "encode_us", "decode_us")
    return {name: round(float(np.interp(TARGET_DB, levels, [getattr(p, name) for p in points]))) for name in names}


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    pictures = read_pictures(arguments.videos)
    rounds: dict[str, list[list[Point]]] = {encoder.name: [] for encoder in ENCODERS}
    for _ in range(ROUNDS):
        for encoder in ENCODERS:
            rounds[encoder.name].append([measure(encoder, setting, pictures) for setting in encoder.settings])
    rows = {name: at_target(found) for name, found in rounds.items()}
    print(json.dumps(rows, indent=1))
    if arguments.write:
        value = {"psnr_db": TARGET_DB, "pictures": len(pictures), "python": platform.python_version(), "encoders": rows}
        RESULTS.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
