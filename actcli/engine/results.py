"""Evaluations on disk: ``scores.parquet`` and ``metrics.json``."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from actcli.engine.metrics import Scores
from actcli.errors import ActcliError
from actcli.files import write_text_whole, written_whole

SCORES_NAME = "scores.parquet"
METRICS_NAME = "metrics.json"
_DIGEST = b"actcli.sha256"
_SEAL = "sha256"
_DECIMALS = 6


class RunFacts(TypedDict):
    """How far the run was that the weights are from."""

    folder: str
    state: str
    """In words."""
    finished: bool
    epochs_done: int
    epochs: int
    """What the recipe asks for."""
    changes: list[str]
    """What was changed when it was continued, in words."""


class SelectionFacts(TypedDict, total=False):
    """Which clips of which folders were scored."""

    joined: Sequence[str]
    """Further folders of shards."""
    subset: dict[str, object]
    """A ``Subset``."""
    labelled_as: Sequence[str]
    """Class list that labels count by, where it is not that of the shards."""


class Metrics(TypedDict, total=False):
    """``metrics.json``: what an evaluation found and what it was of.

    Accuracies are 0..1, None where no clip has a label.
    """

    top1: float | None
    top5: float | None
    mean_class_accuracy: float | None
    calibration: dict[str, object]
    """A ``Calibration``."""
    classes: list[dict[str, object]]
    """A ``ClassResult`` for each class that has clips."""
    num_clips: int
    num_without_flow: int
    """Clips that were left out because they have no flow."""
    coverage: dict[str, int]
    """``Coverage`` of the split: listed, ok, failed, missing."""
    gflops_per_view: float
    num_views: int
    gflops: float
    """Of all views of a clip."""
    parameters: int
    protocol: str
    """The test in words."""
    dataset: str
    shards: str
    selection: SelectionFacts
    left_out: str
    """What the subset leaves out, in words."""
    split: str
    split_id: str
    model: str
    weights: str
    """Name of the file."""
    command: str
    trained: str | None
    """Where the weights come from."""
    run: RunFacts | None


def write_scores(path: Path, scores: Scores, classes: Sequence[str], clips: Mapping[int, str] | None = None) -> None:
    """Write a row per clip, with a checksum over keys, labels and scores in the file's metadata.

    Columns: ``key`` (9 digits), ``clip`` (its name in the official list, where ``clips`` knows the key), ``label`` (−1
    where the official list gives none), ``class`` and ``prediction`` (names), ``scores`` (a list of K logits) and, if
    kept, ``views`` (V lists of K logits).
    """
    columns = {
        "key": pa.array([f"{key:09d}" for key in scores.keys]),
        "clip": pa.array([(clips or {}).get(int(key)) for key in scores.keys], pa.string()),
        "label": pa.array(scores.labels),
        "class": pa.array([classes[label] if label >= 0 else None for label in scores.labels], pa.string()),
        "prediction": pa.array([classes[guess] for guess in scores.logits.argmax(1)], pa.string()),
        "scores": pa.array(list(scores.logits.astype(np.float32)), pa.list_(pa.float32())),
    }
    if scores.view_logits is not None:
        views = [list(clip) for clip in scores.view_logits.astype(np.float32)]
        columns["views"] = pa.array(views, pa.list_(pa.list_(pa.float32())))
    table = pa.table(columns).replace_schema_metadata({_DIGEST: _digest(scores).encode()})
    with written_whole(path) as partial, partial.open("wb") as file:
        pq.write_table(table, file, write_page_checksum=True)


def read_scores(path: Path) -> Scores:
    """Read what ``write_scores`` wrote; ``path`` is the file or the folder it is in.

    Raises:
        ActcliError: No such file, not one of ours, or one that was changed since it was written.
    """
    path = path / SCORES_NAME if path.is_dir() else path
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
        table = file.read(columns=["key", "label", "scores"])
        logits = np.stack(table["scores"].to_pylist()).astype(np.float32)
        keys, labels = (np.array(table[name].to_pylist()).astype(np.int64) for name in ("key", "label"))
        scores = Scores(keys, labels, logits)
        written = (file.schema_arrow.metadata or {}).get(_DIGEST, b"").decode()
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise ActcliError(
            f"{path} holds no scores ({error}). Make them with: actcli eval, and name the folder of the evaluation."
        ) from error
    if written != _digest(scores):
        raise ActcliError(f"{path} was changed since it was written, or is damaged. Evaluate again: actcli eval")
    return scores


def class_names(folder: Path) -> dict[int, str]:
    """The class name of each label that an evaluation's clips have."""
    path = folder / SCORES_NAME
    try:
        table = pq.ParquetFile(path, page_checksum_verification=True).read(columns=["label", "class"])
        pairs = list(zip(table["label"].to_pylist(), table["class"].to_pylist(), strict=True))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ActcliError(f"{path} cannot be read ({error}). Evaluate again: actcli eval") from error
    return {label: name for label, name in pairs if name is not None}


def _digest(scores: Scores) -> str:
    digest = hashlib.sha256()
    for array in (scores.keys.astype("<i8"), scores.labels.astype("<i8"), scores.logits.astype("<f4")):
        digest.update(str(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def write_metrics(path: Path, metrics: Metrics) -> None:
    """Write ``metrics.json``, with a checksum of what it says as its last field."""
    fields = {**metrics, _SEAL: _metrics_digest(metrics)}
    write_text_whole(path, json.dumps(fields, indent=1, ensure_ascii=False) + "\n")


def _metrics_digest(metrics: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(metrics, sort_keys=True).encode()).hexdigest()


def read_metrics(folder: Path, texts: Sequence[str] = (), numbers: Sequence[str] = ()) -> Metrics:
    """The ``metrics.json`` of an evaluation.

    Raises:
        ActcliError: There is none, it is not what was written, or a field that is needed as text or as number is not in
            it.
    """
    try:
        found: object = json.loads((folder / METRICS_NAME).read_text())
        if not isinstance(found, dict):
            raise ValueError("no fields")
        if found.pop(_SEAL, None) != _metrics_digest(found):
            raise ValueError("it was changed since it was written, or is of an earlier version")
        metrics = cast(Metrics, found)
        absent = [name for name in texts if not isinstance(metrics.get(name), str)]
        absent += [name for name in numbers if not isinstance(metrics.get(name), int | float)]
        if absent:
            raise ValueError(f"no {absent[0]}")
    except (OSError, ValueError, RecursionError) as error:
        raise ActcliError(f"{folder} has no readable {METRICS_NAME} ({error}); evaluate again: actcli eval") from error
    return metrics


def plain_numbers(metrics: Metrics) -> Metrics:
    """Numbers with six decimals; one that does not exist becomes None."""
    return cast(Metrics, _plain(metrics))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if not isinstance(value, float):
        return value
    return round(value, _DECIMALS) if math.isfinite(value) else None
