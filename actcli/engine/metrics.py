"""Scores of a split and the numbers made from them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_confusion_matrix


@dataclass(frozen=True)
class Scores:
    """Class scores of every clip of a split, in key order."""

    keys: NDArray[np.int64]
    """``[N]``: positions in the official list."""
    labels: NDArray[np.int64]
    """``[N]``, −1 where the official list gives none."""
    logits: NDArray[np.float32]
    """``[N, K]``: logits averaged over views."""
    view_logits: NDArray[np.float32] | None = None
    """``[N, V, K]``: logits of each view, where they were asked for."""

    def sorted(self) -> "Scores":
        """The same clips in key order."""
        order = np.argsort(self.keys, kind="stable")
        views = None if self.view_logits is None else self.view_logits[order]
        return Scores(self.keys[order], self.labels[order], self.logits[order], views)


class Accuracies(TypedDict):
    """Shares of the clips that were recognised, 0..1; NaN where no clip has a label."""

    top1: float
    """Right at the first guess."""
    top5: float
    """Right among the five first."""
    mean_class_accuracy: float
    """Mean over the classes of the share of their clips."""


class Details(TypedDict):
    """What lies behind the accuracies, as plain data."""

    calibration: dict[str, object]
    """A ``Calibration``."""
    classes: list[dict[str, object]]
    """A ``ClassResult`` for each class that has clips."""


@dataclass(frozen=True)
class ClassResult:
    """How well one class is recognised."""

    name: str
    """The class."""
    num_clips: int
    """Its clips."""
    top1: float
    """Share of them that were recognised, 0..1."""
    most_taken_for: str | None
    """The class that its other clips are guessed to be most often; None where all were recognised."""


@dataclass(frozen=True)
class CalibrationBin:
    """The clips whose best guess has a probability in ``(low, high]``."""

    low: float
    high: float
    num_clips: int
    """How many there are."""
    confidence: float
    """Mean probability of the best guess; NaN without clips."""
    accuracy: float
    """Share of right guesses; NaN without clips."""


@dataclass(frozen=True)
class Calibration:
    """Whether guesses of probability p are right in a share p of the cases."""

    error: float
    """Expected calibration error, 0..1: the mean over clips of |confidence − accuracy| of their bins; NaN without
    labels. Source: Guo et al., "On calibration of modern neural networks", 2017."""
    num_clips: int
    """Clips with a label."""
    bins: tuple[CalibrationBin, ...]
    """Of equal width."""


def top_k_accuracy(scores: NDArray[np.floating], labels: NDArray[np.integer], k: int) -> float:
    """Share of clips whose label is among the ``k`` highest scores.

    Args:
        scores: ``[N, K]``.
        labels: ``[N]``; clips without a label (−1) are left out.
        k: Number of guesses.

    Returns:
        0..1, NaN where no clip has a label.
    """
    if not (labels >= 0).any():
        return float("nan")
    scores = _two_classes(scores)
    value = multiclass_accuracy(
        torch.as_tensor(scores), torch.as_tensor(labels), scores.shape[1], "micro", top_k=k, ignore_index=-1
    )
    return float(value)


def confusion_matrix(scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
    """``[K, K]`` counts: row is the label, column the guess; clips without a label are left out."""
    num_classes, scores = scores.shape[1], _two_classes(scores)
    counts = multiclass_confusion_matrix(
        torch.as_tensor(scores), torch.as_tensor(labels), scores.shape[1], ignore_index=-1
    )
    return np.asarray(counts.numpy(), np.int64)[:num_classes, :num_classes]


def _two_classes(scores: NDArray[np.floating]) -> NDArray[np.floating]:
    """``scores`` with a second class that is never guessed where there is only one: torchmetrics wants two."""
    return scores if scores.shape[1] > 1 else np.pad(scores, ((0, 0), (0, 1)), constant_values=-np.inf)


def class_accuracies(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """``[K]``: share of each class's clips that were recognised, NaN for a class without clips."""
    counts = confusion.sum(1)
    accuracies = np.full(len(counts), np.nan)
    np.divide(confusion.diagonal(), counts, out=accuracies, where=counts > 0)
    return accuracies


def summarise(scores: Scores) -> Accuracies:
    """Top-1, top-5 and mean class accuracy, each 0..1."""
    per_class = class_accuracies(confusion_matrix(scores.logits, scores.labels))
    return {
        "top1": top_k_accuracy(scores.logits, scores.labels, 1),
        "top5": top_k_accuracy(scores.logits, scores.labels, min(5, scores.logits.shape[1])),
        "mean_class_accuracy": float(np.nanmean(per_class)) if (~np.isnan(per_class)).any() else float("nan"),
    }


def class_results(scores: Scores, classes: Sequence[str]) -> list[ClassResult]:
    """Every class that has clips, in the order of the labels."""
    confusion = confusion_matrix(scores.logits, scores.labels)
    accuracies, wrong = class_accuracies(confusion), confusion.copy()
    np.fill_diagonal(wrong, 0)
    return [
        ClassResult(
            name=classes[label],
            num_clips=int(confusion[label].sum()),
            top1=float(accuracies[label]),
            most_taken_for=classes[wrong[label].argmax()] if wrong[label].any() else None,
        )
        for label in np.flatnonzero(confusion.sum(1)).tolist()
    ]


def calibration(scores: Scores, num_bins: int = 15) -> Calibration:
    """Reliability of the probabilities, over the clips that have a label."""
    labelled = scores.labels >= 0
    probabilities = softmax(scores.logits[labelled].astype(np.float64), axis=1)
    confidence = probabilities.max(1, initial=0)
    right = probabilities.argmax(1) == scores.labels[labelled]
    edges = np.linspace(0, 1, num_bins + 1)
    places = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, num_bins - 1)
    bins = tuple(
        _calibration_bin(edges[number], edges[number + 1], confidence[places == number], right[places == number])
        for number in range(num_bins)
    )
    shares = [one.num_clips / len(right) * abs(one.confidence - one.accuracy) for one in bins if one.num_clips]
    return Calibration(float(sum(shares)) if shares else float("nan"), len(right), bins)


def details(scores: Scores, classes: Sequence[str]) -> Details:
    """Calibration and the result of each class, as plain data."""
    return {
        "calibration": asdict(calibration(scores)),
        "classes": [asdict(result) for result in class_results(scores, classes)],
    }


def _calibration_bin(
    low: float, high: float, confidence: NDArray[np.float64], right: NDArray[np.bool_]
) -> CalibrationBin:
    if not len(right):
        return CalibrationBin(float(low), float(high), 0, float("nan"), float("nan"))
    return CalibrationBin(float(low), float(high), len(right), float(confidence.mean()), float(right.mean()))
