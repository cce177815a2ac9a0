"""Fuse the saved scores of several evaluations."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import log_softmax, logsumexp

from actcli.engine.metrics import Scores
from actcli.engine.results import read_scores
from actcli.errors import ActcliError


def fuse(paths: Sequence[Path], weights: Sequence[float] | None = None) -> Scores:
    """Weighted mean of class probabilities, joined on the clip's key.

    Args:
        paths: Evaluation folders or ``scores.parquet`` files, two or more.
        weights: One per evaluation, positive; all equal unless given.

    Returns:
        Scores whose ``logits`` are log-probabilities of the fused distribution.

    Raises:
        ActcliError: The evaluations are not of the same clips, labels and classes, or the weights do not fit.
    """
    if len(paths) < 2:
        raise ActcliError("an ensemble needs two evaluations or more: actcli ensemble A B")
    weights = list(weights) if weights else [1.0] * len(paths)
    if len(weights) != len(paths) or not all(0 < weight < math.inf for weight in weights):
        raise ActcliError(f"{len(paths)} evaluations need {len(paths)} positive --weights, got {weights}.")
    first, *others = parts = [read_scores(path).sorted() for path in paths]
    for path, part in zip(paths[1:], others, strict=True):
        _check_same(first, part, paths[0], path)
    log_probabilities = np.stack([log_softmax(part.logits, axis=1) for part in parts])  # part, clip, class
    relative = np.array(weights) / max(weights)  # their sum may be more than a number can be
    shares = relative[:, None, None] / relative.sum()
    fused = logsumexp(log_probabilities, axis=0, b=shares)  # in logarithms, so that no small probability becomes 0
    return Scores(first.keys, first.labels, fused.astype(np.float32))


def _check_same(first: Scores, other: Scores, first_path: Path, other_path: Path) -> None:
    if first.logits.shape[1] != other.logits.shape[1]:
        raise ActcliError(
            f"{first_path} has {first.logits.shape[1]} classes, {other_path} has {other.logits.shape[1]}. "
            f"Fuse evaluations of the same dataset."
        )
    if not np.array_equal(first.keys, other.keys):
        common = len(np.intersect1d(first.keys, other.keys))
        raise ActcliError(
            f"{first_path} has {len(first.keys)} clips, {other_path} has {len(other.keys)}, and {common} are in both. "
            f"Fuse evaluations of the same split of the same shards, joined in the same order."
        )
    if not np.array_equal(first.labels, other.labels):
        raise ActcliError(f"{first_path} and {other_path} have different labels for the same clips.")
