"""``actcli predict``: what a model says about videos."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from actcli.cli._console import Progress, cell, console, plain, table
from actcli.cli._options import (
    HERE,
    TEST,
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
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from actcli.engine.prediction import Prediction


def predict_command(
    ctx: typer.Context,
    videos: Annotated[list[str], typer.Argument(help="Videos, folders of videos, or - for names from standard input.")],
    run: RunOption = None,
    checkpoint: CheckpointOption = "best",
    weights: WeightsOption = None,
    workspace: WorkspaceOption = HERE,
    top: Annotated[int, typer.Option(min=1, help="Classes to name.", rich_help_panel=TEST)] = 5,
    every: Annotated[
        str | None,
        typer.Option(
            help="Look at windows of long videos, one every so many seconds: --every 1s; neighbours that agree become "
            "one segment.",
            rich_help_panel=TEST,
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="Length of a window.", show_default="that of --every", rich_help_panel=TEST),
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(min=1, help="Crops per clip.", show_default="the published test's", rich_help_panel=TEST),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="Clips per video.", show_default="the published test's", rich_help_panel=TEST),
    ] = None,
    overlay: Annotated[
        Path | None,
        typer.Option(
            help="Write the video (a single one) with labels and a bar of the classes over time: OUT.mp4",
            metavar="OUT.mp4",
            rich_help_panel=TEST,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines, as where the output is no terminal.", rich_help_panel=TEST)
    ] = False,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Classify videos as an evaluation would: a table on a terminal, JSON lines elsewhere.

    A file that cannot be read is a row with the reason, and makes the exit code 1.
    """
    from actcli.engine.hardware import Hardware
    from actcli.engine.overlay import check_overlay, write_overlay
    from actcli.engine.prediction import PredictOptions, merge_windows, predict
    from actcli.engine.protocols import AskedViews
    from actcli.engine.runs import find_run, weights_path

    if weights is not None:
        refuse_beside(ctx, "--weights", "run", "checkpoint")
    paths = _names_from(sys.stdin.buffer) if videos == ["-"] else videos
    chosen = weights or weights_path(find_run(Workspace(workspace).runs, run), checkpoint)
    options = PredictOptions(
        chosen,
        None if every else top,
        AskedViews(clips=clips, crops=crops),
        _seconds("--every", every),
        _seconds("--window", window),
    )
    if overlay is not None and (len(paths) != 1 or Path(paths[0]).is_dir()):
        raise ActcliError("--overlay takes a single video; name one file.")
    if overlay is not None:
        check_overlay(Path(paths[0]), overlay)
    shown = console.is_terminal and not as_json
    with _Bars(shown) as bars:
        found = predict(
            list(paths),
            options,
            Hardware(device, 1, num_workers(workers)),
            progress=bars.update,
            note=_note,
        )
    if options.every_seconds is not None:
        found = merge_windows(found, top)
    _print_table(found) if shown else _print_json(found)
    if overlay is not None:
        write_overlay(Path(paths[0]), found, overlay)
        _note(f"video with labels: {overlay}")
    if any(prediction.problem for prediction in found):
        raise typer.Exit(1)


def _names_from(lines: BinaryIO) -> list[str]:
    """A name a line, of whatever bytes the disk has."""
    return [os.fsdecode(line.rstrip(b"\r\n")) for line in lines if line.strip()]


def _seconds(flag: str, text: str | None) -> float | None:
    """``1s``, ``0.5`` → seconds."""
    if text is None:
        return None
    try:
        return float(text.removesuffix("s"))
    except ValueError:
        raise ActcliError(f"{flag} takes seconds, such as 1s or 0.5, got {text!r}.") from None


def _note(text: str) -> None:
    """To standard error, so that standard output is JSON alone where it is read by a program."""
    print(f"note: {plain(text)}", file=sys.stderr)


class _Bars:
    """A bar for each stage, on a terminal."""

    def __init__(self, shown: bool) -> None:
        self._shown = shown
        self._stage, self._bar = "", Progress("", "")

    def __enter__(self) -> "_Bars":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__(None, None, None)

    def update(self, stage: str, done: int, total: int) -> None:
        if not self._shown:
            return
        if stage != self._stage:
            self._bar.__exit__(None, None, None)
            self._stage, self._bar = stage, Progress(stage, "clips" if stage == "read videos" else "batches")
        self._bar.update(done, total)


def _print_table(found: "list[Prediction]") -> None:
    with_times = any(prediction.start is not None for prediction in found)
    listing = table("video", *(["#from", "#to"] if with_times else []), "class", "#probability")
    for prediction in found:
        times = [_clock(prediction.start), _clock(prediction.end)] if with_times else []
        if prediction.problem:
            listing.add_row(cell(prediction.path), *times, cell(prediction.problem), "")
        for number, guess in enumerate(prediction.guesses):
            first = [cell(prediction.path), *times] if number == 0 else [""] * (1 + len(times))
            listing.add_row(*first, cell(guess.class_name), f"{100 * guess.probability:.1f} %")
    console.print(listing)


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else f"{int(seconds) // 60}:{seconds % 60:04.1f}"


def _print_json(found: "list[Prediction]") -> None:
    for prediction in found:
        line: dict[str, object] = {"video": prediction.path}
        if prediction.start is not None:
            line |= {"start": prediction.start, "end": prediction.end}
        if prediction.problem:
            line["problem"] = prediction.problem
        line["classes"] = [[guess.class_name, round(guess.probability, 6)] for guess in prediction.guesses]
        print(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace").decode())
