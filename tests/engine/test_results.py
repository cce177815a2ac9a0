"""Evaluations on disk can be read by us and by anybody."""

import json

import numpy as np
import pandas as pd
import pytest

from actcli.engine.metrics import Scores
from actcli.engine.results import class_names, plain_numbers, read_metrics, read_scores, write_metrics, write_scores
from actcli.errors import ActcliError

SCORES = Scores(
    np.array([3, 40, 123456789]), np.array([1, -1, 0]), np.array([[0.5, 1], [-2, 3], [7, 1e-9]], np.float32)
)
CLASSES = ["left", "right"]


def test_scores_come_back_as_they_were(tmp_path):
    write_scores(tmp_path / "scores.parquet", SCORES, CLASSES)
    for path in (tmp_path, tmp_path / "scores.parquet"):
        found = read_scores(path)
        np.testing.assert_array_equal(found.keys, SCORES.keys)
        np.testing.assert_array_equal(found.labels, SCORES.labels)
        np.testing.assert_array_equal(found.logits, SCORES.logits)


def test_keys_are_nine_digits_and_views_are_lists(tmp_path):
    views = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    write_scores(tmp_path / "scores.parquet", Scores(SCORES.keys, SCORES.labels, views.mean(1), views), CLASSES)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert table["key"].tolist() == ["000000003", "000000040", "123456789"]
    np.testing.assert_array_equal([np.stack(row) for row in table["views"]], views)


def test_there_are_no_views_unless_asked_for(tmp_path):
    write_scores(tmp_path / "scores.parquet", SCORES, CLASSES)
    assert pd.read_parquet(tmp_path / "scores.parquet").columns.tolist() == [
        "key", "clip", "label", "class", "prediction", "scores",
    ]  # fmt: skip


def test_rows_say_class_and_prediction_by_name(tmp_path):
    write_scores(tmp_path / "scores.parquet", SCORES, CLASSES)
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert table["class"].fillna("-").tolist() == ["right", "-", "left"]
    assert table["prediction"].tolist() == ["right", "right", "left"]


def test_no_flipped_bit_changes_a_score_without_a_word(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, SCORES, CLASSES)
    data = path.read_bytes()
    for at in range(4, len(data) - 8, 7):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            found = read_scores(path)
        except ActcliError:
            continue
        np.testing.assert_array_equal(found.keys, SCORES.keys)
        np.testing.assert_array_equal(found.labels, SCORES.labels)
        np.testing.assert_array_equal(found.logits, SCORES.logits)


def test_no_flipped_bit_changes_the_name_of_a_class_without_a_word(tmp_path):
    path = tmp_path / "scores.parquet"
    write_scores(path, SCORES, CLASSES)
    data, refused = path.read_bytes(), 0
    for at in range(4, len(data) - 8, 3):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x81]) + data[at + 1 :])
        try:
            assert class_names(tmp_path) == {1: "right", 0: "left"}
        except ActcliError:
            refused += 1
    assert refused


@pytest.mark.parametrize("text", ["[]", "{", "{}", '{"dataset": "d", "split": 3}', "[" * 10**5])
def test_metrics_that_do_not_say_what_they_are_of_are_refused(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ActcliError, match=r"has no readable metrics.json \(.*evaluate again: actcli eval"):
        read_metrics(tmp_path, ("dataset", "split"))


@pytest.mark.parametrize("gflops", [None, "3"])
def test_metrics_without_a_number_that_is_needed_are_refused(tmp_path, gflops):
    write_metrics(tmp_path / "metrics.json", {"dataset": "d", "gflops": gflops})
    assert read_metrics(tmp_path, ("dataset",))["dataset"] == "d"
    with pytest.raises(ActcliError, match=r"no readable metrics.json \(no gflops\)"):
        read_metrics(tmp_path, ("dataset",), ("gflops",))


@pytest.mark.parametrize(("before", "after"), [("0.5", "0.9"), ('"d"', '"e"'), ('"sha256"', '"sha255"')])
def test_a_changed_number_or_word_of_metrics_is_never_believed(tmp_path, before, after):
    path = tmp_path / "metrics.json"
    write_metrics(path, {"dataset": "d", "top1": 0.5})
    path.write_text(path.read_text().replace(before, after))
    with pytest.raises(ActcliError, match=r"changed since it was written.*evaluate again: actcli eval"):
        read_metrics(tmp_path)


@pytest.mark.parametrize("content", [None, b"no parquet", pd.DataFrame({"key": ["1"]}).to_parquet()])
def test_what_holds_no_scores_is_refused(tmp_path, content):
    path = tmp_path / "scores.parquet"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ActcliError, match=r"(?s)scores\.parquet holds no scores .* actcli eval"):
        read_scores(path)


def test_a_number_that_does_not_exist_becomes_null(tmp_path):
    path = tmp_path / "metrics.json"
    metrics = {"top1": float("nan"), "inner": {"gflops": float("inf"), "name": "ä"}, "count": 3}
    write_metrics(path, plain_numbers(metrics))
    text = path.read_text()
    assert json.loads(text).pop("sha256")
    assert read_metrics(tmp_path) == {"top1": None, "inner": {"gflops": None, "name": "ä"}, "count": 3}
    assert "NaN" not in text
