"""Evaluate a run: scores of every clip, metrics, and a page to look at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from actcli.engine.metrics import Scores, summarise
from actcli.engine.recipes import Precision, Protocol
from actcli.engine.report import write_report
from actcli.engine.results import METRICS_NAME, SCORES_NAME, write_metrics, write_scores
from actcli.engine.scoring import score_split
from actcli.engine.trainer import Hardware, launch
from actcli.errors import ActcliError
from actcli.loaders import Loader, open_loader
from actcli.loaders.plan import Modality
from actcli.loaders.sampling import find_sampling
from actcli.models import VideoModel, load_weights, profile_model
from actcli.shards import ShardSet

REPORT_NAME = "report.html"


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate on what, and how clips are looked at."""

    weights: Path
    """Safetensors file of actcli."""
    shards: str
    """Folder or URL of the shards."""
    out_dir: Path
    """Where ``scores.parquet``, ``metrics.json`` and ``report.html`` go."""
    protocol: Protocol
    """Clips, crops, size and sampling."""
    split: str | None = None
    """Split to evaluate; ``val`` where there is one, else ``test``."""
    split_id: str = "1"
    """Split set."""
    batch_size: int | None = None
    """Videos per step; as many as make about 16 views unless given."""
    precision: Precision = "32-true"
    """Arithmetic."""
    keep_views: bool = False
    """Write the logits of each view as well."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found and where it is."""

    metrics: dict[str, Any]
    """As in ``metrics.json``."""
    out_dir: Path
    """Folder of the results."""


def evaluate(
    options: EvalOptions,
    hardware: Hardware,
    *,
    progress: Callable[[int, int], None] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Evaluation:
    """Score a split and write the results.

    Args:
        options: What and how.
        hardware: Where.
        progress: Called with (batches done, batches), on the first process.
        note: Told what the user should know.

    Raises:
        ActcliError: Classes of weights and dataset differ, or the views do not exist.
    """
    fabric = launch(hardware, options.precision)
    shards = ShardSet.open(options.shards)
    split = options.split or shards.card.evaluation_split(options.split_id)
    model, metadata = load_weights(options.weights)
    _check_classes(options, metadata, shards)
    loader = _open(options, hardware, shards, split, model, metadata, fabric, note)
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    told = progress if fabric.is_global_zero else None
    with loader:
        scores = score_split(model, loader, model.input_spec, fabric, keep_views=options.keep_views, progress=told)
    metrics = _metrics(options, scores, shards, split, model, metadata, loader)
    if fabric.is_global_zero:
        write_evaluation(options.out_dir, scores, metrics, shards, split, options.split_id)
    return Evaluation(metrics, options.out_dir)


def write_evaluation(
    out_dir: Path, scores: Scores, metrics: dict[str, Any], shards: ShardSet, split: str, split_id: str
) -> None:
    """Write ``scores.parquet``, ``metrics.json`` and ``report.html``."""
    out_dir.mkdir(parents=True, exist_ok=True)
    write_scores(out_dir / SCORES_NAME, scores)
    write_metrics(out_dir / METRICS_NAME, metrics)
    write_report(out_dir / REPORT_NAME, scores, metrics, shards, split, split_id)


def _check_classes(options: EvalOptions, metadata: dict[str, Any], shards: ShardSet) -> None:
    own, found = metadata.get("classes"), list(shards.card.classes)
    num_classes = metadata["model"]["num_classes"]
    if own is not None and list(own) != found:
        same = "the same classes in another order" if sorted(own) == sorted(found) else f"{len(found)} classes"
        raise ActcliError(
            f"{options.weights} was trained on {len(own)} classes, dataset {shards.card.name} has {same}. "
            f"Evaluate on a dataset with the same class list, or fine-tune: actcli train --init {options.weights} "
            f"--new-head"
        )
    if own is None and num_classes != len(found):
        raise ActcliError(f"{options.weights} has {num_classes} classes, dataset {shards.card.name} has {len(found)}.")


def _open(
    options: EvalOptions,
    hardware: Hardware,
    shards: ShardSet,
    split: str,
    model: VideoModel,
    metadata: dict[str, Any],
    fabric: Any,
    note: Callable[[str], None],
) -> Loader:
    spec, protocol = model.input_spec, options.protocol
    views = protocol.clips * protocol.crops
    return open_loader(
        shards,
        split,
        num_frames=model.num_frames,
        size=protocol.size or spec.size,
        batch_size=options.batch_size or max(1, 16 // views),
        workers=hardware.workers,
        backend=hardware.loader,
        split_id=options.split_id,
        training=False,
        modality=cast(Modality, spec.modality),
        flow_stack=spec.flow_stack or None,
        sampling=choose_sampling(protocol, metadata.get("sampling") or "segments", note),
        num_clips=protocol.clips,
        num_crops=protocol.crops,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device if fabric.device.type == "cuda" else None,
    )


def choose_sampling(protocol: Protocol, trained_with: str, note: Callable[[str], None]) -> str:
    """The sampling of a test: the one asked for, else that of the training where it has this number of clips.

    The originals define their tests for some numbers of clips only. For any other number our own sampling of the same
    kind (spread over the video, or a dense window) takes over, and ``note`` is told.
    """
    if protocol.sampling:
        return protocol.sampling
    try:
        find_sampling(trained_with, training=False, num_clips=protocol.clips)
    except ActcliError:
        ours = "dense" if "dense" in trained_with or trained_with.startswith("tokshift") else "segments"
        note(f"{trained_with} defines no test with {protocol.clips} clips; using the sampling {ours!r} instead")
        return ours
    return trained_with


def _metrics(
    options: EvalOptions,
    scores: Scores,
    shards: ShardSet,
    split: str,
    model: VideoModel,
    metadata: dict[str, Any],
    loader: Loader,
) -> dict[str, Any]:
    protocol = options.protocol
    views = protocol.clips * protocol.crops
    size = protocol.size or model.input_spec.size
    profile = profile_model(**model.config, size=size)
    settings = loader.settings
    return {
        **summarise(scores),
        "num_clips": len(scores.keys),
        "num_without_flow": loader.num_without_flow,
        "coverage": dict(shards.card.coverage),
        "gflops_per_view": profile.macs / 1e9,
        "num_views": views,
        "gflops": profile.macs * views / 1e9,
        "parameters": profile.parameters,
        "protocol": (
            f"{protocol.clips} clip(s) x {protocol.crops} crop(s) of {size} px from short side "
            f"{settings.scale_size}, {model.num_frames} frames per clip, sampling {settings.sampling.name!r}, "
            f"mean of logits over views"
        ),
        "dataset": shards.card.name,
        "shards": options.shards,
        "split": split,
        "split_id": options.split_id,
        "model": model.config["name"],
        "weights": options.weights.name,
        "trained": metadata.get("source"),
    }
