"""MAS-Net, ``Henry7Lee/MAS-Net-for-action-recognition``: ``ops/dataset.py``. TSM's code but for the dense tests."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from actcli.loaders.originals import tsm
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import Indices, Rng, Sampling


def _middle_start(num_starts: int, rng: Rng) -> Indices:
    """``_get_val_indices`` with ``dense_sample``."""
    return np.array([(num_starts - 1) // 2])


def _shifted(
    num_test_clips: int, to_integer: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    num_frames: int, num_segments: int, stack: int, rng: Rng,
) -> Indices:  # fmt: skip
    """A uniform sample shifted by as many phases as there are clips. ``_get_test_indices`` with ``dense_sample``.

    8 frames, 2 segments, 4 clips -> [0, 4]  o . . . o . . .
                                     [1, 5]  . o . . . o . .
                                     [2, 6]  . . o . . . o .
                                     [3, 7]  . . . o . . . o
    2 frames, 4 segments, 4 clips -> [0, 0, 1, 1] and thrice [-1, 0, 0, 0]     frame -1 does not exist

    ``to_integer``: since numpy 1.20 the starts are rounded down, before they were rounded toward zero.
    """
    t = num_frames / num_segments
    starts = to_integer(np.linspace(0, t - 1, num_test_clips))
    return np.trunc(t * np.arange(num_segments) + starts[:, None]).astype(np.int64)


_TRAIN = Sampling("masnet-train-uniform-random", 1, True, tsm.RANDOM)
_VAL = Sampling("masnet-val", 1, False, tsm.centre_or_first)
_TEST = Sampling("masnet-test-1clip", 1, False, tsm.CENTRE)
_TEST_TWICE = Sampling("masnet-test-2clip-twice-sample", 2, False, tsm.CENTRE_FIRST)
_TRAIN_DENSE = Sampling("masnet-train-dense-random", 1, True, tsm.DENSE_RANDOM, "dense")
_VAL_DENSE = Sampling("masnet-val-dense", 1, False, partial(tsm.dense, _middle_start), "dense")
_TEST_FOUR = Sampling("masnet-test-dense-4clip", 4, False, partial(_shifted, 4, np.floor), "dense")
_TEST_TEN = Sampling("masnet-test-dense-10clip", 10, False, partial(_shifted, 10, np.floor), "dense")
_OLD_FOUR = Sampling("masnet-test-dense-4clip-numpy-before-1-20", 4, False, partial(_shifted, 4, np.trunc), "dense")
_OLD_TEN = Sampling("masnet-test-dense-10clip-numpy-before-1-20", 10, False, partial(_shifted, 10, np.trunc), "dense")

ORIGINAL = Original(
    name="masnet",
    families=(
        Family("masnet", _TRAIN, {1: _TEST, 2: _TEST_TWICE}),
        Family("masnet-dense", _TRAIN_DENSE, {1: _VAL_DENSE, 4: _TEST_FOUR, 10: _TEST_TEN}),
    ),
    modes=(
        *(_TRAIN, _VAL, _TEST, _TEST_TWICE),
        *(_TRAIN_DENSE, _VAL_DENSE, _TEST_FOUR, _OLD_FOUR, _TEST_TEN, _OLD_TEN),
    ),
    rule=tsm.RULE,
)
