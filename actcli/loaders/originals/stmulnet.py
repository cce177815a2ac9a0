"""ST-MulNet, ``mbiparva/spatiotemporal-multiplier-networks-pytorch``: ``lib/data/temporal_sampling.py``.

Every frame has room for five flow fields before and after it. Crops are as large as the short side and are resized.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders.augment import Augmentation
from actcli.loaders.originals import tsm
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import Indices, Rng, Sampling, no_answer
from actcli.loaders.views import ViewRule, resized_size

_MARGIN = 5
_STRIDE = 5
_MOST_FILLED = 21


def _inner_points(num_frames: int, num_points: int) -> NDArray[np.float64]:
    return np.linspace(_MARGIN, num_frames - _MARGIN, num_points)


def _inner_grid(num_frames: int, stride: int) -> NDArray[np.float64]:
    """Frames ``stride`` apart that have their margin.

    21 frames, stride 5 -> 5 10 15     . . . . . o . . . . o . . . . o . . . . .
    """
    return np.arange(_MARGIN, num_frames - _MARGIN + 1, stride).astype(np.float64)


def _uniform_grid(num_frames: int, num_segments: int, rng: Rng) -> NDArray[np.float64]:
    """The grid that has about ``num_segments`` points. ``frame_sampler``, ``uniform``."""
    stride = max((num_frames - 2 * _MARGIN) // max(num_segments - 1, 1), 1)
    return _inner_grid(num_frames, stride)


def _strided_grid(num_frames: int, num_segments: int, rng: Rng) -> NDArray[np.float64]:
    """Every fifth frame, or evenly spaced ones where these are too few. ``frame_sampler``, ``temporal_stride``."""
    grid = _inner_grid(num_frames, _STRIDE)
    return grid if len(grid) >= num_segments else np.round(_inner_points(num_frames, num_segments))


def _fill(samples: NDArray[np.float64], num_frames: int, num_segments: int, rng: Rng) -> NDArray[np.float64]:
    """Add random points of ever finer grids until there are enough; an even grid when too many are missing."""
    if not len(samples):
        raise no_answer("ST-MulNet's sampler", num_frames, num_segments)
    if num_segments - len(samples) > _MOST_FILLED:
        return np.sort(np.round(_inner_points(num_frames, num_segments)))
    while len(samples) < num_segments:
        num_points = len(samples) + 1
        points = np.linspace(_MARGIN, num_frames - _MARGIN, num_points, endpoint=False)
        samples = np.append(samples, np.round(points[rng.integers(1, num_points, 1)]))
    return np.sort(samples)


def _from_grid(
    grid: Callable[[int, int, Rng], NDArray[np.float64]], num_frames: int, num_segments: int, stack: int, rng: Rng
) -> Indices:
    """Points of a grid; too few are filled up at random, of too many a random window of neighbours is kept.

    26 frames, 3 segments, every fifth, window 0 of 0..1 -> [5, 10, 15]     of 5 10 15 20
    """
    samples = grid(num_frames, num_segments, rng)
    if len(samples) < num_segments:
        samples = _fill(samples, num_frames, num_segments, rng)
    if len(samples) > num_segments:
        start = int(rng.integers(0, len(samples) - num_segments, 1)[0])
        samples = samples[start : start + num_segments]
    return _frames(samples, num_frames)


def _frames(samples: NDArray[np.float64], num_frames: int) -> Indices:
    if (np.diff(samples) < 0).any():
        raise no_answer("ST-MulNet's sampler", num_frames, len(samples))
    if samples[-1] + _MARGIN >= num_frames:
        samples[-1] -= 2  # some flow folders lack the last field; only the last sample moves, as in the original
    return np.trunc(samples).astype(np.int64)[None]


def _random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """``num_segments`` different frames of the inner part, in order. ``frame_sampler``, ``random``.

    15 frames, 3 segments -> three of 5..9     . . . . . [o o o o o] . . . . .
    """
    population = max(num_frames - 2 * _MARGIN, 0)
    samples = (rng.permutation(population)[:num_segments] + _MARGIN).astype(np.float64)
    if len(samples) < num_segments:
        samples = _fill(samples, num_frames, num_segments, rng)
    return _frames(np.sort(samples), num_frames)


def _f25(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """25 evenly spaced frames, the last two earlier. ``frame_sampler``, ``f25``.

    34 frames -> [5, 6, 7, …, 28, 27]     the last point, 29, has no margin left
    """
    if num_segments != 25:
        raise ActcliError(f"stmulnet-f25 always takes 25 frames, not {num_segments}. Use num_frames 25 (--frames 25).")
    return _frames(_inner_points(num_frames, 25), num_frames)


_RANDOM = Sampling("stmulnet-random", 1, True, _random)

ORIGINAL = Original(
    name="stmulnet",
    families=(Family("stmulnet", _RANDOM, {1: _RANDOM}),),
    modes=(
        Sampling("stmulnet-f25", 1, False, _f25),
        Sampling("stmulnet-uniform", 1, True, partial(_from_grid, _uniform_grid)),
        Sampling("stmulnet-temporal-stride", 1, True, partial(_from_grid, _strided_grid)),
        _RANDOM,
    ),
    rule=ViewRule(
        name="stmulnet",
        interpolation="linear",
        default_scale=(256, 112),
        crop_is_scale=True,
        resize=resized_size,
        test_crops=tsm.TEST_CROPS,
    ),
    augmentation=Augmentation(crop="corner"),
)
