"""``actcli demo``: the whole pipeline on made data."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._console import console, percent, status, table

DATASET = "sprites"
NUM_CLIPS = 480
TRAINING = (
    "--backbone resnet18 --pretrained none --size 32 --epochs 11 --batch-size 8 --learning-rate 0.01 --dropout 0 "
    "--sampling segments --set schedule.kind=cosine --set schedule.warmup_epochs=3 --set fast_classifier=false "
    "--set augmentation.crop=center --set validate_every=7"
)
RECIPES = {"tsm": "tsm-something-r50-8f", "tsn": "tsn-something-r50-8f"}
EVALUATION = "eval/demo"


def demo_command(
    folder: Annotated[Path, typer.Argument(help="Workspace to make.")] = Path("demo"),
) -> None:
    """Make a small dataset and run everything on it: extract, shard, train TSM and TSN, evaluate. Minutes on a CPU.

    The classes of the made clips show only in the order of frames, so that a model without temporal modelling (TSN)
    can only guess inside a pair, and one with it (TSM) recognises them.
    """
    from actcli.engine.results import read_metrics
    from actcli.errors import ActcliError
    from actcli.ingest import make_synthetic

    raw = folder / "raw" / DATASET
    if folder.exists() and not folder.is_dir():
        raise ActcliError(f"{folder} is a file. Name a new folder: actcli demo FOLDER")
    if folder.exists() and any(folder.iterdir()) and not (raw / "flip.json").exists():
        raise ActcliError(f"{folder} is not empty. Name a new folder: actcli demo FOLDER")
    if not (raw / "flip.json").exists():
        with status(f"making {NUM_CLIPS} clips in {raw}"):
            make_synthetic(raw, num_clips=NUM_CLIPS)
    space = f"--workspace {shlex.quote(str(folder))}"
    _run(f"extract --dataset {DATASET} --short-side 48 {space}")
    _run(f"shard {space}")
    results = {}
    for model, recipe in RECIPES.items():
        run = folder / "runs" / model
        if not (run / "finished").exists():
            where = f"--run-dir {shlex.quote(str(run))} {space}"
            goes_on = (run / "config.yaml").exists()
            _run(f"train --resume {where}" if goes_on else f"train --recipe {recipe} {TRAINING} {where}")
        _run(f"eval --run {model} --clips 2 --crops 3 --out-dir {shlex.quote(str(run / EVALUATION))} {space}")
        results[model] = read_metrics(run / EVALUATION)
    comparison = table("model", "#top-1", "sees the order of frames")
    for model, metrics in results.items():
        comparison.add_row(model.upper(), f"{percent(metrics['top1'], 1)} %", "yes" if model == "tsm" else "no")
    console.print(comparison)
    for model in results:
        console.print(f"report: {folder / 'runs' / model / EVALUATION / 'report.html'}", markup=False)


def _run(command: str) -> None:
    from actcli.cli._app import app

    console.print(f"\n[bold]$ actcli {command}[/]")
    if exit_code := app(shlex.split(command), standalone_mode=False):
        raise typer.Exit(exit_code)
