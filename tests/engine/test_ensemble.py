"""Fused scores are the weighted mean of probabilities of the same clips."""

import numpy as np
import pytest
from scipy.special import softmax

from actcli.engine.ensemble import fuse
from actcli.engine.metrics import Scores
from actcli.engine.results import write_scores
from actcli.errors import ActcliError

KEYS = np.array([4, 8, 15, 16])
LABELS = np.array([0, 1, 2, 0])
RNG = np.random.default_rng(0)
FIRST, SECOND = (RNG.normal(size=(4, 3)).astype(np.float32) for _ in range(2))


@pytest.fixture
def save(tmp_path):
    def write(name, logits, keys=KEYS, labels=LABELS):
        folder = tmp_path / name
        folder.mkdir()
        write_scores(folder / "scores.parquet", Scores(keys, labels, logits), ["a", "b", "c"])
        return folder

    return write


def test_probabilities_are_averaged_with_the_weights(save):
    fused = fuse([save("a", FIRST), save("b", SECOND)], [1, 1.5])
    expected = (softmax(FIRST, 1) + 1.5 * softmax(SECOND, 1)) / 2.5
    np.testing.assert_allclose(np.exp(fused.logits), expected, rtol=1e-6)
    np.testing.assert_array_equal(fused.keys, KEYS)
    np.testing.assert_array_equal(fused.labels, LABELS)


def test_weights_are_equal_unless_given(save):
    folders = [save("a", FIRST), save("b", SECOND)]
    np.testing.assert_array_equal(fuse(folders).logits, fuse(folders, [2, 2]).logits)


def test_weights_whose_sum_is_no_number_any_more_count_as_they_stand_to_each_other(save):
    folders = [save("a", FIRST), save("b", SECOND)]
    np.testing.assert_array_equal(fuse(folders, [1e308, 1e308]).logits, fuse(folders).logits)


def test_an_evaluation_fused_with_itself_is_itself(save):
    folder = save("a", FIRST)
    np.testing.assert_allclose(np.exp(fuse([folder, folder]).logits), softmax(FIRST, 1), rtol=1e-6)


def test_clips_are_joined_on_their_key_whatever_the_order(save):
    order = np.array([2, 0, 3, 1])
    straight = fuse([save("a", FIRST), save("b", SECOND)])
    mixed = fuse([save("c", FIRST), save("d", SECOND[order], KEYS[order], LABELS[order])])
    np.testing.assert_array_equal(mixed.logits, straight.logits)


def test_the_smallest_probabilities_stay_finite(save):
    logits = np.array([[0, -200, -300]] * 4, np.float32)
    fused = fuse([save("a", logits), save("b", logits)])
    assert fused.logits.argmax(1).tolist() == [0] * 4
    assert np.isfinite(fused.logits).all()


def test_other_clips_are_refused_with_the_overlap(save):
    with pytest.raises(ActcliError, match=r"4 clips, .* has 4, and 3 are in both"):
        fuse([save("a", FIRST), save("b", SECOND, keys=np.array([4, 8, 15, 23]))])


def test_other_labels_are_refused(save):
    with pytest.raises(ActcliError, match="different labels for the same clips"):
        fuse([save("a", FIRST), save("b", SECOND, labels=np.array([0, 1, 2, 1]))])


def test_another_number_of_classes_is_refused(save):
    with pytest.raises(ActcliError, match=r"a has 3 classes, .*b has 2"):
        fuse([save("a", FIRST), save("b", SECOND[:, :2])])


@pytest.mark.parametrize("weights", [[1], [1, 2, 3], [1, 0], [1, -1], [1, float("nan")], [1, float("inf")]])
def test_weights_that_do_not_fit_are_refused(save, weights):
    with pytest.raises(ActcliError, match="2 evaluations need 2 positive --weights"):
        fuse([save("a", FIRST), save("b", SECOND)], weights)


def test_one_evaluation_is_no_ensemble(save):
    with pytest.raises(ActcliError, match="two evaluations or more"):
        fuse([save("a", FIRST)])
