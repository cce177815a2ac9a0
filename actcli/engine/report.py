"""``report.html``: what an evaluation looks like, on one page that needs nothing else."""

import base64
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from actcli.engine.metrics import Scores, class_accuracies, confusion_matrix
from actcli.errors import ActcliError
from actcli.shards import ShardIndex, ShardReader, ShardSet

NUM_LISTED = 10
"""Rows of the lists of classes and of confusions."""
NUM_EXAMPLES = 8
"""Clips shown with pictures."""
NUM_PICTURES = 6
"""Frames shown of each."""
MAX_MATRIX_CLASSES = 200
"""Beyond this many classes the matrix would be a grey blur; the list of confusions says more."""


@dataclass(frozen=True)
class _ClassRow:
    name: str
    count: int
    accuracy: float


@dataclass(frozen=True)
class _Example:
    key: str
    label: str
    guess: str
    probability: float
    pictures: list[str]


def write_report(
    path: Path, scores: Scores, metrics: dict[str, Any], shards: ShardSet, split: str, split_id: str
) -> None:
    """Write the page: metrics, confusion matrix, best and worst classes, confident mistakes with pictures."""
    classes = shards.card.classes
    confusion = confusion_matrix(scores.logits, scores.labels)
    accuracies = class_accuracies(confusion)
    rows = [
        _ClassRow(classes[label], int(confusion[label].sum()), float(accuracies[label]))
        for label in np.argsort(accuracies)
        if not np.isnan(accuracies[label])
    ]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((resources.files("actcli.engine") / "report.html.j2").read_text())
    page = template.render(
        metrics=metrics,
        classes=classes,
        matrix=_matrix_cells(confusion) if len(classes) <= MAX_MATRIX_CLASSES else None,
        best=rows[::-1][:NUM_LISTED],
        worst=rows[:NUM_LISTED],
        confusions=_top_confusions(confusion, classes),
        examples=_examples(scores, shards, split, split_id),
    )
    path.write_text(page)


def _matrix_cells(confusion: np.ndarray[Any, Any]) -> list[list[tuple[int, float]]]:
    """Count and share of the row for each cell."""
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    return [[(int(n), float(s)) for n, s in zip(*both, strict=True)] for both in zip(confusion, shares, strict=True)]


def _top_confusions(confusion: np.ndarray[Any, Any], classes: tuple[str, ...]) -> list[tuple[str, str, int, int]]:
    """Label, guess, count and clips of the label, most frequent first."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(wrong, axis=None)[::-1][:NUM_LISTED]
    pairs = [divmod(int(cell), len(classes)) for cell in order if wrong.flat[cell]]
    return [(classes[a], classes[b], int(wrong[a, b]), int(confusion[a].sum())) for a, b in pairs]


def _examples(scores: Scores, shards: ShardSet, split: str, split_id: str) -> list[_Example]:
    """The mistakes the model was surest of."""
    classes = shards.card.classes
    exp = np.exp(scores.logits - scores.logits.max(1, keepdims=True))
    probabilities = exp / exp.sum(1, keepdims=True)
    guesses = scores.logits.argmax(1)
    wrong = np.flatnonzero((guesses != scores.labels) & (scores.labels >= 0))
    surest = wrong[np.argsort(-probabilities[wrong, guesses[wrong]])][:NUM_EXAMPLES]
    index = shards.index(split, split_id)
    reader = ShardReader(shards.root)
    row_of = {int(key): row for row, key in enumerate(index.keys)}
    return [
        _Example(
            key=f"{scores.keys[i]:09d}",
            label=classes[scores.labels[i]],
            guess=classes[guesses[i]],
            probability=float(probabilities[i, guesses[i]]),
            pictures=_pictures(index, reader, row_of[int(scores.keys[i])], shards.card.payload),
        )
        for i in surest
    ]


def _pictures(index: ShardIndex, reader: ShardReader, row: int, payload: str) -> list[str]:
    """Some frames of a clip as data URLs; they are JPEGs already, so the page takes them as they are."""
    if payload != "mjpeg" or not index.num_frames[row]:
        return []
    frames = np.linspace(0, index.num_frames[row] - 1, NUM_PICTURES).astype(int)
    try:
        places = index.frame_extents(row, frames)
        extents = zip(places.offsets.tolist(), places.sizes.tolist(), strict=True)
        jpegs = [bytes(reader.read(index.shard_name(row), offset, size)) for offset, size in extents]
    except ActcliError:
        return []  # the tar went away since the scores were made; the page does without pictures
    return [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in jpegs]
