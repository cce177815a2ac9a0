"""``actcli eval``: a run to its scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actcli.cli._console import Progress, console, percent, print_note, print_split_sets, table
from actcli.cli._options import (
    DATA,
    HARDWARE,
    HERE,
    RUN,
    TEST,
    CacheBytesOption,
    CacheDirOption,
    CheckpointOption,
    ClassesOption,
    DeviceOption,
    ExcludeOption,
    FractionOption,
    LoaderOption,
    MaxClipsOption,
    Precision,
    RunOption,
    ShardsOptions,
    WeightsOption,
    WorkersOption,
    WorkspaceOption,
    make_subset,
    num_workers,
    refuse_beside,
    typed_command,
)
from actcli.cli._workspace import Workspace
from actcli.defaults import CACHE_BYTES

if TYPE_CHECKING:
    from actcli.engine.evaluator import EvalOptions
    from actcli.engine.hardware import Hardware

PUBLISHED = "the published test's"


def eval_command(
    ctx: typer.Context,
    run: RunOption = None,
    checkpoint: CheckpointOption = "best",
    weights: WeightsOption = None,
    all_splits: Annotated[
        bool,
        typer.Option("--all-splits", help="The newest run of each split set, and their mean.", rich_help_panel=RUN),
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run, the same as --run.", rich_help_panel=RUN)
    ] = None,
    workspace: WorkspaceOption = HERE,
    crops: Annotated[
        int | None,
        typer.Option(min=1, help="Crops per clip: 1, 3, 5 or 10.", show_default=PUBLISHED, rich_help_panel=TEST),
    ] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="Clips per video.", show_default=PUBLISHED, rich_help_panel=TEST)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=16, help="Side of the crop in pixels.", show_default=PUBLISHED, rich_help_panel=TEST),
    ] = None,
    scale_size: Annotated[
        int | None,
        typer.Option(
            min=16,
            help="Short side that frames are resized to before the crop (TSM: 256 for crops of 224 and of 256).",
            show_default=PUBLISHED,
            rich_help_panel=TEST,
        ),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option("--sampling", help="How frames are chosen.", show_default=PUBLISHED, rich_help_panel=TEST),
    ] = None,
    views: Annotated[bool, typer.Option("--views", help="Keep the scores of each view.", rich_help_panel=TEST)] = False,
    shards_dir: ShardsOptions = None,
    classes: ClassesOption = None,
    fraction: FractionOption = 1.0,
    max_clips_per_class: MaxClipsOption = None,
    exclude_keys: ExcludeOption = None,
    split: Annotated[
        str | None, typer.Option(help="Split to evaluate.", show_default="val, else test", rich_help_panel=DATA)
    ] = None,
    split_id: Annotated[
        str | None, typer.Option(help="Split set.", show_default="that of the run", rich_help_panel=DATA)
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="Where the results go.", show_default="<run>/eval/…", rich_help_panel=DATA)
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Videos per step.", show_default="about 16 views", rich_help_panel=HARDWARE),
    ] = None,
    precision: Annotated[Precision, typer.Option(help="Arithmetic.", rich_help_panel=HARDWARE)] = "32-true",
    workers: WorkersOption = None,
    loader: LoaderOption = "auto",
    cache_dir: CacheDirOption = None,
    cache_bytes: CacheBytesOption = CACHE_BYTES,
    device: DeviceOption = "auto",
) -> None:
    """Evaluate a run: scores.parquet, metrics.json and report.html in <run>/eval/.

    Without --crops and --clips the test of the run's recipe is used, as published.
    """
    from actcli.engine.evaluator import AskedTest, EvalOptions, RunChoice, newest_per_split_set, options_for_run
    from actcli.engine.hardware import Hardware
    from actcli.engine.protocols import AskedViews
    from actcli.engine.runs import find_run

    _check_choice(ctx, weights, all_splits, run)
    cached = str(cache_dir) if cache_dir else None
    hardware = Hardware(device, 1, num_workers(workers), loader, cache_dir=cached, cache_bytes=cache_bytes)
    subset = make_subset(classes, fraction, max_clips_per_class, exclude_keys)
    space = Workspace(workspace)
    asked: AskedTest = {
        "out_dir": out_dir,
        "views": AskedViews(clips, crops, size, scale_size, sampling),
        "split": split,
        "batch_size": batch_size,
        "keep_views": views,
        "precision": precision,
        "command": typed_command(ctx),
    }
    if weights is not None:
        first, *others = shards_dir or [space.shard_dataset(None)]
        results = weights.with_suffix("") / "eval"
        options = EvalOptions(
            weights, first, results, joined=tuple(others), subset=subset, split_id=split_id or "1", **asked
        )
        _evaluate(options, hardware)
        return
    if all_splits:
        found = {}
        for folder in newest_per_split_set(space.runs):
            options = options_for_run(RunChoice(folder, checkpoint, tuple(shards_dir or ()), subset), **asked)
            found[options.split_id] = _evaluate(options, hardware)
        print_split_sets(found, "top-1")
        return
    chosen = find_run(space.runs, str(run_dir) if run_dir else run)
    if run is None and run_dir is None:
        console.print(f"evaluating the newest run, {chosen.name}", markup=False)
    choice = RunChoice(chosen, checkpoint, tuple(shards_dir or ()), subset, split_id)
    _evaluate(options_for_run(choice, **asked), hardware)


def _check_choice(ctx: typer.Context, weights: Path | None, all_splits: bool, run: str | None) -> None:
    """Refuse flags that would not be used."""
    if weights is not None:
        refuse_beside(ctx, "--weights", "run", "run_dir", "checkpoint", "all_splits")
    if all_splits:
        refuse_beside(ctx, "--all-splits", "run", "run_dir", "split_id", "out_dir")
    if run is not None:
        refuse_beside(ctx, "--run", "run_dir")


def _evaluate(options: "EvalOptions", hardware: "Hardware") -> float | None:
    from actcli.engine.evaluator import evaluate

    with Progress("evaluate", "batches") as bar:
        result = evaluate(options, hardware, progress=bar.update, note=print_note)
    metrics = result.metrics
    numbers = table("dataset", "split", "#clips", "#top-1", "#top-5", "#mean class")
    numbers.add_row(
        metrics["dataset"],
        metrics["split"],
        str(metrics["num_clips"]),
        *map(percent, (metrics["top1"], metrics["top5"], metrics["mean_class_accuracy"])),
    )
    console.print(numbers)
    console.print(f"test: {metrics['protocol']}", markup=False)
    if metrics["num_without_flow"]:
        print_note(f"{metrics['num_without_flow']} clips have no flow and were left out")
    if metrics["left_out"]:
        print_note(f"left out: {metrics['left_out']}")
    console.print(f"report: {result.out_dir / 'report.html'}", markup=False)
    return metrics["top1"]
