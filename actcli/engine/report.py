"""``report.html``: what an evaluation says and what to do next, on one page that needs nothing else."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.special import softmax
from scipy.stats import binomtest

from actcli.engine.examples import ClipPictures, ShownClip
from actcli.engine.metrics import Calibration, Scores, calibration, class_results, confusion_matrix
from actcli.engine.recipes import read_fields
from actcli.engine.reporting import EpochReport
from actcli.engine.results import METRICS_NAME, Metrics
from actcli.engine.runs import CONFIG_NAME, read_state
from actcli.files import write_text_whole
from actcli.pages import charts, render_page
from actcli.shards import Coverage, ShardIndex, ShardSet

NUM_PAIRS = 8
"""Confused pairs with film strips."""
NUM_CLIPS = 12
"""Best and worst clips."""
MAX_CLASSES = 1000
"""Rows of classes, and sides of a matrix, beyond which a page would grow without end."""
_MAX_NAMED = 30
_NUM_GROUPS = 8

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class About:
    """What the page says of the evaluation as a whole; taken from ``metrics.json``."""

    model: str
    dataset: str
    split: str
    split_id: str
    num_clips: int
    top1: float | None
    top5: float | None
    mean_class_accuracy: float | None
    protocol: str = ""
    left_out: str = ""
    command: str = ""
    gflops: float | None = None
    gflops_per_view: float = 0.0
    num_views: int = 1
    parameters: int = 0

    @staticmethod
    def of(metrics: Metrics) -> "About":
        """The fields that ``metrics`` has."""
        known = {name: value for name, value in metrics.items() if name in About.__dataclass_fields__}
        return read_fields(
            About, {name: value for name, value in known.items() if value is not None or name in _NUMBERS}, METRICS_NAME
        )


_NUMBERS = ("top1", "top5", "mean_class_accuracy")


@dataclass(frozen=True)
class Order:
    """A way to sort the confusion matrix."""

    name: str
    """What it sorts by."""
    labels: tuple[int, ...]
    """Labels from top to bottom."""


@dataclass(frozen=True)
class Matrix:
    """The confusion matrix: a picture, and its cells for the script."""

    picture: Markup
    names: tuple[str, ...]
    cells: list[tuple[int, int, int]]
    """Label, guess and number of clips of every cell that is not 0."""
    orders: tuple[Order, ...]

    @property
    def plain_orders(self) -> list[dict[str, object]]:
        """The orders as the script reads them."""
        return [{"labels": order.labels} for order in self.orders]


@dataclass(frozen=True)
class ConfusedPair:
    """A class, what it is taken for, and a clip of each."""

    label: str
    guess: str
    count: int
    """Clips of the class that were taken for the other."""
    total: int
    """Clips of the class."""
    mistake: ShownClip
    other: ShownClip | None
    """A clip of the class it was taken for; None where the split has none."""


@dataclass(frozen=True)
class Chart:
    """A picture with its words."""

    title: str
    words: str
    picture: Markup


def write_report(path: Path, scores: Scores, metrics: Metrics, shards: ShardSet, split: str, split_id: str) -> None:
    """Write the page of an evaluation; it holds all it needs, and its size does not grow with the clips."""
    classes = shards.card.classes
    probabilities = softmax(scores.logits.astype(np.float64), axis=1)
    confusion, clips = (
        confusion_matrix(scores.logits, scores.labels),
        ClipPictures(scores, probabilities, shards, split, split_id),
    )
    rows = sorted(class_results(scores, classes), key=lambda row: (row.top1, row.name))
    reliability = calibration(scores)
    worst, best = _extremes(scores, probabilities)
    page = render_page(
        "report",
        about=About.of({**metrics, "num_clips": len(scores.keys)}),
        coverage=read_fields(Coverage, metrics["coverage"], METRICS_NAME) if metrics.get("coverage") else None,
        calibration=reliability,
        rows=rows[:MAX_CLASSES],
        num_more_classes=max(0, len(rows) - MAX_CLASSES),
        matrix=_matrix(confusion, classes) if len(classes) <= MAX_CLASSES and confusion.any() else None,
        pairs=list(_confused_pairs(confusion, classes, scores, probabilities, clips)),
        worst=[clips.show(number) for number in worst],
        best=[clips.show(number) for number in best],
        charts=list(_charts(scores, reliability, clips)),
        curves=_curves(metrics.get("run")),
        facts=_facts(metrics),
    )
    write_text_whole(path, page)


def _extremes(scores: Scores, probabilities: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Positions of the clips whose class got the least and the most probability."""
    labelled = np.flatnonzero(scores.labels >= 0)
    given = probabilities[labelled, scores.labels[labelled]]
    order = labelled[np.argsort(given, kind="stable")]
    wrong = probabilities[order].argmax(1) != scores.labels[order]
    return order[wrong][:NUM_CLIPS].tolist(), order[~wrong][::-1][:NUM_CLIPS].tolist()


def _matrix(confusion: Counts, classes: Sequence[str]) -> Matrix:
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    labels, guesses = np.nonzero(confusion)
    counts = confusion[labels, guesses]
    return Matrix(
        picture=charts.matrix(shares, classes if len(classes) <= _MAX_NAMED else None),
        names=tuple(classes),
        cells=list(zip(labels.tolist(), guesses.tolist(), counts.tolist(), strict=True)),
        orders=_orders(confusion, shares, classes),
    )


def _orders(confusion: Counts, shares: NDArray[np.float64], classes: Sequence[str]) -> tuple[Order, ...]:
    def order(name: str, labels: NDArray[np.int64]) -> Order:
        return Order(name, tuple(labels.tolist()))

    found = [order("of the class list", np.arange(len(classes)))]
    if len(classes) > 2:
        alike = shares + shares.T
        distances = (1 - alike / 2)[np.triu_indices(len(classes), 1)]
        found.append(order("classes that are confused side by side", leaves_list(linkage(distances, "average"))))
    found.append(order("worst class first", np.argsort(shares.diagonal(), kind="stable")))
    found.append(order("most clips first", np.argsort(-confusion.sum(1), kind="stable")))
    found.append(order("name", np.argsort(np.array(classes))))
    return tuple(found)


def _confused_pairs(
    confusion: Counts, classes: Sequence[str], scores: Scores, probabilities: NDArray[np.float64], clips: ClipPictures
) -> Iterator[ConfusedPair]:
    """The pairs with the most mistakes, each with its surest mistake and the surest clip of the other class."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    guesses = probabilities.argmax(1)
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:NUM_PAIRS].tolist():
        label, guess = divmod(cell, len(classes))
        if not wrong[label, guess]:
            return
        mistakes = np.flatnonzero((scores.labels == label) & (guesses == guess))
        others = np.flatnonzero(scores.labels == guess)
        yield ConfusedPair(
            classes[label],
            classes[guess],
            int(wrong[label, guess]),
            int(confusion[label].sum()),
            clips.show(int(mistakes[probabilities[mistakes, guess].argmax()])),
            clips.show(int(others[probabilities[others, guess].argmax()])) if len(others) else None,
        )


def _charts(scores: Scores, reliability: Calibration, clips: ClipPictures) -> Iterator[Chart]:
    labelled = scores.labels >= 0
    if not labelled.any():
        return
    right, rows = (scores.logits.argmax(1) == scores.labels)[labelled], clips.rows[labelled]
    filled = [one for one in reliability.bins if one.num_clips]
    yield Chart(
        "Reliability",
        "Below the dashed line the model is surer than it is right. A point is as large as its share of the clips.",
        charts.reliability(
            [one.confidence for one in filled], [one.accuracy for one in filled], [one.num_clips for one in filled]
        ),
    )
    words = "Top-1 of clips in groups of equal number; the thin lines are 95 % intervals (Wilson)."
    index = clips.index
    has_rgb = bool(index.num_frames[rows].any())
    lengths = (index.num_frames if has_rgb else index.flow_num_frames)[rows]
    yield Chart("Length", words, charts.bars(_by_quantile(lengths, right), "frames of the clip", "top-1, %"))
    words = "Top-1 by the size of the stored pictures, the most frequent sizes first."
    yield Chart("Size", words, charts.bars(_by_size(index, rows, right), "width × height", "top-1, %"))


def _by_quantile(values: NDArray[np.integer], right: NDArray[np.bool_]) -> list[charts.Bar]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _NUM_GROUPS + 1), method="nearest"))
    places = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, max(len(edges) - 2, 0))
    groups = [(values[places == number], right[places == number]) for number in range(max(len(edges) - 1, 1))]
    return [_share_bar(_range_name(inside), hits) for inside, hits in groups if len(inside)]


def _range_name(values: NDArray[np.integer]) -> str:
    low, high = int(values.min()), int(values.max())
    return str(low) if low == high else f"{low}–{high}"


def _by_size(index: ShardIndex, rows: NDArray[np.int64], right: NDArray[np.bool_]) -> list[charts.Bar]:
    sizes = np.stack([index.widths[rows], index.heights[rows]], axis=1)
    distinct, places, counts = np.unique(sizes, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    shown, rest = order[: _NUM_GROUPS - 1], order[_NUM_GROUPS - 1 :]
    bars = [_share_bar(f"{distinct[n][0]}×{distinct[n][1]}", right[places.ravel() == n]) for n in shown]
    if len(rest):
        bars.append(_share_bar("others", right[np.isin(places.ravel(), rest)]))
    return bars


def _share_bar(name: str, right: NDArray[np.bool_]) -> charts.Bar:
    interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
    return charts.Bar(name, 100 * float(right.mean()), 100 * interval.low, 100 * interval.high)


def _curves(run: object) -> list[Chart]:
    """Accuracy, loss and learning rate of the training, where the evaluation is of a run that is still there."""
    if not isinstance(run, dict) or not (Path(str(run.get("folder", ""))) / CONFIG_NAME).exists():
        return []
    epochs = read_state(Path(run["folder"])).epochs
    return training_charts(epochs) if epochs else []


def training_charts(epochs: Sequence[EpochReport]) -> list[Chart]:
    """Curves of one training, by epoch from 1."""
    validated = [epoch for epoch in epochs if epoch.val_top1 is not None]
    accuracy = [charts.Line("training", tuple((epoch.epoch + 1, 100 * epoch.train_top1) for epoch in epochs))]
    if validated:
        points = tuple((epoch.epoch + 1, 100 * (epoch.val_top1 or 0)) for epoch in validated)
        accuracy.append(charts.Line("validation", points))
    loss = charts.Line("loss", tuple((epoch.epoch + 1, epoch.train_loss) for epoch in epochs))
    rate = charts.Line("rate", tuple((epoch.epoch + 1, epoch.learning_rate) for epoch in epochs))
    words = "On augmented clips in training; one look at each clip in validation."
    return [
        Chart("Accuracy", words, charts.lines(accuracy, "epoch", "top-1, %")),
        Chart("Loss", "Mean over the training clips.", charts.lines([loss], "epoch", "training loss")),
        Chart("Learning rate", "Of parameters whose multiplier is 1.", charts.lines([rate], "epoch", "learning rate")),
    ]


def _facts(metrics: Metrics) -> list[tuple[str, str]]:
    """What tells this evaluation from others, as rows."""
    run = metrics.get("run")
    rows = [
        ("test", metrics.get("protocol")),
        ("weights", metrics.get("weights")),
        ("trained", metrics.get("trained")),
        ("run", f"{run['folder']}, {run['state']}" if run else None),
        ("shards", metrics.get("shards")),
        ("left out", metrics.get("left_out")),
    ]
    return [(name, str(value)) for name, value in rows if value]
