"""A made-up dataset whose classes show only in the order of frames.

A sprite moves or changes size over a textured background. Each class is the time reverse of its partner, and both draw
their paths from the same distribution, so that no frame and no unordered set of frames tells the two apart: a model
without temporal modelling stays at chance inside a pair.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

CLASS_PAIRS = (("moving right", "moving left"), ("moving down", "moving up"), ("growing", "shrinking"))
"""Each second class is the time reverse of the first."""

_VAL_EVERY = 4  # one clip in four goes to val, in turn over the classes
_FPS = 12
_CORNERS = (
    None,  # a disc
    [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    [(0, -1.2), (1.2, 0), (0, 1.2), (-1.2, 0)],
)
"""Corners of the sprites about their centre, in radii."""

Image = NDArray[np.uint8]


def make_synthetic(
    out_dir: Path | str,
    num_clips: int = 240,
    seed: int = 0,
    size: tuple[int, int] = (128, 96),
    num_frames: int = 24,
) -> Path:
    """Write ``out_dir/{train,val}/<class>/<number>.mp4`` and ``out_dir/flip.json``, a dataset of the ``folder`` layout.

    Args:
        out_dir: Folder to create, usually ``raw/<name>``.
        num_clips: Clips in total; a quarter of each class goes to ``val``.
        seed: The same seed gives the same files on the same encoder.
        size: Width and height in pixels, both even.
        num_frames: Frames per clip, at 12 per second.

    Returns:
        ``out_dir``.
    """
    root = Path(out_dir)
    names = [name for pair in CLASS_PAIRS for name in pair]

    def make(index: int) -> None:
        label, turn = index % len(names), index // len(names)
        split = "val" if turn % _VAL_EVERY == _VAL_EVERY - 1 else "train"
        frames = _draw_clip(np.random.default_rng((seed, index)), label, size, num_frames)
        _encode(frames, root / split / names[label] / f"{index:05d}.mp4")

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, range(num_clips)))
    flip = {"flip": "swap", "flip_swaps": [list(CLASS_PAIRS[0])]}
    (root / "flip.json").write_text(json.dumps(flip, indent=1) + "\n")
    return root


def _draw_clip(rng: np.random.Generator, label: int, size: tuple[int, int], num_frames: int) -> list[Image]:
    """RGB frames of one clip; odd labels are drawn like the even label before them and reversed."""
    width, height = size
    background, colour = _texture(rng, width, height), rng.integers(0, 256, 3).tolist()
    shape, short = int(rng.integers(3)), min(size)
    frames = [
        _with_sprite(background, centre, radius, shape, colour)
        for centre, radius in _path(rng, label // 2, width, height, short, num_frames)
    ]
    return frames[::-1] if label % 2 else frames


def _path(
    rng: np.random.Generator, pair: int, width: int, height: int, short: int, num_frames: int
) -> list[tuple[tuple[float, float], float]]:
    """Centre and radius of the sprite in each frame, in pixels, for the first class of a pair."""
    steps = np.linspace(0, 1, num_frames)
    radius = np.full(num_frames, rng.uniform(0.12, 0.2) * short)
    x = np.full(num_frames, rng.uniform(0.25, 0.75) * width)
    y = np.full(num_frames, rng.uniform(0.25, 0.75) * height)
    travel = rng.uniform(0.4, 0.6)
    start = rng.uniform(0.15, 0.85 - travel)
    if pair == 0:
        x = (start + travel * steps) * width
    elif pair == 1:
        y = (start + travel * steps) * height
    else:
        radius = (rng.uniform(0.07, 0.12) + rng.uniform(0.15, 0.25) * steps) * short
    return [((float(a), float(b)), float(r)) for a, b, r in zip(x, y, radius, strict=True)]


def _texture(rng: np.random.Generator, width: int, height: int) -> Image:
    """Smooth coloured noise, ``[H, W, 3]``."""
    coarse = rng.integers(40, 216, (6, 8, 3), dtype=np.uint8)
    fine = rng.integers(-12, 13, (height, width, 1))
    image = np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + fine, 0, 255)
    return np.asarray(image, np.uint8)


def _with_sprite(background: Image, centre: tuple[float, float], radius: float, shape: int, colour: list[int]) -> Image:
    """The background with a disc, a square or a diamond on it, edged so that it shows on any texture."""
    image = background.copy()
    corners = _CORNERS[shape]
    edge = (255, 255, 255) if sum(colour) < 384 else (0, 0, 0)
    for scale, paint in ((1.25, edge), (1.0, (colour[0], colour[1], colour[2]))):
        reach = radius * scale * 16  # OpenCV draws at a sixteenth of a pixel with shift=4
        x, y = centre[0] * 16, centre[1] * 16
        if corners is None:
            cv2.circle(image, (round(x), round(y)), round(reach), paint, -1, cv2.LINE_AA, 4)
        else:
            points = np.rint(np.array(corners) * reach + (x, y)).astype(np.int32)
            cv2.fillConvexPoly(image, points, paint, cv2.LINE_AA, 4)
    return image


def _encode(frames: list[Image], path: Path) -> None:
    """Write an H.264 file (MPEG-4 part 2 where the wheel has no libx264)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    has_x264 = "libx264" in av.codecs_available
    options = {"crf": "20", "preset": "ultrafast"} if has_x264 else {"qscale": "4"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264" if has_x264 else "mpeg4", rate=Fraction(_FPS), options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
