"""Extraction beside what the original repositories do, JPEG quality, and the cost of each flow method.

    python benchmarks/ingest.py VIDEO_FOLDER [--shape sthv2] [--clips 24] [--repeats 3] [--workers 2]

With ``--shape`` the clips are cut from the footage in the folder first: ``kinetics400`` (H.264, 340 x 256, 300 frames)
or ``sthv2`` (VP9 in WebM, 426 x 240, 45 frames at 12 a second). Each tool extracts them twice: in the size that they
have, and resized (``kinetics400`` to a short side of 224, ``sthv2`` enlarged to 256). The floor is what decoding and
encoding take by themselves, in one process: PyAV to planes, planes of the size that is wanted to JPEG.

Peers, each with as many processes as we have workers:

- ``ffmpeg``: one ffmpeg process a video, ``-threads 1 -vf scale -q:v 2``, a folder of JPEG files each;
- ``opencv``: VideoCapture, resize and imwrite at our JPEG quality, a folder of JPEG files each.

All three take turns within one run; a figure is the median over the repeats. Processor time counts the start of the
workers too, and is the steadier figure on a busy machine.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import av
import cv2
import imageio_ffmpeg
import numpy as np
import simplejpeg

from actcli.ingest import ExtractOptions, extract_dataset
from actcli.ingest.datasets._annotations import VIDEO_SUFFIXES
from actcli.ingest.decode import VideoClip
from actcli.ingest.flow import FlowMethod, flow_fields
from actcli.ingest.sizing import DecodeSettings

SHORT_SIDE = 256
"""Of clips that are taken as they are."""


@dataclass(frozen=True)
class Shape:
    """Clips that are cut from footage, and what they are resized to."""

    width: int
    height: int
    num_frames: int
    fps: int
    suffix: str
    encoder: tuple[str, ...]
    resized: int
    """Short side where clips are resized."""


SHAPES = {
    "kinetics400": Shape(340, 256, 300, 30, ".mp4", ("-c:v", "libx264", "-crf", "23", "-g", "250"), 224),
    "sthv2": Shape(
        426,
        240,
        45,
        12,
        ".webm",
        ("-c:v", "libvpx-vp9", "-crf", "32", "-b:v", "0", "-deadline", "realtime", "-cpu-used", "8"),
        256,
    ),
}
CLASSES = ("even", "odd")
"""A dataset has two classes at least."""
QUALITIES = (75, 80, 85, 90, 92, 95)
FLOW_METHODS: dict[FlowMethod, int] = {"dis": 24, "farneback": 24, "tvl1": 4}  # method: frames to time


def find_videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)


def cut_clips(videos: list[Path], shape: Shape, count: int, folder: Path) -> list[Path]:
    """Clips of a shape, each from another place of the footage, which is repeated where it is too short."""
    folder.mkdir()
    fitted = (
        f"scale={shape.width}:{shape.height}:force_original_aspect_ratio=increase,"
        f"crop={shape.width}:{shape.height},setsar=1"
    )
    clips = []
    for number in range(count):
        clip = folder / f"{number:05d}{shape.suffix}"
        begin = ["-stream_loop", "-1", "-ss", str(number // len(videos)), "-i", str(videos[number % len(videos)])]
        form = ["-vf", f"fps={shape.fps},{fitted}", "-frames:v", str(shape.num_frames), "-pix_fmt", "yuv420p", "-an"]
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *begin, *form, *shape.encoder, str(clip)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        clips.append(clip)
    return clips


def ffmpeg_clip(video: Path, out: Path, short_side: int) -> None:
    target = out / video.stem
    target.mkdir()
    scale = f"scale='if(gt(iw,ih),-2,{short_side})':'if(gt(iw,ih),{short_side},-2)'" if short_side else "null"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-threads", "1", "-i", str(video), "-vf", scale]
    subprocess.run([*command, "-q:v", "2", str(target / "img_%05d.jpg")], check=False, stdin=subprocess.DEVNULL)


def opencv_clip(video: Path, out: Path, short_side: int) -> None:
    cv2.setNumThreads(1)
    target = out / video.stem
    target.mkdir()
    capture = cv2.VideoCapture(str(video))
    count = 0
    while (grabbed := capture.read())[0]:
        image = grabbed[1]
        scale = short_side / min(image.shape[:2]) if short_side else 1.0
        if scale != 1:
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)
        count += 1
        cv2.imwrite(str(target / f"img_{count:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def run_peer(
    work: Callable[[Path, Path, int], None], videos: list[Path], out: Path, workers: int, short_side: int
) -> None:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(partial(work, out=out, short_side=short_side), videos, chunksize=1)


def run_ours(raw: Path, out: Path, workers: int, short_side: int) -> None:
    extract_dataset(ExtractOptions("bench", raw, out, short_side=short_side, upscale=True, workers=workers))


def measure_floor(videos: list[Path], short_side: int) -> dict[str, float]:
    """Microseconds of processor time a frame: decoding alone, and encoding alone of pictures of the size wanted."""
    decoding, encoding, count = 0.0, 0.0, 0
    settings = DecodeSettings(short_side, upscale=True)
    for video in videos:
        begin = time.process_time()
        with av.open(str(video)) as container:
            container.streams.video[0].thread_type = "NONE"
            count += sum(1 for _ in container.decode(video=0))
        decoding += time.process_time() - begin
        with VideoClip(video, settings) as clip:
            for planes in clip:
                begin = time.process_time()
                simplejpeg.encode_jpeg_yuv_planes(*planes, 90)
                encoding += time.process_time() - begin
    return {"decode_us": round(decoding / count * 1e6, 1), "encode_us": round(encoding / count * 1e6, 1)}


def cpu_seconds() -> float:
    """Processor time of this process and of all that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def time_extraction(
    videos: list[Path], repeats: int, workers: int, scratch: Path, short_side: int
) -> dict[str, dict[str, float]]:
    raw = scratch / "raw" / "bench"
    shutil.rmtree(raw, ignore_errors=True)
    for name in CLASSES:
        (raw / name).mkdir(parents=True)
    for number, video in enumerate(videos):
        (raw / CLASSES[number % 2] / f"{number:05d}{video.suffix}").symlink_to(video.resolve())
    linked = find_videos(raw)
    tools: dict[str, Callable[[Path], None]] = {
        "ffmpeg": lambda out: run_peer(ffmpeg_clip, linked, out, workers, short_side),
        "opencv": lambda out: run_peer(opencv_clip, linked, out, workers, short_side),
        "actcli": lambda out: run_ours(raw, out, workers, short_side),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    cpu: dict[str, list[float]] = {name: [] for name in tools}
    sizes: dict[str, int] = {}
    files: dict[str, int] = {}
    for _ in range(repeats):
        for name, run in tools.items():
            out = scratch / "out"
            out.mkdir()
            begin, cpu_begin = time.perf_counter(), cpu_seconds()
            run(out)
            seconds[name].append(time.perf_counter() - begin)
            cpu[name].append(cpu_seconds() - cpu_begin)
            written = [path for path in out.rglob("*") if path.suffix in (".jpg", ".mjpeg")]
            sizes[name], files[name] = sum(path.stat().st_size for path in written), len(written)
            shutil.rmtree(out)
    num_frames = files["ffmpeg"]
    ours, cpu_ours = statistics.median(seconds["actcli"]), statistics.median(cpu["actcli"])
    return {
        name: {
            "median_seconds": round(statistics.median(times), 3),
            "frames_per_second": round(num_frames / statistics.median(times), 1),
            "actcli_is_faster_by": round(statistics.median(times) / ours, 2),
            "median_cpu_seconds": round(statistics.median(cpu[name]), 3),
            "cpu_us_per_frame": round(statistics.median(cpu[name]) / num_frames * 1e6, 1),
            "actcli_takes_less_cpu_by": round(statistics.median(cpu[name]) / cpu_ours, 2),
            "bytes_per_frame": round(sizes[name] / num_frames),
            "files": files[name],
        }
        for name, times in seconds.items()
    }


def sample_planes(videos: list[Path], per_video: int = 4) -> list[tuple[np.ndarray, ...]]:
    planes: list[tuple[np.ndarray, ...]] = []
    for video in videos:
        with VideoClip(video, DecodeSettings(SHORT_SIDE)) as clip:
            planes += islice(clip, 0, per_video * 10, 10)
    return planes


def measure_quality(videos: list[Path]) -> list[dict[str, float]]:
    """Bytes and luma PSNR against the planes before encoding."""
    frames = sample_planes(videos)
    rows = []
    for quality in QUALITIES:
        jpegs = [simplejpeg.encode_jpeg_yuv_planes(*planes, quality) for planes in frames]
        errors = [
            np.mean((simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0].astype(float) - planes[0]) ** 2)
            for jpeg, planes in zip(jpegs, frames, strict=True)
        ]
        pixels = sum(planes[0].size for planes in frames)
        rows.append(
            {
                "quality": quality,
                "bytes_per_frame": round(sum(map(len, jpegs)) / len(jpegs)),
                "bytes_per_pixel": round(sum(map(len, jpegs)) / pixels, 4),
                "luma_psnr_db": round(10 * np.log10(255**2 / np.mean(errors)), 2),
            }
        )
    return rows


def measure_flow(video: Path) -> dict[str, float]:
    """Milliseconds of processor time a field on one core at 340 x 256."""
    cv2.setNumThreads(1)
    with VideoClip(video, DecodeSettings(SHORT_SIDE)) as clip:
        frames = [cv2.resize(planes[0], (340, 256)) for planes in islice(clip, max(FLOW_METHODS.values()))]
    milliseconds = {}
    for method, count in FLOW_METHODS.items():
        list(flow_fields(frames[:2], method))
        begin = time.process_time()
        fields = list(flow_fields(frames[:count], method))
        milliseconds[method] = round((time.process_time() - begin) * 1000 / len(fields), 2)
    milliseconds["tvl1_over_dis"] = round(milliseconds["tvl1"] / milliseconds["dis"], 1)
    return milliseconds


def measure(videos: list[Path], short_side: int, repeats: int, workers: int, scratch: Path) -> dict[str, object]:
    """All tools at one size, beside the floor."""
    load = round(os.getloadavg()[0], 1)
    extraction = time_extraction(videos, repeats, workers, scratch, short_side)
    floor = measure_floor(videos, short_side)
    of_floor = extraction["actcli"]["cpu_us_per_frame"] / sum(floor.values())
    return {
        "short_side": short_side,
        "extraction": extraction,
        "floor": floor | {"actcli_over_floor": round(of_floor, 2)},
        "load_average_before": load,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--shape", choices=SHAPES, help="cut clips of this shape from the videos first")
    parser.add_argument("--clips", type=int, default=24, help="with --shape: how many")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--skip-quality-and-flow", action="store_true")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/ingest-cut-SHAPE.json")
    args = parser.parse_args()
    videos = find_videos(args.videos)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {"resized": SHORT_SIDE}
        if args.shape:
            videos = cut_clips(videos, SHAPES[args.shape], args.clips, Path(scratch) / "cut")
            sizes = {"as_they_are": 0, "resized": SHAPES[args.shape].resized}
        result: dict[str, object] = {"videos": len(videos), "workers": args.workers, "repeats": args.repeats}
        for name, short_side in sizes.items():
            result[name] = measure(videos, short_side, args.repeats, args.workers, Path(scratch))
        if not args.skip_quality_and_flow:
            result |= {"jpeg_quality": measure_quality(videos[:12]), "flow_milliseconds": measure_flow(videos[0])}
    text = json.dumps(result, indent=1)
    out = args.out or Path(f"benchmarks/results/ingest-cut-{args.shape or 'none'}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
