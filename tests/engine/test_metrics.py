"""Accuracies count what they say."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from actcli.engine.metrics import (
    Scores,
    calibration,
    class_accuracies,
    class_results,
    confusion_matrix,
    summarise,
    top_k_accuracy,
)

LOGITS = np.array(
    [[3, 2, 1, 0, -1, -2], [0, 5, 4, 3, 2, 1], [9, 8, 7, 6, 5, 4], [0, 0, 0, 0, 0, 1]],
    np.float32,
)
LABELS = np.array([0, 2, 5, 5])


def scores(logits, labels):
    return Scores(np.arange(len(labels)), np.asarray(labels), np.asarray(logits, np.float32))


def test_top_1_counts_the_highest_score():
    assert top_k_accuracy(LOGITS, LABELS, 1) == pytest.approx(2 / 4)


def test_top_2_and_top_5_count_the_highest_scores():
    assert top_k_accuracy(LOGITS, LABELS, 2) == pytest.approx(3 / 4)
    assert top_k_accuracy(LOGITS, LABELS, 5) == pytest.approx(3 / 4)
    assert top_k_accuracy(LOGITS, LABELS, 6) == 1


def test_clips_without_a_label_are_left_out():
    assert top_k_accuracy(LOGITS, np.array([0, -1, -1, 0]), 1) == pytest.approx(1 / 2)


def test_without_any_label_there_is_no_accuracy():
    found = summarise(scores(LOGITS, [-1] * 4))
    assert all(math.isnan(value) for value in found.values())


def test_a_row_of_the_confusion_matrix_is_a_label_and_a_column_a_guess():
    expected = np.zeros((6, 6), int)
    expected[0, 0] = expected[2, 1] = expected[5, 0] = expected[5, 5] = 1
    np.testing.assert_array_equal(confusion_matrix(LOGITS, LABELS), expected)


def test_a_class_without_clips_has_no_accuracy():
    accuracies = class_accuracies(confusion_matrix(LOGITS, LABELS))
    np.testing.assert_array_equal(accuracies, [1, np.nan, 0, np.nan, np.nan, 0.5])


def test_mean_class_accuracy_weighs_classes_alike_and_skips_empty_ones():
    found = summarise(scores(LOGITS, LABELS))
    assert found == pytest.approx({"top1": 0.5, "top5": 0.75, "mean_class_accuracy": (1 + 0 + 0.5) / 3})


def test_top_5_of_fewer_classes_is_all_of_them():
    assert summarise(scores([[1, 0], [1, 0]], [0, 1]))["top5"] == 1


def test_random_scores_agree_with_a_count_by_sorting():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 7)).astype(np.float32), rng.integers(0, 7, 200)
    ranks = (logits > logits[np.arange(200), labels][:, None]).sum(1)
    for k in (1, 3, 5):
        assert top_k_accuracy(logits, labels, k) == pytest.approx((ranks < k).mean())


def test_sorting_keeps_what_belongs_to_a_clip_together():
    keys, labels = np.array([7, 2, 5]), np.array([0, 1, 2])
    views = np.arange(18, dtype=np.float32).reshape(3, 2, 3)
    found = Scores(keys, labels, views.mean(1), views).sorted()
    assert found.keys.tolist() == [2, 5, 7]
    assert found.labels.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(found.logits, views.mean(1)[[1, 2, 0]])
    np.testing.assert_array_equal(found.view_logits, views[[1, 2, 0]])


def test_a_dataset_of_one_class_has_an_accuracy_too():
    scores = Scores(np.arange(3), np.zeros(3, int), np.ones((3, 1), np.float32))
    assert summarise(scores)["top1"] == 1.0
    assert confusion_matrix(scores.logits, scores.labels).tolist() == [[3]]


def test_the_calibration_error_is_that_of_torchmetrics():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 2, (500, 7)), rng.integers(0, 7, 500)
    expected = multiclass_calibration_error(torch.tensor(logits), torch.tensor(labels), 7, n_bins=15)
    assert calibration(scores(logits, labels)).error == pytest.approx(float(expected), abs=1e-6)


def test_every_labelled_clip_is_in_one_bin_of_its_confidence():
    found = calibration(scores(LOGITS, [0, -1, 0, 5]), num_bins=10)
    assert (found.num_clips, sum(one.num_clips for one in found.bins)) == (3, 3)
    assert all(one.low < one.confidence <= one.high for one in found.bins if one.num_clips)


def test_calibration_without_labels_does_not_exist():
    assert math.isnan(calibration(scores(LOGITS, [-1] * 4)).error)


def test_results_by_class_leave_out_classes_without_clips_and_name_what_they_are_taken_for():
    found = [
        (row.name, row.num_clips, row.top1, row.most_taken_for)
        for row in class_results(scores(LOGITS, LABELS), "abcdef")
    ]
    assert found == [("a", 1, 1.0, None), ("c", 1, 0.0, "b"), ("f", 2, 0.5, "a")]
