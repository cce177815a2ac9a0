"""What resizing a picture costs, and how near it comes to an exact filter: FFmpeg's scaler as we use it, and OpenCV's.

    python benchmarks/resizing.py VIDEO [VIDEO ...] [--frames 40] [--write]     # results/resizing.json

Frames of each video in 340 x 256 are reduced to 298 x 224 and to 148 x 112, and enlarged to 456 x 344. Processor time
is the least of several rounds, of all three planes; the error is that of luma against a bicubic filter in floating
point that is widened where pictures are reduced (torch, ``antialias=True``), as PSNR.
"""

import argparse
import json
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from actcli.ingest.decode import SCALER, VideoClip, plane_arrays
from actcli.ingest.sizing import DecodeSettings

RESULTS = Path(__file__).parent / "results" / "resizing.json"
SOURCE = (340, 256)
SIZES = ((298, 224), (148, 112), (456, 344))
Planes = list[NDArray[np.uint8]]
Resizer = Callable[[VideoFrame, tuple[int, int]], Planes]


def planes_of(frame: VideoFrame) -> Planes:
    return plane_arrays(frame, frame.width, frame.height)


def by_ffmpeg() -> Resizer:
    scaler = VideoReformatter()
    return lambda frame, size: planes_of(scaler.reformat(frame, *size, interpolation=SCALER, threads=1))


def by_opencv(how: int) -> Resizer:
    def resize(frame: VideoFrame, size: tuple[int, int]) -> Planes:
        sizes = [(size[0] // step, size[1] // step) for step in (1, 2, 2)]
        return [cv2.resize(plane, to, interpolation=how) for plane, to in zip(planes_of(frame), sizes, strict=True)]

    return resize


RESIZERS = {
    "ffmpeg, bicubic": by_ffmpeg(),
    "opencv, area": by_opencv(cv2.INTER_AREA),
    "opencv, linear": by_opencv(cv2.INTER_LINEAR),
    "opencv, cubic": by_opencv(cv2.INTER_CUBIC),
}


def exact(frame: VideoFrame, size: tuple[int, int]) -> NDArray[np.float32]:
    luma = torch.from_numpy(planes_of(frame)[0].astype(np.float32))[None, None]
    scaled = torch.nn.functional.interpolate(luma, size=size[::-1], mode="bicubic", antialias=True)
    return scaled[0, 0].clamp(0, 255).numpy()


def measure(frames: list[VideoFrame], size: tuple[int, int], resize: Resizer, rounds: int = 7) -> dict[str, float]:
    seconds = []
    for _ in range(rounds):
        begin = time.process_time()
        for frame in frames:
            resize(frame, size)
        seconds.append(time.process_time() - begin)
    error = np.mean([np.mean((resize(frame, size)[0] - exact(frame, size)) ** 2) for frame in frames])
    return {
        "us_per_frame": round(min(seconds) / len(frames) * 1e6, 1),
        "psnr_db": round(float(10 * np.log10(255**2 / error)), 2),
    }


def read(videos: list[Path], num_frames: int) -> list[VideoFrame]:
    scaler, frames = VideoReformatter(), []
    for video in videos:
        with VideoClip(video, DecodeSettings(0)) as clip:
            for _, frame in islice(clip.frames(), num_frames):
                frames.append(scaler.reformat(frame, *SOURCE, format="yuv420p", interpolation=SCALER, threads=1))
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--frames", type=int, default=40, help="of each video")
    parser.add_argument("--write", action="store_true", help=f"keep the numbers in {RESULTS.name}")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    frames = read(arguments.videos, arguments.frames)
    result = {
        "frames": len(frames),
        "sizes": {
            "x".join(map(str, size)): {name: measure(frames, size, resize) for name, resize in RESIZERS.items()}
            for size in SIZES
        },
    }
    print(json.dumps(result, indent=1))
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
