"""``actcli train``: shards to a run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actcli.cli._console import Progress, console, print_note, table
from actcli.cli._options import (
    HERE,
    DatasetOption,
    DeviceOption,
    LoaderOption,
    ShardsOption,
    SplitIdOption,
    WorkersOption,
    WorkspaceOption,
)
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError

CONTINUE_WITH = {"resume", "run_dir", "workspace", "workers", "loader", "device", "devices", "checkpoint_minutes"}
"""Flags that make sense beside ``--resume --run-dir``; everything else comes from the run."""


def train_command(
    ctx: typer.Context,
    model: Annotated[str | None, typer.Option(help="Model; see: actcli models")] = None,
    dataset: DatasetOption = None,
    recipe: Annotated[
        str | None, typer.Option(help="Recipe or YAML file; see: actcli recipes", show_default="the model's")
    ] = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: ShardsOption = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="runs/<date>-…")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that was interrupted; start one where there is none.")
    ] = False,
    backbone: Annotated[str | None, typer.Option(help="Backbone of the model.")] = None,
    modality: Annotated[str | None, typer.Option(help="rgb or flow, for the TSN family.")] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames per clip.")] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the input in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training split.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per step, over all processes.")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Steps per update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Base learning rate.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout before the classifier.")] = None,
    sampling: Annotated[
        str | None, typer.Option("--sampling", "--protocol", help="How frames are chosen: segments, dense, tsm, …")
    ] = None,
    pretrained: Annotated[
        str | None, typer.Option(help="imagenet, none, or a file of backbone weights.", show_default="the recipe's")
    ] = None,
    init: Annotated[Path | None, typer.Option(help="Start from these weights (safetensors).")] = None,
    new_head: Annotated[bool, typer.Option("--new-head", help="With --init: start a new classifier.")] = False,
    precision: Annotated[str | None, typer.Option(help="32-true, bf16-mixed or 16-mixed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    split_id: SplitIdOption = "1",
    all_splits: Annotated[
        bool, typer.Option("--all-splits", help="Train on every split set and print the mean.")
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other number of the recipe: --set schedule.kind=cosine", metavar="FIELD=VALUE"),
    ] = None,
    workers: WorkersOption = None,
    loader: LoaderOption = "auto",
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(min=1, help="Processes on this machine, one per GPU.")] = 1,
    checkpoint_minutes: Annotated[float, typer.Option(help="Minutes between checkpoints inside an epoch.")] = 10.0,
) -> None:
    """Train a model on shards: shards/* to runs/<date>-<model>-<dataset>-….

    The recipe holds every number of the published training; flags replace single ones, and config.yaml in the run's
    folder says what was really used.
    """
    from actcli.engine.trainer import Hardware

    hardware = Hardware(device, devices, _num_workers(workers), loader, checkpoint_minutes)
    space = Workspace(workspace)
    if resume and run_dir is not None and (run_dir / "config.yaml").exists():
        _refuse_other_flags(ctx)
        _continue(run_dir, hardware)
        return
    overrides = {
        "num_frames": frames,
        "size": size,
        "epochs": epochs,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "sampling": sampling,
        "pretrained": pretrained,
        "precision": precision,
        "seed": seed,
        "model_options": {"backbone": backbone, "modality": modality, "dropout": dropout},
    }
    shards = shards_dir or str(space.shard_dataset(dataset))
    config = _make_config(shards, model, recipe, overrides, setting or [], init, new_head)
    if all_splits:
        _train_all(config, space.runs, run_dir, hardware, resume)
        return
    _train_one(_with_split(config, split_id), space.runs, run_dir, hardware, resume)


def _num_workers(workers: int | None) -> int:
    import os

    return workers if workers is not None else min(8, os.cpu_count() or 1)


def _refuse_other_flags(ctx: typer.Context) -> None:
    given = [
        name
        for name in ctx.params
        if name not in CONTINUE_WITH and str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")
    ]
    if given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ActcliError(
            f"a run is continued with the settings in its config.yaml; leave out {flags}, or start a new run."
        )


def _make_config(
    shards: str,
    model: str | None,
    recipe_name: str | None,
    overrides: dict[str, Any],
    settings: list[str],
    init: Path | None,
    new_head: bool,
) -> Any:
    from actcli.engine.overrides import override_recipe, settle_pretrained
    from actcli.engine.recipes import find_recipe, load_recipe
    from actcli.engine.runs import RunConfig
    from actcli.shards import ShardSet

    card = ShardSet.open(shards).card
    if recipe_name is None and model is None:
        raise ActcliError("say which model to train: actcli train --model tsm. All of them: actcli models")
    recipe = load_recipe(recipe_name) if recipe_name else find_recipe(str(model), card.name)
    if model is not None and recipe.model != model:
        raise ActcliError(f"recipe {recipe.name} is for {recipe.model}, not {model}; leave out --model.")
    recipe = override_recipe(recipe, overrides, settings)
    if init is None:
        recipe = settle_pretrained(recipe, explicit=overrides["pretrained"] is not None, note=print_note)
    return RunConfig(recipe, card.name, shards, init=str(init) if init else None, new_head=new_head)


def _with_split(config: Any, split_id: str) -> Any:
    from dataclasses import replace

    return replace(config, split_id=split_id)


def _train_all(config: Any, runs: Path, run_dir: Path | None, hardware: Any, resume: bool) -> None:
    from actcli.shards import ShardSet

    best = {}
    for split_id in ShardSet.open(config.shards).card.split_sets:
        folder = run_dir / f"split{split_id}" if run_dir else None
        best[split_id] = _train_one(_with_split(config, split_id), runs, folder, hardware, resume)
    summary = table("split set", "#best top-1")
    for split_id, top1 in best.items():
        summary.add_row(split_id, f"{100 * top1:.2f}")
    summary.add_row("mean", f"{100 * sum(best.values()) / len(best):.2f}")
    console.print(summary)


def _train_one(config: Any, runs: Path, run_dir: Path | None, hardware: Any, resume: bool) -> float:
    from datetime import datetime

    from actcli.engine.runs import find_unfinished, list_runs, run_name

    interrupted = find_unfinished(runs, config)
    if run_dir is None and resume and interrupted is not None:
        return _continue(interrupted, hardware)
    if interrupted is not None and run_dir is None:
        print_note(f"{interrupted} was interrupted with these settings; to continue it instead, add --resume")
    target = run_dir or runs / run_name(config.recipe, config.dataset, config.split_id, datetime.now())
    if (target / "config.yaml").exists():
        raise ActcliError(f"{target} is a run already. Continue it with --resume, or choose another --run-dir.")
    if resume and run_dir is None and list_runs(runs):
        print_note("no interrupted run has these settings; starting a new one")
    return _run(config, target, hardware, resume=False)


def _continue(run_dir: Path, hardware: Any) -> float:
    from actcli.engine.runs import RunConfig

    return _run(RunConfig.read(run_dir), run_dir, hardware, resume=True)


def _run(config: Any, run_dir: Path, hardware: Any, *, resume: bool) -> float:
    from actcli.engine.trainer import train

    recipe = config.recipe
    console.print(
        f"training {recipe.model} on {config.shards} with the recipe {recipe.name}: {recipe.epochs} epochs, batches of "
        f"{recipe.batch_size}, in {run_dir}",
        markup=False,
    )
    with _TerminalReporter() as reporter:
        history = train(config, run_dir, hardware, reporter, resume=resume)
    best = max((report.val_top1 for report in history if report.val_top1 is not None), default=float("nan"))
    console.print(f"best top-1 {100 * best:.2f} %, in {run_dir}. next: actcli eval --crops 3 --clips 2", markup=False)
    return best


class _TerminalReporter:
    """Shows a training on the terminal."""

    def __init__(self) -> None:
        self._bars: dict[str, Progress] = {}

    def __enter__(self) -> "_TerminalReporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self, text: str) -> None:
        print_note(text)

    def step(self, report: Any) -> None:
        bar = self._bar(f"epoch {report.epoch + 1}/{report.num_epochs}")
        detail = f"loss {report.loss:.3f}, {report.clips_per_second:.1f} clips/s, {report.waiting:.0%} waiting for data"
        bar.update(report.step, report.num_steps, detail)

    def validating(self, done: int, total: int) -> None:
        self._bar("validate").update(done, total)

    def epoch(self, report: Any) -> None:
        self._close()
        validated = "" if report.val_top1 is None else f", val top-1 {100 * report.val_top1:.2f} %"
        console.print(
            f"epoch {report.epoch + 1}: loss {report.train_loss:.4f}, train top-1 {100 * report.train_top1:.2f} %"
            f"{validated}, learning rate {report.learning_rate:.3g}"
        )

    def _bar(self, title: str) -> Progress:
        if title not in self._bars:
            self._close()
            self._bars[title] = Progress(title, "steps")
        return self._bars[title]

    def _close(self) -> None:
        for bar in self._bars.values():
            bar.__exit__(None, None, None)
        self._bars.clear()
