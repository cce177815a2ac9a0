"""Evaluations on disk: ``scores.parquet`` and ``metrics.json``."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from actcli.engine.metrics import Scores
from actcli.errors import ActcliError

SCORES_NAME = "scores.parquet"
METRICS_NAME = "metrics.json"


def write_scores(path: Path, scores: Scores) -> None:
    """Write ``key`` (9 digits), ``label``, ``scores`` (a list of K logits) and, if kept, ``views`` (V lists of K)."""
    table = pd.DataFrame(
        {
            "key": [f"{key:09d}" for key in scores.keys],
            "label": scores.labels,
            "scores": list(scores.logits.astype(np.float32)),
        }
    )
    if scores.view_logits is not None:
        table["views"] = [list(views) for views in scores.view_logits.astype(np.float32)]
    table.to_parquet(path, index=False)


def read_scores(path: Path) -> Scores:
    """Read what ``write_scores`` wrote; ``path`` is the file or the folder it is in.

    Raises:
        ActcliError: No such file, or not one of ours.
    """
    path = path / SCORES_NAME if path.is_dir() else path
    try:
        table = pd.read_parquet(path, columns=["key", "label", "scores"])
        logits = np.stack(table["scores"].to_list()).astype(np.float32)
        keys, labels = (table[name].to_numpy().astype(np.int64) for name in ("key", "label"))
        return Scores(keys, labels, logits)
    except (OSError, ValueError, KeyError) as error:
        raise ActcliError(
            f"{path} holds no scores ({error}). Make them with: actcli eval, and name the folder of the evaluation."
        ) from error


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write ``metrics.json``; a number that does not exist becomes null."""
    path.write_text(json.dumps(_without_nan(metrics), indent=1, ensure_ascii=False) + "\n")


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
