"""Extraction beside what the original repositories do, JPEG quality, and the cost of each flow method.

    python benchmarks/ingest.py VIDEO_FOLDER [--repeats 3] [--workers 2] [--out RESULT.json]

Peers, each with as many processes as we have workers and short side 256:

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
from functools import partial
from itertools import islice
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import simplejpeg

from actcli.ingest import ExtractOptions, extract_dataset
from actcli.ingest.datasets._annotations import VIDEO_SUFFIXES
from actcli.ingest.decode import DecodeSettings, VideoClip
from actcli.ingest.flow import FlowMethod, flow_fields

SHORT_SIDE = 256
QUALITIES = (75, 80, 85, 90, 92, 95)
FLOW_METHODS: dict[FlowMethod, int] = {"dis": 24, "farneback": 24, "tvl1": 4}  # method: frames to time


def find_videos(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)


def ffmpeg_clip(video: Path, out: Path) -> None:
    target = out / video.stem
    target.mkdir()
    scale = f"scale='if(gt(iw,ih),-2,min(iw,{SHORT_SIDE}))':'if(gt(iw,ih),min(ih,{SHORT_SIDE}),-2)'"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "quiet", "-threads", "1", "-i", str(video), "-vf", scale]
    subprocess.run([*command, "-q:v", "2", str(target / "img_%05d.jpg")], check=False, stdin=subprocess.DEVNULL)


def opencv_clip(video: Path, out: Path) -> None:
    cv2.setNumThreads(1)
    target = out / video.stem
    target.mkdir()
    capture = cv2.VideoCapture(str(video))
    count = 0
    while (grabbed := capture.read())[0]:
        image = grabbed[1]
        scale = min(1.0, SHORT_SIDE / min(image.shape[:2]))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        count += 1
        cv2.imwrite(str(target / f"img_{count:05d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])


def run_peer(work: Callable[[Path, Path], None], videos: list[Path], out: Path, workers: int) -> None:
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(partial(work, out=out), videos, chunksize=1)


def run_ours(raw: Path, out: Path, workers: int) -> None:
    extract_dataset(ExtractOptions("bench", raw, out, short_side=SHORT_SIDE, workers=workers))


def cpu_seconds() -> float:
    """Processor time of this process and of all that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def time_extraction(videos: list[Path], repeats: int, workers: int, scratch: Path) -> dict[str, dict[str, float]]:
    raw = scratch / "raw" / "clips"
    raw.mkdir(parents=True)
    for number, video in enumerate(videos):
        (raw / f"{number:05d}{video.suffix}").symlink_to(video.resolve())
    linked = find_videos(raw)
    tools: dict[str, Callable[[Path], None]] = {
        "ffmpeg": lambda out: run_peer(ffmpeg_clip, linked, out, workers),
        "opencv": lambda out: run_peer(opencv_clip, linked, out, workers),
        "actcli": lambda out: run_ours(raw.parent, out, workers),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/ingest-kinetics400.json"))
    args = parser.parse_args()
    videos = find_videos(args.videos)
    with tempfile.TemporaryDirectory() as scratch:
        result = {
            "videos": len(videos),
            "workers": args.workers,
            "repeats": args.repeats,
            "extraction": time_extraction(videos, args.repeats, args.workers, Path(scratch)),
            "jpeg_quality": measure_quality(videos[:12]),
            "flow_milliseconds": measure_flow(videos[0]),
        }
    text = json.dumps(result, indent=1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
