"""TSM, ``mit-han-lab/temporal-shift-module``: ``ops/dataset.py`` and ``ops/transforms.py``. TSN's code is in it."""

from collections.abc import Callable
from functools import partial

import numpy as np

from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import (
    Indices,
    Rng,
    Sampling,
    draw_per_segment,
    no_answer,
    random_start,
    uniform,
    wrapped,
)
from actcli.loaders.views import (
    CORNERS_AND_CENTRE,
    Crop,
    Size,
    ViewRule,
    center_crop,
    crops_in_quarters,
    resized_size,
)

# --- Frames -----------------------------------------------------------------------------------------------------------

DENSE_WINDOW = 64


def draw_segments(sorted_from: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """A draw per segment of whole frames. TSM: ``_sample_indices``.

    7 frames, 3 segments -> one of 0..1, one of 2..3, one of 4..5     [o o] [o o] [o o] .
    2 frames, 3 segments -> [0, 0, 0]                                 frame 0 only

    ``sorted_from`` is the stack up to which a video too short for its stacks is drawn sorted instead.
    """
    starts = num_frames - stack + 1
    length = starts // num_segments
    if length > 0:
        return draw_per_segment(length, num_segments, rng)
    if num_frames - min(stack, sorted_from) + 1 > num_segments:
        if starts < 1:
            raise no_answer("TSM's training sampler", num_frames, num_segments)
        return np.sort(rng.integers(0, starts, num_segments))[None]
    return np.zeros((1, num_segments), np.int64)


def centre_or_first(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """The middle of each segment. TSM: ``_get_val_indices``.

    7 frames, 3 segments -> [1, 3, 5]        . o . o . o .
    3 frames, 4 segments -> [0, 0, 0, 0]     num_frames <= num_segments: frame 0 only
    """
    if num_frames > num_segments + stack - 1:
        return uniform((0.5,), num_frames, num_segments, stack, rng)
    return np.zeros((1, num_segments), np.int64)


def dense(starts: Callable[[int, Rng], Indices], num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames ``64 // num_segments`` apart from each of ``starts``. TSM: the branches of ``dense_sample``.

    70 frames, 4 segments, start 3 -> [3, 19, 35, 51]
    40 frames, 4 segments, start 0 -> [0, 16, 32, 8]     after the last frame it begins again
    """
    num_starts = max(1, 1 + num_frames - DENSE_WINDOW)
    return wrapped(starts(num_starts, rng), DENSE_WINDOW // num_segments, num_frames, num_segments)


def ten_starts(num_starts: int, rng: Rng) -> Indices:
    """Ten starts from the first to the last, ``[10]``."""
    return np.linspace(0, num_starts - 1, 10).astype(np.int64)


RANDOM = partial(draw_segments, 1)  # a short video is drawn sorted when N > S, whatever the stack
CENTRE = partial(uniform, (0.5,))  # _get_test_indices; 3 frames, 4 segments -> [0, 1, 1, 2]
CENTRE_FIRST = partial(uniform, (0.5, 0.0))  # twice_sample
DENSE_RANDOM = partial(dense, random_start)
DENSE_TEN = partial(dense, ten_starts)

# --- Crops ------------------------------------------------------------------------------------------------------------


def centre(frame: Size, crop_size: int) -> list[Crop]:
    """TSM: ``GroupCenterCrop``."""
    return [center_crop(frame, crop_size)]


def full_resolution(frame: Size, crop_size: int) -> list[Crop]:
    """Left, right, centre at half height. TSM: ``GroupFullResSample``."""
    return crops_in_quarters(frame, crop_size, ((0, 2), (4, 2), (2, 2)))


def oversample(frame: Size, crop_size: int) -> list[Crop]:
    """The corners and the centre. TSM: ``GroupOverSample`` without mirroring."""
    return crops_in_quarters(frame, crop_size, CORNERS_AND_CENTRE)


def oversample_mirrored(frame: Size, crop_size: int) -> list[Crop]:
    """The corners and the centre, each followed by its mirror image. TSM: ``GroupOverSample``."""
    return [crop._replace(flip=flip) for crop in oversample(frame, crop_size) for flip in (False, True)]


TEST_CROPS = {1: centre, 3: full_resolution, 5: oversample, 10: oversample_mirrored}
RULE = ViewRule("tsm", "linear", (256, 224), crop_is_scale=False, resize=resized_size, test_crops=TEST_CROPS)

# --- Names ------------------------------------------------------------------------------------------------------------

_TRAIN = Sampling("tsm-train-uniform-random", 1, True, RANDOM)
_VAL = Sampling("tsm-val", 1, False, centre_or_first)
_TEST = Sampling("tsm-test-1clip", 1, False, CENTRE)
_TEST_TWICE = Sampling("tsm-test-2clip-twice-sample", 2, False, CENTRE_FIRST)
_TRAIN_DENSE = Sampling("tsm-train-dense-random", 1, True, DENSE_RANDOM, "dense")
_VAL_DENSE = Sampling("tsm-val-dense-random", 1, True, DENSE_RANDOM, "dense")
_TEST_DENSE = Sampling("tsm-test-dense-10clip", 10, False, DENSE_TEN, "dense")

ORIGINAL = Original(
    name="tsm",
    families=(
        Family("tsm", _TRAIN, {1: _TEST, 2: _TEST_TWICE}),
        Family("tsm-dense", _TRAIN_DENSE, {1: _VAL_DENSE, 10: _TEST_DENSE}),
    ),
    modes=(_TRAIN, _VAL, _TEST, _TEST_TWICE, _TRAIN_DENSE, _VAL_DENSE, _TEST_DENSE),
    rule=RULE,
)
