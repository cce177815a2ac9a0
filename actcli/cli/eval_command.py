"""``actcli eval``: a run to its scores."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actcli.cli._console import Progress, console, print_note, table
from actcli.cli._options import (
    HERE,
    DeviceOption,
    LoaderOption,
    ShardsOption,
    WorkersOption,
    WorkspaceOption,
    check_choice,
)
from actcli.cli._workspace import Workspace
from actcli.cli.train_command import _num_workers
from actcli.errors import ActcliError


def eval_command(
    run: Annotated[str | None, typer.Option(help="Name or folder of a run.", show_default="the newest")] = None,
    crops: Annotated[int | None, typer.Option(help="Crops per clip: 1, 3, 5 or 10.")] = None,
    clips: Annotated[int | None, typer.Option(min=1, help="Clips per video.")] = None,
    workspace: WorkspaceOption = HERE,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of no run, such as imported ones.")] = None,
    checkpoint: Annotated[str, typer.Option(help="best or last weights of the run.")] = "best",
    shards_dir: ShardsOption = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate.", show_default="val, else test")] = None,
    split_id: Annotated[str | None, typer.Option(help="Split set.", show_default="that of the run")] = None,
    all_splits: Annotated[
        bool, typer.Option("--all-splits", help="The newest run of each split set, and their mean.")
    ] = False,
    size: Annotated[int | None, typer.Option(help="Side of the crop in pixels.", show_default="the recipe's")] = None,
    sampling: Annotated[str | None, typer.Option("--sampling", "--protocol", help="How frames are chosen.")] = None,
    out_dir: Annotated[Path | None, typer.Option(help="Where the results go.", show_default="<run>/eval/…")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Videos per step.")] = None,
    views: Annotated[bool, typer.Option("--views", help="Keep the scores of each view.")] = False,
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = "32-true",
    workers: WorkersOption = None,
    loader: LoaderOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Evaluate a run: scores.parquet, metrics.json and report.html in <run>/eval/.

    Without --crops and --clips the test of the run's recipe is used, as published.
    """
    from actcli.engine.trainer import Hardware

    check_choice("--checkpoint", checkpoint, "best", "last")
    hardware = Hardware(device, 1, _num_workers(workers), loader)
    request: dict[str, Any] = {
        "crops": crops,
        "clips": clips,
        "size": size,
        "sampling": sampling,
        "split": split,
        "checkpoint": checkpoint,
        "batch_size": batch_size,
        "views": views,
        "precision": precision,
    }
    space = Workspace(workspace)
    if weights is not None:
        shards = shards_dir or str(space.shard_dataset(None))
        target = out_dir or weights.with_suffix("") / "eval"
        _evaluate(weights, shards, split_id or "1", None, request, target, hardware)
        return
    if all_splits:
        _evaluate_all(space.runs, shards_dir, request, hardware)
        return
    chosen = run_dir or _find_run(space.runs, run)
    _evaluate_run(chosen, shards_dir, split_id, request, out_dir, hardware)


def _find_run(runs: Path, name: str | None) -> Path:
    from actcli.engine.runs import list_runs

    found = list_runs(runs)
    if name is None:
        if not found:
            raise ActcliError(f"there is no run in {runs}. Train one first: actcli train --model tsm")
        console.print(f"evaluating the newest run, {found[-1].name}", markup=False)
        return found[-1]
    for candidate in (Path(name), runs / name):
        if (candidate / "config.yaml").exists():
            return candidate
    known = ", ".join(run.name for run in found[-5:]) or "none"
    raise ActcliError(f"there is no run {name!r} in {runs}; the newest are: {known}. Choose one with --run.")


def _evaluate_run(
    run_dir: Path,
    shards_dir: str | None,
    split_id: str | None,
    request: dict[str, Any],
    out_dir: Path | None,
    hardware: Any,
) -> float:
    from actcli.engine.runs import RunConfig, weights_path

    config = RunConfig.read(run_dir)
    weights = weights_path(run_dir, request["checkpoint"])
    shards, set_id = shards_dir or config.shards, split_id or config.split_id
    if out_dir is None:
        out_dir = run_dir / "eval"
    return _evaluate(weights, shards, set_id, config.recipe, request, out_dir, hardware)


def _evaluate(
    weights: Path, shards: str, split_id: str, recipe: Any, request: dict[str, Any], out_dir: Path, hardware: Any
) -> float:
    from actcli.engine.evaluator import EvalOptions, evaluate

    protocol = _protocol(recipe, request)
    name = f"{request['split'] or 'eval'}-{protocol.clips}x{protocol.crops}-{split_id}-{request['checkpoint']}"
    options = EvalOptions(
        weights=weights,
        shards=shards,
        out_dir=out_dir / name if out_dir.name == "eval" else out_dir,
        protocol=protocol,
        split=request["split"],
        split_id=split_id,
        batch_size=request["batch_size"],
        precision=request["precision"],
        keep_views=request["views"],
    )
    with Progress("evaluate", "batches") as bar:
        result = evaluate(options, hardware, progress=bar.update, note=print_note)
    metrics = result.metrics
    numbers = table("dataset", "split", "#clips", "#top-1", "#top-5", "#mean class", "views")
    numbers.add_row(
        metrics["dataset"],
        metrics["split"],
        str(metrics["num_clips"]),
        *(f"{100 * metrics[name]:.2f}" for name in ("top1", "top5", "mean_class_accuracy")),
        f"{protocol.clips} clips x {protocol.crops} crops",
    )
    console.print(numbers)
    if metrics["num_without_flow"]:
        print_note(f"{metrics['num_without_flow']} clips have no flow and were left out")
    console.print(f"report: {result.out_dir / 'report.html'}", markup=False)
    return float(metrics["top1"])


def _protocol(recipe: Any, request: dict[str, Any]) -> Any:
    """What was asked for, filled up with the recipe's test."""
    from actcli.engine.recipes import Protocol

    test = recipe.test if recipe else Protocol()
    crops = request["crops"] or test.crops
    clips = request["clips"] or test.clips
    published = test.size if crops == test.crops else None
    same_clips = test.sampling if clips == test.clips else None
    return Protocol(
        clips=clips,
        crops=crops,
        size=request["size"] or published or (recipe.size if recipe else None),
        sampling=request["sampling"] or same_clips,
    )


def _evaluate_all(runs: Path, shards_dir: str | None, request: dict[str, Any], hardware: Any) -> None:
    from actcli.engine.runs import RunConfig, list_runs

    newest: dict[str, Path] = {}
    for run_dir in list_runs(runs):
        newest[RunConfig.read(run_dir).split_id] = run_dir
    if len(newest) < 2:
        raise ActcliError(f"{runs} has runs of {len(newest)} split set(s). Train all: actcli train … --all-splits")
    setups = [(config.recipe, config.dataset) for config in map(RunConfig.read, newest.values())]
    if any(setup != setups[0] for setup in setups):
        raise ActcliError("the newest runs of the split sets differ in recipe or dataset; evaluate them one by one.")
    found = {
        split_id: _evaluate_run(run_dir, shards_dir, None, request, None, hardware)
        for split_id, run_dir in sorted(newest.items())
    }
    summary = table("split set", "#top-1")
    for split_id, top1 in found.items():
        summary.add_row(split_id, f"{100 * top1:.2f}")
    summary.add_row("mean", f"{100 * sum(found.values()) / len(found):.2f}")
    console.print(summary)
