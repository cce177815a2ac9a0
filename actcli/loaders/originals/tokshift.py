"""TokShift, ``VideoNetworks/TokShift-Transformer``: ``data/dataset.py``. Bicubic resizing, crops of its own."""

from functools import partial

import numpy as np

from actcli.loaders.augment import Augmentation, ColourJitter
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import Indices, Rng, Sampling, draw_per_segment, no_answer, random_start, uniform, wrapped
from actcli.loaders.views import Crop, Size, ViewRule, resized_size_by_ratio

# --- Frames -----------------------------------------------------------------------------------------------------------

_STRIDE = 32


def _num_starts(num_frames: int, num_segments: int) -> int:
    return max(num_frames - num_segments * _STRIDE + 1, 1)


def _dense_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames 32 apart from a random start. ``read_random_clip``.

    100 frames, 3 segments, start 2 of 0..3 -> [2, 34, 66]
    70 frames, 3 segments                   -> [0, 32, 64]
    40 frames, 3 segments                   -> [0, 32, 24]     after the last frame it begins again
    """
    start = random_start(_num_starts(num_frames, num_segments), rng)
    return wrapped(start, _STRIDE, num_frames, num_segments)


def _dense_even(num_test_clips: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Frames 32 apart from starts spread over the video, late ones put back. ``read_clip``.

    100 frames, 2 segments, 4 clips -> [0, 32], [25, 57], [37, 69], [37, 69]     starts 50 and 75 become 37
    60 frames, 2 segments, 4 clips  -> [0, 32] four times
    """
    num_starts = _num_starts(num_frames, num_segments)
    starts = np.trunc(np.arange(num_test_clips) * num_frames / num_test_clips).astype(np.int64)
    starts = np.minimum(starts, num_starts) if num_starts > 1 else np.zeros(num_test_clips, np.int64)
    return wrapped(starts, _STRIDE, num_frames, num_segments)


def _random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """A draw per segment of whole frames; fails for a short video. ``read_random_uniform_clip``.

    7 frames, 3 segments -> one of 0..1, one of 2..3, one of 4..5     [o o] [o o] [o o] .
    """
    if num_frames < num_segments:
        raise no_answer("TokShift's uniform training sampler", num_frames, num_segments)
    return draw_per_segment(num_frames // num_segments, num_segments, rng)


def _uniform(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """The centres, one frame too early: the original forgets to count from one. ``read_uniform_clip``.

    7 frames, 3 segments -> [0, 2, 4]     o . o . o . .
    """
    return uniform((0.5,), num_frames, num_segments, 1, rng) - 1


def _uniform_twice(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """The second clip repeats the last frame of the first. ``read_uniform_clip`` with ``uniform_twice``.

    7 frames, 3 segments -> [0, 2, 4] and [4, 4, 4]
    """
    first = _uniform(num_frames, num_segments, 1, rng)
    return np.concatenate([first, np.full_like(first, first[0, -1])])


# --- Crops ------------------------------------------------------------------------------------------------------------


def _centre(frame: Size, crop_size: int) -> list[Crop]:
    """Half pixels are rounded down."""
    return [Crop((frame.width - crop_size) // 2, (frame.height - crop_size) // 2, crop_size, crop_size)]


def _three(frame: Size, crop_size: int) -> list[Crop]:
    """Centre, left, right, at the height of the centre."""
    [centre] = _centre(frame, crop_size)
    return [centre, centre._replace(x=0), centre._replace(x=frame.width - crop_size)]


def _five(frame: Size, crop_size: int) -> list[Crop]:
    """The centre and the corners."""
    right, bottom = frame.width - crop_size, frame.height - crop_size
    corners = [Crop(x, y, crop_size, crop_size) for y in (0, bottom) for x in (0, right)]
    return _centre(frame, crop_size) + corners


RULE = ViewRule(
    name="tokshift",
    interpolation="cubic",
    default_scale=(1, 1),
    crop_is_scale=False,
    resize=resized_size_by_ratio,
    test_crops={1: _centre, 3: _three, 5: _five},
)

_JITTER = ColourJitter(brightness=(0.5, 2.0), saturation=(0.5, 3.0), gamma=(0.8, 1.2), hue=(-0.5, 0.5), probability=0.1)

# --- Names ------------------------------------------------------------------------------------------------------------

_TRAIN = Sampling("tokshift-train-dense-random", 1, True, _dense_random, "dense")
_TEST = Sampling("tokshift-val-test-dense-1clip", 1, False, partial(_dense_even, 1), "dense")
_TEST_TEN = Sampling("tokshift-val-test-dense-10clip", 10, False, partial(_dense_even, 10), "dense")

ORIGINAL = Original(
    name="tokshift",
    families=(Family("tokshift", _TRAIN, {1: _TEST, 10: _TEST_TEN}),),
    modes=(
        *(_TRAIN, _TEST, _TEST_TEN),
        Sampling("tokshift-train-uniform-random", 1, True, _random),
        Sampling("tokshift-val-uniform-1clip-as-coded", 1, False, _uniform),
        Sampling("tokshift-val-uniform-twice-as-coded", 2, False, _uniform_twice),
    ),
    rule=RULE,
    augmentation=Augmentation(crop="short_side", colour_jitter=_JITTER),
)
