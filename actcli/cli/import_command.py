"""``actcli import``: checkpoints of the original code to ours."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from actcli.cli._completion import complete_models
from actcli.cli._console import console, table
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from actcli.models import ImportReport

MAX_ROWS = 30
Source = Literal["tsm", "gsm", "gsf", "masnet", "tokshift", "stmulnet"]


def import_command(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth, .pth.tar or (stmulnet) .mat file.")],
    source: Annotated[Source, typer.Option("--from", help="Original code; its test is that of the result.")],
    model: Annotated[
        str | None,
        typer.Option(help="Our model.", show_default="what the names in the file tell", autocompletion=complete_models),
    ] = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Classes.", show_default="the checkpoint's")] = None,
    frames: Annotated[
        int | None, typer.Option("--frames", "--num-frames", min=1, help="Frames per clip; the file cannot tell.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone.", show_default="the checkpoint's")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--set", help="A model option that the file cannot tell: --set shift_div=8", metavar="NAME=VALUE"),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(help="How frames were chosen in training, such as tsm-dense.", show_default="as --from"),
    ] = None,
    classes_from: Annotated[
        str | None, typer.Option(help="Shards whose class names the checkpoint has, in the same order.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The result.", show_default="beside it, .safetensors")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(help="Imported weights to fill further: the second stream of stmulnet has a .mat of its own."),
    ] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Take what fits.")] = False,
) -> None:
    """Turn a checkpoint of the original code into safetensors that eval and train --init take.

    Nothing in the file is run: it is read as tensors and plain data only.
    """
    from actcli.engine.importing import ImportRequest, import_original
    from actcli.models import IncompleteImport

    chosen = {"num_frames": frames, "backbone": backbone}
    options = {name: value for name, value in chosen.items() if value is not None} | _parse(option or [])
    request = ImportRequest(
        checkpoint, source, model, num_classes, options, sampling, classes_from, onto, allow_partial, out
    )
    try:
        done = import_original(request)
    except IncompleteImport as error:
        _print_rows(error.report)
        raise
    if not done.report.complete:
        _print_rows(done.report)
    console.print(
        f"{done.report.loaded} tensors taken over into a {done.model.config['name']} of {done.model.num_frames} "
        f"frames, tested by default with {done.test.clips} clip(s) x {done.test.crops} crop(s), sampling "
        f"{done.sampling}. next: actcli eval --weights {done.path}",
        markup=False,
    )


def _parse(settings: list[str]) -> dict[str, Any]:
    import yaml

    values = {}
    for text in settings:
        name, equals, value = text.removeprefix("model_options.").partition("=")
        if not equals or not name:
            raise ActcliError(f"--set takes NAME=VALUE, got {text!r}.")
        try:
            values[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ActcliError(f"--set {text}: {value!r} is no YAML value.") from error
    return values


def _print_rows(report: "ImportReport") -> None:
    rows = report.rows()
    problems = table("problem", "tensor", "shapes")
    for row in rows[:MAX_ROWS]:
        problems.add_row(*row)
    console.print(problems)
    if len(rows) > MAX_ROWS:
        console.print(f"and {len(rows) - MAX_ROWS} more")
