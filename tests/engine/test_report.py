"""The page holds the numbers, and nothing in a dataset can break out of it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from actcli.engine.history import write_history
from actcli.engine.metrics import Scores, confusion_matrix, summarise
from actcli.engine.recipes import find_recipe
from actcli.engine.report import write_report
from actcli.engine.reporting import EpochReport
from actcli.engine.runs import RunConfig
from actcli.shards import ShardOptions, ShardSet, write_shards

METRICS = {
    "model": "tsm",
    "dataset": "tiny",
    "split": "val",
    "split_id": "1",
    "top1": 0.5,
    "top5": 0.5,
    "mean_class_accuracy": 0.5,
}
EVIL = "<script>alert('x')</script> & \"more\""


class Tags(HTMLParser):
    """Collects the names of all tags."""

    def __init__(self):
        super().__init__()
        self.names = []

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)


@pytest.fixture(scope="module")
def case(tiny_shards):
    shards = ShardSet.open(tiny_shards)
    shards = replace(shards, card=replace(shards.card, classes=(EVIL, *shards.card.classes[1:])))
    index = shards.index("val")
    logits = np.eye(6, dtype=np.float32)[index.labels]
    logits[index.labels == 2] = np.eye(6)[0] * 3  # one class is taken for the first
    return shards, Scores(index.keys.astype(np.int64), index.labels.astype(np.int64), logits)


@pytest.fixture(scope="module")
def page(case, tmp_path_factory):
    shards, scores = case
    folder = tmp_path_factory.mktemp("run")
    RunConfig(find_recipe("tsm", "sthv2"), "tiny", "shards").write(folder)
    write_history(folder, [EpochReport(0, 0.1, 2.0, 0.3, 0.4, 0.9, 0.4), EpochReport(1, 0.1, 1.0, 0.5)])
    metrics = METRICS | {
        **summarise(scores),
        "protocol": "one look",
        "command": "actcli eval --crops 3",
        "coverage": dict(shards.card.coverage),
        "run": {"folder": str(folder), "state": "finished"},
    }
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, scores, metrics, shards, "val", "1")
    return path.read_text()


def test_nothing_of_a_dataset_becomes_a_tag(page):
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page
    assert tags_of(page).count("script") == 2  # that of the page, and the cells of the matrix as JSON


def tags_of(page):
    parser = Tags()
    parser.feed(page)
    return parser.names


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert not re.findall(r"url\((?!data:|#)", page)


def test_the_accuracy_is_told(page, case):
    assert f"{100 * summarise(case[1])['top1']:.1f} %" in page


def cells_of(page):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', page)[1])


def test_the_cells_of_the_matrix_are_the_confusions(page, case):
    shards, scores = case
    found = cells_of(page)
    assert found["names"] == list(shards.card.classes)
    counts = confusion_matrix(scores.logits, scores.labels)
    assert {(a, b): n for a, b, n in found["cells"]} == {
        (a, b): counts[a, b] for a in range(6) for b in range(6) if counts[a, b]
    }


def test_every_order_of_the_matrix_holds_every_class_once(page):
    assert [sorted(order["labels"]) for order in cells_of(page)["orders"]] == [list(range(6))] * 5


def test_the_most_confused_pair_is_shown_with_a_clip_of_each(page, case):
    name = case[0].card.classes[2]
    [pair] = re.findall(r'<div class="pair">.*?</div>\n</div>', page, flags=re.DOTALL)
    assert re.search(rf"<b>{name}</b>, taken for <b class=\"bad\">&lt;script.*1 of 1", pair)
    assert pair.count("url(data:image/webp;base64,") == 2


def test_worst_and_best_clips_are_film_strips(page, case):
    assert page.count("the class itself") == len(case[1].keys)
    assert page.count("--n:8;") == len(case[1].keys) + 2


def test_the_page_says_what_made_it_and_how_the_training_went(page):
    assert "actcli eval --crops 3" in page
    assert page.count("<svg ") == 1 + 3 + 3  # matrix; reliability, length, size; accuracy, loss, learning rate


def test_a_dollar_in_a_name_is_no_formula(case, tmp_path):
    shards, scores = case
    named = replace(shards, card=replace(shards.card, classes=("$x^2", *shards.card.classes[1:])))
    write_report(tmp_path / "page.html", scores, METRICS, named, "val", "1")
    assert "$x^2" in (tmp_path / "page.html").read_text()


def test_a_thousand_classes_are_the_most_that_a_page_shows(case, tmp_path):
    shards, scores = case
    names = tuple(f"class {number}" for number in range(1001))
    wide = np.pad(scores.logits, ((0, 0), (0, 995)), constant_values=-9)
    shards = replace(shards, card=replace(shards.card, classes=names))
    write_report(tmp_path / "page.html", replace(scores, logits=wide), METRICS, shards, "val", "1")
    assert "Confusion matrix" not in (tmp_path / "page.html").read_text()


def test_clips_without_labels_make_a_page_too(case, tmp_path):
    shards, scores = case
    unlabelled = replace(scores, labels=np.full_like(scores.labels, -1))
    metrics = METRICS | {"top1": None, "top5": None, "mean_class_accuracy": None}
    write_report(tmp_path / "page.html", unlabelled, metrics, shards, "val", "1")
    assert "Worst clips" not in (tmp_path / "page.html").read_text()


def test_video_shards_have_film_strips_too(case, tiny_shards, tmp_path):
    packed = tmp_path / "video"
    write_shards(ShardOptions(Path(tiny_shards).parent / "frames", packed, payload="video"))
    write_report(tmp_path / "page.html", case[1], METRICS, ShardSet.open(packed), "val", "1")
    assert "url(data:image/webp;base64," in (tmp_path / "page.html").read_text()
