"""Small videos of many kinds, made on the spot."""

import os
from contextlib import contextmanager

import av
import numpy as np
import pytest


def picture(number, width=96, height=64):
    y, x = np.mgrid[0:height, 0:width].astype(float)
    phase = number * 0.4
    waves = [np.sin(x / 17 + phase), np.cos(y / 11 - phase), np.sin((x + y) / 23 + 2 * phase)]
    noise = np.random.default_rng(number).normal(0, 6, (height, width, 3))
    return np.clip(128 + 90 * np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


@contextmanager
def _kept_priority():
    """SVT-AV1 gives root's threads that call it real-time priority, and whatever they start later would inherit it."""
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)


def encode(path, codec="libx264", num_frames=40, width=96, height=64, pix_fmt="yuv420p", **options):
    """A video with a key frame every 12 frames."""
    if codec not in av.codecs_available:
        pytest.skip(f"this FFmpeg has no {codec}")
    with _kept_priority(), av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={name: str(value) for name, value in options.items()})
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = width, height, pix_fmt, 12
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, width, height), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
