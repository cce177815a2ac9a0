"""Evaluate a run: scores of every clip, metrics, and a page to look at."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from actcli.engine.hardware import Hardware, launch
from actcli.engine.metrics import Scores, details, summarise
from actcli.engine.protocols import AskedViews, TestViews, choose_views
from actcli.engine.recipes import Precision, Protocol, read_fields
from actcli.engine.report import write_report
from actcli.engine.results import (
    METRICS_NAME,
    SCORES_NAME,
    Metrics,
    RunFacts,
    plain_numbers,
    write_metrics,
    write_scores,
)
from actcli.engine.runs import RunConfig, list_runs, read_state, weights_path
from actcli.engine.scoring import score_split
from actcli.engine.splits import VIEWS_PER_STEP, open_test
from actcli.errors import ActcliError
from actcli.files import check_writable
from actcli.models import VideoModel, WeightFacts, load_weights, profile_config
from actcli.shards import WHOLE, Selection, ShardSet, Subset, select_shards

REPORT_NAME = "report.html"

Note = Callable[[str], None]


@dataclass(frozen=True)
class EvalOptions:
    """What to evaluate on what, and how clips are looked at."""

    weights: Path
    """Safetensors file of actcli."""
    shards: str
    """Folder or URL of the shards."""
    results_dir: Path
    """The evaluation gets a folder of its own in here, named after everything that tells it from others …"""
    out_dir: Path | None = None
    """… unless this names the folder itself."""
    views: AskedViews = field(default_factory=AskedViews)
    """Clips, crops, size, scale and sampling; the published test unless given."""
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
    joined: tuple[str, ...] = ()
    """Further folders of shards, whose classes are joined by name."""
    subset: Subset = WHOLE
    """Which clips of the split to score."""
    run_dir: Path | None = None
    """The run that the weights are from, for what the results say about it."""
    command: str = ""
    """What was typed, for the page that says how it was made."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found and where it is."""

    metrics: Metrics
    """As in ``metrics.json``."""
    out_dir: Path
    """Folder of the results."""
    views: TestViews
    """The test that was made."""


@dataclass(frozen=True)
class RunChoice:
    """Which weights of which run, on which shards."""

    run_dir: Path
    """Folder of the run."""
    checkpoint: str = "best"
    """``best`` or ``last`` weights."""
    shards: tuple[str, ...] = ()
    """Shards; those of the training unless given."""
    subset: Subset = WHOLE
    """Which clips; those that the validations of the training took, unless it or ``shards`` says otherwise."""
    split_id: str | None = None
    """Split set; that of the training unless given."""


class AskedTest(TypedDict, total=False):
    """Fields of ``EvalOptions`` that say how a test is made, whatever it is of."""

    out_dir: Path | None
    views: AskedViews
    split: str | None
    batch_size: int | None
    precision: Precision
    keep_views: bool
    command: str


def options_for_run(choice: RunChoice, **asked: Unpack[AskedTest]) -> EvalOptions:
    """The evaluation of a run; ``asked`` are further fields of :class:`EvalOptions`.

    Raises:
        ActcliError: The run has no weights yet, or the checkpoint is neither ``best`` nor ``last``.
    """
    if choice.checkpoint not in ("best", "last"):
        raise ActcliError(f"checkpoint is {choice.checkpoint!r}; allowed are: best, last.")
    config = RunConfig.read(choice.run_dir)
    first, *others = choice.shards or (config.shards, *config.joined)
    of_run = choice.subset == WHOLE and not choice.shards
    return EvalOptions(
        weights=weights_path(choice.run_dir, choice.checkpoint),
        shards=first,
        joined=tuple(others),
        subset=config.subset.of_tests() if of_run else choice.subset,
        results_dir=choice.run_dir / "eval",
        split_id=choice.split_id or config.split_id,
        run_dir=choice.run_dir,
        **asked,
    )


def newest_per_split_set(runs: Path) -> list[Path]:
    """The newest run of each split set, which have to be of one training.

    Raises:
        ActcliError: There are fewer than two, or they differ in recipe or dataset.
    """
    newest: dict[str, Path] = {}
    for run_dir in list_runs(runs):
        newest[RunConfig.read(run_dir).split_id] = run_dir
    if len(newest) < 2:
        raise ActcliError(f"{runs} has runs of {len(newest)} split set(s). Train all: actcli train … --all-splits")
    setups = [replace(RunConfig.read(run).settings(), split_id="") for run in newest.values()]
    if any(setup != setups[0] for setup in setups):
        raise ActcliError(
            "the newest runs of the split sets differ in recipe, dataset or starting weights; evaluate them one by one."
        )
    return [newest[split_id] for split_id in sorted(newest)]


def evaluate(
    options: EvalOptions,
    hardware: Hardware,
    *,
    progress: Callable[[int, int], None] | None = None,
    note: Note = lambda _: None,
) -> Evaluation:
    """Score a split and write the results.

    Args:
        options: What and how.
        hardware: Where.
        progress: Called with (batches done, batches), on the first process.
        note: Told what the user should know.

    Raises:
        ActcliError: Classes of weights and dataset differ, the views do not exist, or nothing can be written.
    """
    fabric = launch(hardware, options.precision)
    model, facts = load_weights(options.weights)
    shards = _open_shards(options, facts, note)
    split = options.split or shards.card.evaluation_split(options.split_id)
    _check_classes(options, facts, model.num_classes, shards)
    views = published_views(options.views, model, facts, note)
    out_dir = options.out_dir or options.results_dir / _folder_name(options, split, views, shards)
    loader = open_test(
        shards,
        split,
        options.split_id,
        views,
        model.input_spec,
        hardware,
        fabric,
        num_frames=model.num_frames,
        batch_size=options.batch_size or max(1, VIEWS_PER_STEP // views.num_views),
    )
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    told = progress if fabric.is_global_zero else None
    with loader:
        check_writable(out_dir)  # only now, so that an evaluation that does not fit together leaves no folder
        scores = score_split(model, loader, model.input_spec, fabric, keep_views=options.keep_views, progress=told)
    metrics = plain_numbers(_metrics(options, scores, shards, split, model, facts, views, loader.num_without_flow))
    if fabric.is_global_zero:
        _say_state(metrics, note)
        write_evaluation(out_dir, scores, metrics, shards, split, options.split_id)
    return Evaluation(metrics, out_dir, views)


def _open_shards(options: EvalOptions, facts: WeightFacts, note: Note) -> ShardSet:
    """The clips to score, their labels counted as the model counts them where it knows more classes."""
    roots, own = (options.shards, *options.joined), facts.get("classes")
    shards = select_shards(roots, options.subset)
    if own is None or not set(shards.card.classes) < set(own):
        return shards
    note(f"the clips are of {len(shards.card.classes)} of the {len(own)} classes that the model tells apart")
    return select_shards(roots, options.subset, labelled_as=own)


@dataclass(frozen=True)
class _Selected:
    """``SelectionFacts``, checked."""

    joined: tuple[str, ...] = ()
    subset: Subset = WHOLE
    labelled_as: tuple[str, ...] = ()


def scored_shards(metrics: Metrics, only_keys: Sequence[str] = ()) -> ShardSet:
    """The shards of an evaluation, as its ``metrics.json`` tells: the same clips with the same labels.

    With ``only_keys``, these of its clips alone.

    Raises:
        ActcliError: They are not there any more, or hold other clips.
    """
    chosen = read_fields(_Selected, metrics.get("selection") or {}, "the selection in metrics.json")
    subset = replace(chosen.subset.of_tests(), only_keys=tuple(only_keys)) if only_keys else chosen.subset
    return select_shards((metrics["shards"], *chosen.joined), subset, chosen.labelled_as)


def published_views(asked: AskedViews, model: VideoModel, facts: WeightFacts, note: Note = lambda _: None) -> TestViews:
    """``asked``, filled up with the test that the weights say is theirs."""
    published = read_fields(Protocol, facts.get("test") or {}, "the test in the metadata of the weights")
    return choose_views(
        asked,
        published,
        training_size=facts.get("size") or model.input_spec.size,
        trained_with=facts.get("sampling") or "segments",
        note=note,
    )


def write_evaluation(
    out_dir: Path, scores: Scores, metrics: Metrics, shards: ShardSet, split: str, split_id: str
) -> None:
    """Write ``scores.parquet``, ``metrics.json`` and ``report.html``.

    Raises:
        ActcliError: The folder cannot be written to.
    """
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        names = shards.clip_names(split, split_id)
        clips = dict(zip(shards.index(split, split_id).keys.tolist(), names, strict=True))
        write_scores(out_dir / SCORES_NAME, scores, shards.card.classes, clips)
        write_metrics(out_dir / METRICS_NAME, metrics)
        write_report(out_dir / REPORT_NAME, scores, metrics, shards, split, split_id)
    except OSError as error:
        raise ActcliError(f"the results cannot be written to {out_dir} ({error.strerror or error}).") from error


def _folder_name(options: EvalOptions, split: str, views: TestViews, shards: ShardSet) -> str:
    """A name that no other evaluation of these weights has: ``val-2x3-256of256-tsm-1-best``."""
    parts = [split, views.name(), options.split_id]
    if options.run_dir is not None:
        parts.append(options.weights.stem)
    if options.run_dir is None or not _is_as_validated(options):
        parts.append(f"on-{shards.card.name}-{shards.card.source_digest[:8]}")
    if options.precision != "32-true":
        parts.append(options.precision)
    return "-".join(parts)


def _is_as_validated(options: EvalOptions) -> bool:
    """Whether the clips are those of the run's own validations."""
    assert options.run_dir is not None
    config = RunConfig.read(options.run_dir)
    own = (config.shards, config.joined, config.subset.of_tests())
    return (options.shards, options.joined, options.subset) == own


def _say_state(metrics: Metrics, note: Note) -> None:
    run = metrics["run"]
    if run and not run["finished"]:
        note(f"this run was {run['state']}; continue it with: actcli train --resume --run-dir {run['folder']}")
    for change in run["changes"] if run else ():
        note(f"this run was continued with other settings: {change}")


def _check_classes(options: EvalOptions, facts: WeightFacts, num_classes: int, shards: ShardSet) -> None:
    own, found = facts.get("classes"), list(shards.card.classes)
    if own is not None and list(own) != found:
        same = "the same classes in another order" if sorted(own) == sorted(found) else f"{len(found)} other classes"
        raise ActcliError(
            f"{options.weights} was trained on {len(own)} classes, dataset {shards.card.name} has {same}. "
            f"Evaluate on a dataset with the same class list, or fine-tune: actcli train --init {options.weights} "
            f"--new-head"
        )
    if own is None and num_classes != len(found):
        raise ActcliError(f"{options.weights} has {num_classes} classes, dataset {shards.card.name} has {len(found)}.")


def _metrics(
    options: EvalOptions,
    scores: Scores,
    shards: ShardSet,
    split: str,
    model: VideoModel,
    facts: WeightFacts,
    views: TestViews,
    num_without_flow: int,
) -> Metrics:
    profile = profile_config(model.config, views.size)
    return {
        **summarise(scores),
        **details(scores, shards.card.classes),
        "num_clips": len(scores.keys),
        "num_without_flow": num_without_flow,
        "coverage": asdict(shards.card.covered(split, options.split_id)),
        "gflops_per_view": profile.macs / 1e9,
        "num_views": views.num_views,
        "gflops": profile.macs * views.num_views / 1e9,
        "parameters": profile.parameters,
        "protocol": views.in_words(model.num_frames),
        "dataset": shards.card.name,
        "shards": options.shards,
        "selection": {
            "joined": options.joined,
            "subset": asdict(options.subset),
            "labelled_as": shards.card.classes if isinstance(shards, Selection) else (),
        },
        "left_out": shards.left_out(split, options.split_id),
        "split": split,
        "split_id": options.split_id,
        "model": str(model.config["name"]),
        "weights": options.weights.name,
        "command": options.command,
        "trained": facts.get("source"),
        "run": None if options.run_dir is None else _run_facts(options.run_dir),
    }


def _run_facts(run_dir: Path) -> RunFacts:
    state = read_state(run_dir)
    return {
        "folder": str(run_dir),
        "state": state.in_words(),
        "finished": state.finished,
        "epochs_done": len(state.epochs),
        "epochs": state.config.recipe.epochs,
        "changes": list(state.config.changes),
    }
