"""``actcli cam``: where a model looks."""

from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._console import cell, console, print_error, print_note, table
from actcli.cli._options import (
    HERE,
    RUN,
    CheckpointOption,
    DeviceOption,
    RunOption,
    WeightsOption,
    WorkersOption,
    WorkspaceOption,
    num_workers,
    refuse_beside,
)
from actcli.cli._workspace import Workspace


def cam_command(
    ctx: typer.Context,
    videos: Annotated[
        list[str] | None,
        typer.Argument(help="Videos or folders of videos; without any, the worst clips of the newest evaluation."),
    ] = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = "best",
    weights: WeightsOption = None,
    worst: Annotated[
        int, typer.Option(min=1, help="Without videos: how many of the worst clips.", rich_help_panel=RUN)
    ] = 8,
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to look for.", show_default="the model's guess")
    ] = None,
    out_dir: Annotated[Path | None, typer.Option(help="Where the pictures go.", show_default="<weights>-cam/")] = None,
    workspace: WorkspaceOption = HERE,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Show where a model looks, as film strips and short videos of the frames it saw.

    Grad-CAM for convolutional networks, attention roll-out for transformers (vit, tokshift). A file that cannot be
    read makes the exit code 1.
    """
    from actcli.engine.comparison import find_evaluation
    from actcli.engine.explaining import explain_videos, explain_worst
    from actcli.engine.hardware import Hardware
    from actcli.engine.runs import find_run, weights_path

    if weights is not None:
        refuse_beside(ctx, "--weights", "run", "checkpoint")
    if videos:
        refuse_beside(ctx, "a video", "worst")
    runs = Workspace(workspace).runs
    chosen = weights or weights_path(find_run(runs, run), checkpoint)
    target = out_dir or chosen.with_name(f"{chosen.stem}-cam")
    hardware = Hardware(device, 1, num_workers(workers))
    unreadable: list[str] = []
    if videos:
        found, unreadable = explain_videos(videos, chosen, target, hardware, class_name, print_note)
    else:
        evaluated = chosen.with_suffix("") if weights else find_run(runs, run)
        evaluation = find_evaluation(runs, str(evaluated))
        console.print(f"the worst clips of {evaluation}", markup=False)
        found = explain_worst(evaluation, chosen, target, hardware, worst, class_name, print_note)
    for sentence in unreadable:
        print_error(sentence)
    if not found:
        raise typer.Exit(1)
    listing = table("clip", "class", "guess", "#probability", "film strip")
    for one in found:
        listing.add_row(
            cell(one.name),
            cell(one.label or "-"),
            cell(one.guess),
            f"{100 * one.probability:.1f} %",
            cell(one.strip.name),
        )
    console.print(listing)
    console.print(f"film strips and videos: {target}", markup=False)
    if unreadable:
        raise typer.Exit(1)
