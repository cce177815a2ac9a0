"""A comparison tells progress from chance, and refuses what cannot be compared."""

import re
from importlib import resources

import numpy as np
import pytest
from scipy.stats import binomtest

from actcli.engine.comparison import class_differences, contestants, draw_curves, paired_test
from actcli.engine.metrics import Scores
from actcli.engine.results import METRICS_NAME, SCORES_NAME, class_names, write_metrics, write_scores
from actcli.errors import ActcliError
from actcli.pages import charts

CLASSES = ["a", "b", "c"]
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, -1])


@pytest.fixture
def evaluation(tmp_path):
    """``evaluation(name, guesses)`` writes an evaluation whose clips are guessed so."""

    def write(name, guesses, keys=None, labels=LABELS):
        folder = tmp_path / name
        folder.mkdir()
        logits = np.eye(3, dtype=np.float32)[np.asarray(guesses)]
        keys = np.arange(len(guesses)) if keys is None else np.asarray(keys)
        write_scores(folder / SCORES_NAME, Scores(keys, labels, logits), CLASSES)
        write_metrics(folder / METRICS_NAME, {"protocol": "1 clip", "gflops": 2.0, "run": None})
        return str(folder)

    return write


def test_an_evaluation_is_not_compared_with_itself(evaluation, tmp_path):
    one = evaluation("one", [0] * 10)
    with pytest.raises(ActcliError, match="is named more than once; name each evaluation once"):
        contestants(tmp_path, [one, f"{one}/../one"])


def test_clips_without_labels_are_not_compared(evaluation, tmp_path):
    folders = [evaluation(name, [0] * 10, labels=np.full(10, -1)) for name in ("one", "two")]
    with pytest.raises(ActcliError, match="have no labels, so that none is recognised"):
        contestants(tmp_path, folders)


def test_the_difference_counts_clips_that_both_scored(evaluation, tmp_path):
    right = evaluation("right", [0, 0, 0, 0, 1, 1, 1, 2, 2, 0])
    half = evaluation("half", [0, 0, 1, 1, 1, 1, 0, 2, 0, 0])
    test = paired_test(*contestants(tmp_path, [half, right]))
    assert (test.only_first, test.only_second) == (0, 4)
    assert test.difference == pytest.approx(4 / 9)  # the clip without a label takes no part
    assert test.p_value == pytest.approx(binomtest(0, 4).pvalue)
    assert 0 < test.low < test.difference < test.high <= 1
    assert "chance would not explain" in test.verdict()


def test_facts_of_an_evaluation_that_are_of_no_use_are_left_out(evaluation, tmp_path):
    folders = [evaluation(name, [0, 0, 0, 0, 1, 1, 1, 2, 2, 0]) for name in ("one", "two")]
    write_metrics(tmp_path / "one" / METRICS_NAME, {"gflops": "many", "run": {"folder": 7}})
    write_metrics(tmp_path / "two" / METRICS_NAME, {"gflops": [1], "run": ["x"]})
    assert [(part.gflops, part.epochs) for part in contestants(tmp_path, folders)] == [(None, ())] * 2


def test_many_clips_make_a_small_difference_certain(tmp_path):
    labels = np.zeros(2000, int)
    folders = []
    for name, wrong in (("worse", 400), ("better", 300)):
        (tmp_path / name).mkdir()
        guesses = np.zeros(2000, int)
        guesses[:wrong] = 1
        write_scores(
            tmp_path / name / SCORES_NAME,
            Scores(np.arange(2000), labels, np.eye(3, dtype=np.float32)[guesses]),
            CLASSES,
        )
        write_metrics(tmp_path / name / METRICS_NAME, {})
        folders.append(str(tmp_path / name))
    test = paired_test(*contestants(tmp_path, folders))
    assert test.verdict().startswith("better is better (p = ")
    assert test.low > 0.03
    assert test.high < 0.07


def test_equal_evaluations_differ_by_chance_at_most(evaluation, tmp_path):
    names = [evaluation(name, [0, 1, 0, 1, 1, 0, 1, 2, 0, 0]) for name in ("one", "two")]
    test = paired_test(*contestants(tmp_path, names))
    assert (test.difference, test.p_value, test.low, test.high) == (0, 1, 0, 0)


def test_classes_are_listed_by_the_size_of_their_difference(evaluation, tmp_path):
    first = evaluation("first", [0, 0, 0, 0, 1, 0, 0, 2, 2, 0])
    second = evaluation("second", [0, 0, 0, 1, 1, 1, 1, 2, 2, 0])
    rows = class_differences(*contestants(tmp_path, [first, second]))
    assert [(row.label, row.count) for row in rows] == [(1, 3), (0, 4), (2, 2)]
    assert (rows[0].first, rows[0].second) == (pytest.approx(1 / 3), 1.0)
    assert class_names(tmp_path / "first") == dict(enumerate(CLASSES))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": np.arange(1, 11)}, "and 9 are in both. Compare evaluations of the same split"),
        ({"labels": LABELS[::-1].copy()}, "different labels for the same clips"),
    ],
)
def test_other_clips_or_labels_are_refused(evaluation, tmp_path, change, message):
    first = evaluation("first", [0] * 10)
    with pytest.raises(ActcliError, match=message):
        contestants(tmp_path, [first, evaluation("second", [0] * 10, **change)])


def test_one_evaluation_is_no_comparison(evaluation, tmp_path):
    with pytest.raises(ActcliError, match="needs two evaluations"):
        contestants(tmp_path, [evaluation("one", [0] * 10)])


def test_without_a_training_there_is_no_curve(evaluation, tmp_path):
    parts = contestants(tmp_path, [evaluation(name, [0] * 10) for name in ("one", "two")])
    assert draw_curves(parts, tmp_path / "curves.png") is False
    assert not (tmp_path / "curves.png").exists()


def test_curves_of_one_epoch_have_one_whole_tick_and_names_are_cut_in_their_middle():
    names = ("Pushing something from left to right", "Pushing something from right to left")
    picture = charts.lines([charts.Line(name, ((1, 2.0),)) for name in names], "epoch", "loss")
    texts = re.findall(r"<text[^>]*>([^<]*)", picture)
    assert texts[:2] == ["1", "epoch"]
    assert texts[-2:] == ["Pushing somethi…m left to right", "Pushing somethi…m right to left"]


def test_bars_of_the_comparison_have_the_width_of_a_phone():
    templates = resources.files("actcli.pages") / "templates"
    assert '<span class="bars"><span class="bar">' in (templates / "compare.html.j2").read_text()
    phone = (templates / "page.css").read_text().split("@media (max-width: 560px)")[1].split("@media")[0]
    assert ".row .bars { grid-column: 1 / -1;" in phone  # else they share a line with the numbers, which take it all
