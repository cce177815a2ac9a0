"""Our own samplings: frames spread evenly whatever the length of the video, any number of test clips; crops of TSM."""

from functools import partial

import numpy as np

from actcli.loaders.originals import tsm
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import Indices, Rng, Sampling

DENSE_WINDOW = 64


def _segments_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """One frame from each of ``num_segments`` equal parts, every frame of the video equally likely.

    4 frames, 2 segments -> one of 0..1, one of 2..3     [o o] [o o]
    2 frames, 4 segments -> 0 0 1 1
    """
    starts = max(num_frames - stack + 1, 1)
    edges = np.arange(num_segments) * starts
    return ((edges + rng.integers(0, starts, num_segments)) // num_segments)[None]


def _segments_even(num_test_clips: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Evenly spaced frames; clip ``k`` takes the ``(2 k + 1) / (2 num_test_clips)`` point of every segment.

    7 frames, 3 segments, 1 clip  -> [1, 3, 5]                   . o . o . o .
    8 frames, 2 segments, 2 clips -> [1, 5] and [3, 7]           . o . . . o . .     . . . o . . . o
    """
    starts = max(num_frames - stack + 1, 1)
    points: Indices = 2 * num_test_clips * np.arange(num_segments) + (2 * np.arange(num_test_clips) + 1)[:, None]
    frames: Indices = points * starts // (2 * num_test_clips * num_segments)
    return frames


def _dense_window(num_frames: int, num_segments: int, starts: Indices) -> Indices:
    """Evenly spaced frames of a window of 64 frames from each start, or of the whole of a shorter video.

    8 frames, 4 segments, start 0 -> [0, 2, 4, 6]     o . o . o . o .
    """
    window = min(DENSE_WINDOW, num_frames)
    return starts[:, None] + np.arange(num_segments) * window // num_segments


def _dense_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """One window, every admissible start equally likely. See ``_dense_window``."""
    num_starts = max(num_frames - DENSE_WINDOW, 0) + 1
    return _dense_window(num_frames, num_segments, rng.integers(0, num_starts, 1))


def _dense_even(num_test_clips: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """``num_test_clips`` windows spread over the video; one clip sits in the middle. See ``_dense_window``."""
    last_start = max(num_frames - DENSE_WINDOW, 0)
    spread = np.arange(num_test_clips) * last_start // max(num_test_clips - 1, 1)
    starts = spread if num_test_clips > 1 else np.array([last_start // 2])
    return _dense_window(num_frames, num_segments, starts)


def _segments_test(num_test_clips: int) -> Sampling:
    return Sampling("segments", num_test_clips, False, partial(_segments_even, num_test_clips))


def _dense_test(num_test_clips: int) -> Sampling:
    return Sampling("dense", num_test_clips, False, partial(_dense_even, num_test_clips), "dense")


ORIGINAL = Original(
    name="ours",
    families=(
        Family("segments", Sampling("segments", 1, True, _segments_random), any_test=_segments_test),
        Family("dense", Sampling("dense", 1, True, _dense_random, "dense"), any_test=_dense_test),
    ),
    modes=(),
    rule=tsm.RULE,
    frames_only=True,
)
