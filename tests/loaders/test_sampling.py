"""Frame sampling: the originals' numbers, and what must hold for every length."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.loaders.originals import find_original, find_sampling, original_names, sampling_names
from actcli.loaders.sampling import expand_stack, surrounding_stack

NAMED = {mode.name: mode for name in original_names() for mode in find_original(name).modes}


class ForcedRng:
    """Draws that always come out lowest or highest."""

    def __init__(self, highest):
        self.highest = highest

    def integers(self, low, high, size=None):
        assert low < high
        return np.full(size, high - 1 if self.highest else low, np.int64)

    def permutation(self, x):
        return np.arange(x)[::-1].copy() if self.highest else np.arange(x)


def modes(parity_dir):
    codebases = json.loads((parity_dir / "protocol" / "sampling.json").read_text())["codebases"]
    for original, codebase in codebases.items():
        for mode, table in codebase["modes"].items():
            base, _, _ = mode.partition("__new_length")
            name = f"{original}-{base}".replace("__", "-").replace("_", "-")
            yield name, table.get("new_length", 1), table["rows"]


def requested(name, row, stack, rng):
    sampling = NAMED[name]
    segments = 25 if name == "stmulnet-f25" else row["num_segments"]
    return sampling.request(row["num_frames"], segments, rng, stack) + 1


def check_row(name, row, stack):
    if "error" in row:
        with pytest.raises(ActcliError, match=r"the original code fails"):
            requested(name, row, stack, np.random.default_rng(0))
        return
    low = requested(name, row, stack, ForcedRng(False))
    high = requested(name, row, stack, ForcedRng(True))
    free = np.stack([requested(name, row, stack, np.random.default_rng(seed)) for seed in range(20)])
    if "indices" in row:
        np.testing.assert_array_equal(low.reshape(-1), row["indices"])
    elif "clips" in row:
        np.testing.assert_array_equal(low, row["clips"])
    elif "frames" in row:
        np.testing.assert_array_equal(low[0], row["frames"])
        np.testing.assert_array_equal(high[0], row["frames"])
        assert (free == low).all()
    elif "first_index_range" in row:
        assert [low[0, 0], high[0, 0]] == row["first_index_range"]
    elif "ranges" in row:
        lowest, highest = np.array(row["ranges"]).T
        assert (low == lowest).all()
        assert (high == highest).all()
        assert ((free >= lowest) & (free <= highest)).all()
    elif "sample_size" in row:
        first, last = row["population"]
        inner = free[:, 0, :-1]
        assert ((inner >= first) & (inner <= last)).all()
        assert (np.diff(free[:, 0, :-1]) > 0).all()
        assert free.shape[-1] == row["sample_size"]
    else:
        assert row["random_fill"]
        assert (free[:, 0, :-1] >= 6).all()
        assert (free[:, 0] <= row["num_frames"] - 4).all()


def test_every_row_of_every_original_is_reproduced(parity_dir):
    num_rows = 0
    for name, stack, rows in modes(parity_dir):
        for row in rows:
            check_row(name, row, stack)
            num_rows += 1
    assert num_rows > 4000


def test_tsm_flow_draw_fails_where_the_original_does():
    with pytest.raises(ActcliError, match="fails there"):
        NAMED["tsm-train-uniform-random"].request(3, 1, np.random.default_rng(0), stack=5)


def test_a_request_outside_the_video_becomes_frame_zero():
    sampling = find_sampling("gsf-sparse-video-val", num_test_clips=1)
    rng = np.random.default_rng(0)
    assert sampling.request(5, 4, rng).tolist() == [[1, 2, 4, 5]]
    assert sampling.sample(5, 4, rng).tolist() == [[1, 2, 4, 0]]


def test_segments_take_the_middle_of_each_part():
    assert find_sampling("segments").sample(7, 3, np.random.default_rng(0)).tolist() == [[1, 3, 5]]


def test_segments_spread_a_short_video_evenly():
    assert find_sampling("segments").sample(2, 4, np.random.default_rng(0)).tolist() == [[0, 0, 1, 1]]


def test_dense_test_clips_reach_from_the_first_to_the_last_frame():
    clips = find_sampling("dense", num_test_clips=3).sample(164, 64, np.random.default_rng(0))
    assert clips[:, 0].tolist() == [0, 50, 100]
    assert clips[-1, -1] == 163


LENGTHS = st.integers(1, 2000)
SEGMENTS = st.integers(1, 40)


@given(LENGTHS, SEGMENTS, st.integers(1, 12), st.sampled_from(["segments", "dense"]), st.booleans(), st.integers(0, 99))
def test_our_frames_are_in_range_and_ordered(num_frames, num_segments, num_clips, name, training, seed):
    sampling = find_sampling(name, training, num_clips)
    frames = sampling.request(num_frames, num_segments, np.random.default_rng(seed))
    assert frames.shape == (1 if training else num_clips, num_segments)
    assert frames.min() >= 0
    assert frames.max() < num_frames
    assert (np.diff(frames, axis=1) >= 0).all()


@given(LENGTHS, SEGMENTS, st.integers(1, 12))
def test_our_segments_are_spread_as_evenly_as_integers_allow(num_frames, num_segments, num_clips):
    frames = find_sampling("segments", num_test_clips=num_clips).sample(
        num_frames, num_segments, np.random.default_rng(0)
    )
    gaps = np.diff(frames, axis=1)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


@given(LENGTHS, st.integers(1, 32), st.sampled_from(sorted(NAMED)), st.integers(0, 99))
def test_a_named_protocol_never_reads_outside_the_video(num_frames, num_segments, name, seed):
    try:
        frames = NAMED[name].sample(num_frames, num_segments, np.random.default_rng(seed))
    except ActcliError:
        return
    assert frames.shape == (NAMED[name].num_test_clips, num_segments)
    assert frames.min() >= 0
    assert frames.max() < num_frames


@pytest.mark.parametrize(("num_frames", "num_segments"), [(30, 8), (5, 8), (64, 16)])
def test_random_segments_use_every_frame_equally_often(num_frames, num_segments):
    rng = np.random.default_rng(1)
    sampling = find_sampling("segments", training=True)
    draws = np.concatenate([sampling.sample(num_frames, num_segments, rng)[0] for _ in range(4000)])
    share = np.bincount(draws, minlength=num_frames) / len(draws) * num_frames
    assert share.min() > 0.85
    assert share.max() < 1.15


def test_a_stack_repeats_the_last_frame_at_the_end():
    assert expand_stack(np.array([0, 4]), 3, 6).tolist() == [[0, 1, 2], [4, 5, 5]]


def test_a_surrounding_stack_reaches_from_five_before_to_four_after():
    assert surrounding_stack(np.array([7]), 10, 20).tolist() == [list(range(2, 12))]
    assert surrounding_stack(np.array([1]), 10, 4).tolist() == [[0, 0, 0, 0, 0, 1, 2, 3, 3, 3]]


def test_a_family_picks_the_mode_by_training_and_clips():
    assert find_sampling("gsf", training=True).name == "gsf-train-uniform-random"
    assert find_sampling("gsf", num_test_clips=2).name == "gsf-test-2clip"
    assert find_sampling("masnet-dense", num_test_clips=4).name == "masnet-test-dense-4clip"


def test_an_unknown_sampling_lists_the_known_ones():
    with pytest.raises(ActcliError, match="masnet-dense"):
        find_sampling("tms")


def test_a_wrong_number_of_clips_says_which_is_right():
    with pytest.raises(ActcliError, match="1 or 2 clips, not 3"):
        find_sampling("tsm", num_test_clips=3)


def test_every_listed_name_is_found():
    for name in sampling_names():
        find_sampling(
            name,
            training=name in ("tsm", "tsm-dense"),
            num_test_clips=NAMED[name].num_test_clips if name in NAMED else 1,
        )
