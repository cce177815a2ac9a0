"""GSM, ``swathikirans/GSM``: ``dataset.py``. TSM's code, the clips of a test in the other order."""

from functools import partial

from actcli.loaders.originals import tsm
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import Sampling, uniform

START_FIRST = partial(uniform, (0.0, 0.5))  # _get_test_indices: 7 frames, 3 segments -> [0, 2, 4] and [1, 3, 5]
_ANY_STACK = 10**9
_RANDOM = partial(tsm.draw_segments, _ANY_STACK)  # a short video is drawn sorted when N - stack + 1 > S

_TRAIN = Sampling("gsm-train-uniform-random", 1, True, _RANDOM)
_VAL = Sampling("gsm-val", 1, False, tsm.centre_or_first)
_TEST = Sampling("gsm-test-1clip", 1, False, tsm.CENTRE)
_TEST_TWO = Sampling("gsm-test-2clip", 2, False, START_FIRST)

ORIGINAL = Original(
    name="gsm",
    families=(Family("gsm", _TRAIN, {1: _TEST, 2: _TEST_TWO}),),
    modes=(_TRAIN, _VAL, _TEST, _TEST_TWO),
    rule=tsm.RULE,
)
