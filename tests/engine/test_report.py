"""The page holds the numbers, and nothing in a dataset can break out of it."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from actcli.engine.metrics import Scores, summarise
from actcli.engine.report import write_report
from actcli.shards import ShardSet

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
    metrics = {
        **summarise(scores),
        "model": "tsm",
        "dataset": "tiny",
        "split": "val",
        "split_id": "1",
        "num_clips": len(scores.keys),
        "protocol": "one look",
        "coverage": dict(shards.card.coverage),
    }
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, scores, metrics, shards, "val", "1")
    return path.read_text()


def test_class_names_are_escaped(page):
    assert "script" not in tags_of(page)
    assert "&lt;script&gt;" in page


def tags_of(page):
    parser = Tags()
    parser.feed(page)
    return parser.names


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)


def test_the_accuracy_is_told(page, case):
    assert f"{100 * summarise(case[1])['top1']:.1f} %" in page


def test_the_matrix_has_a_cell_for_each_pair_of_classes(page):
    assert page.count('<td class="c"') == 36


def test_the_most_frequent_confusion_is_listed(page, case):
    name = case[0].card.classes[2]
    assert re.search(rf"<td>{name}</td><td class=\"wrong\">&lt;script.*1 of 1</td>", page)


def test_a_mistake_is_shown_with_frames_of_its_clip(page):
    assert page.count('<img src="data:image/jpeg;base64,') == 6


def test_many_classes_have_no_matrix(case, tmp_path):
    shards, scores = case
    names = tuple(f"class {number}" for number in range(201))
    wide = np.pad(scores.logits, ((0, 0), (0, 195)), constant_values=-9)
    shards = replace(shards, card=replace(shards.card, classes=names))
    metrics = {**summarise(scores), "model": "tsm", "dataset": "tiny", "split": "val", "split_id": "1", "coverage": {}}
    write_report(tmp_path / "page.html", replace(scores, logits=wide), metrics, shards, "val", "1")
    assert "Confusion matrix" not in (tmp_path / "page.html").read_text()
