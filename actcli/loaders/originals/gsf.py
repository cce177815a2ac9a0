"""GSF, ``swathikirans/GSF``: ``utils/dataset.py``. Crops of TSM, training with timm's RandAugment."""

import numpy as np

from actcli.loaders.augment import Augmentation
from actcli.loaders.originals import tsm
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.originals.gsm import START_FIRST
from actcli.loaders.sampling import Indices, Rng, Sampling, draw_per_segment, first_frames, steps, uniform

# --- Over the whole video ---------------------------------------------------------------------------------------------


def _random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """A draw per segment of whole frames; a short video gives its centres. ``_sample_indices``.

    7 frames, 3 segments -> one of 0..1, one of 2..3, one of 4..5     [o o] [o o] [o o] .
    3 frames, 4 segments -> [0, 1, 1, 2]
    """
    if num_frames < num_segments:
        return uniform((0.5,), num_frames, num_segments, 1, rng)
    return draw_per_segment(num_frames // num_segments, num_segments, rng)


def _random_or_first(num_frames: int, num_segments: int, rng: Rng) -> Indices:
    """As ``_random``, but a short video gives its frames and repeats the last: 3 frames, 4 segments -> [0, 1, 2, 2]."""
    if num_frames < num_segments:
        return first_frames(num_frames, num_segments)
    return draw_per_segment(num_frames // num_segments, num_segments, rng)


def _ten_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Ten independent draws. ``_get_test_indices`` with ``num_clips`` 10."""
    return np.concatenate([_random_or_first(num_frames, num_segments, rng) for _ in range(10)])


def _sparse_video(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Count from one twice, so that the last frame may not exist. ``_get_val_indices_video``.

    7 frames, 3 segments -> [2, 4, 6]     . . o . o . o
    """
    return tsm.centre_or_first(num_frames, num_segments, 1, rng) + 1


# --- Five frames apart ------------------------------------------------------------------------------------------------

_INTERVAL = 5


def _interval_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames five apart from a random start. ``_sample_indices_video`` without ``sparse_sampling``.

    17 frames, 3 segments, start 2 of 0..5 -> [2, 7, 12]     . . o . . . . o . . . . o . . . .
    """
    num_starts = num_frames - _INTERVAL * (num_segments - 1) - 1
    if num_starts <= 0:
        return _random_or_first(num_frames, num_segments, rng)
    return rng.integers(0, num_starts, 1)[:, None] + _INTERVAL * np.arange(num_segments)


def _interval_from(num_frames: int, num_segments: int, start: int) -> Indices:
    """Frames five apart from ``start``; too short a video gives its centres, or its frames and the last repeated."""
    if start > 0:
        return (start + _INTERVAL * np.arange(num_segments))[None]
    if num_frames > num_segments:
        return steps(num_frames, num_segments, 0.5)[None]
    return first_frames(num_frames, num_segments)


def _interval_val(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames five apart about the middle. ``_get_val_indices_video`` without ``sparse_sampling``.

    17 frames, 3 segments -> [6, 11, 16]     . . . . . . o . . . . o . . . . o
    """
    start = (num_frames - 1) // 2 - _INTERVAL * (num_segments // 2 - 1) - 2
    return _interval_from(num_frames, num_segments, start)


def _interval_test_one(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames five apart about the middle, one later. ``_get_test_indices_video`` with ``num_clips`` 1.

    17 frames, 3 segments -> [7, 12, 17]     . . . . . . . o . . . . o . . . .     17 does not exist
    """
    num_frames -= 1
    start = num_frames // 2 - _INTERVAL * (num_segments // 2 - 1) - 1
    return _interval_from(num_frames, num_segments, start)


def _interval_test_two(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames five apart from the first and from the last start. ``_get_test_indices_video`` with ``num_clips`` 2.

    The original forgets to count from one: frame -1 stands for its file 0.

    17 frames, 3 segments -> [0, 5, 10] and [4, 9, 14]     o . . . . o . . . . o . . . . . .
                                                           . . . . o . . . . o . . . . o . .
    """
    num_frames -= 1
    last_start = num_frames - _INTERVAL * (num_segments - 1) - 1
    if last_start > 0:
        starts = np.linspace(1, last_start, 2).astype(np.int64)
        return starts[:, None] + _INTERVAL * np.arange(num_segments) - 1
    return np.repeat(_interval_from(num_frames, num_segments, 0) - 1, 2, axis=0)


# --- Names ------------------------------------------------------------------------------------------------------------

_TRAIN = Sampling("gsf-train-uniform-random", 1, True, _random)
_VAL = Sampling("gsf-val", 1, False, tsm.CENTRE)
_TEST = Sampling("gsf-test-1clip", 1, False, tsm.CENTRE)
_TEST_TWO = Sampling("gsf-test-2clip", 2, False, START_FIRST)
_TEST_TEN = Sampling("gsf-test-10clip-random", 10, True, _ten_random)

ORIGINAL = Original(
    name="gsf",
    families=(Family("gsf", _TRAIN, {1: _TEST, 2: _TEST_TWO, 10: _TEST_TEN}),),
    modes=(
        *(_TRAIN, _VAL, _TEST, _TEST_TWO, _TEST_TEN),
        Sampling("gsf-test-dense-10clip", 10, False, tsm.DENSE_TEN, "dense"),
        Sampling("gsf-interval5-train-random", 1, True, _interval_random),
        Sampling("gsf-interval5-val", 1, False, _interval_val),
        Sampling("gsf-interval5-test-1clip", 1, False, _interval_test_one),
        Sampling("gsf-interval5-test-2clip", 2, False, _interval_test_two),
        Sampling("gsf-sparse-video-val", 1, False, _sparse_video),
    ),
    rule=tsm.RULE,
    augmentation=Augmentation(rand_augment=(2, 9.0)),
)
