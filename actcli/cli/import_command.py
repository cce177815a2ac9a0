"""``actcli import``: checkpoints of the original code to ours."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actcli.cli._console import console, table
from actcli.errors import ActcliError

MAX_ROWS = 30


def import_command(
    checkpoint: Annotated[Path, typer.Argument(help="A .pth, .pth.tar or (stmulnet) .mat file.")],
    source: Annotated[str, typer.Option("--from", help="Original code: tsm, gsm, gsf, masnet, tokshift or stmulnet.")],
    model: Annotated[str | None, typer.Option(help="Our model.", show_default="as --from")] = None,
    num_classes: Annotated[int | None, typer.Option(help="Classes.", show_default="the checkpoint's")] = None,
    num_frames: Annotated[int | None, typer.Option(help="Frames per clip.", show_default="the model's")] = None,
    backbone: Annotated[str | None, typer.Option(help="Backbone.", show_default="the model's")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", help="A model option: --set shift_div=4", metavar="NAME=VALUE")
    ] = None,
    classes_from: Annotated[
        str | None, typer.Option(help="Shards whose class names the checkpoint has, in the same order.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The result.", show_default="<checkpoint>.safetensors")] = None,
    onto: Annotated[
        Path | None,
        typer.Option(help="Imported weights to fill further: the second stream of stmulnet has a .mat of its own."),
    ] = None,
    allow_partial: Annotated[bool, typer.Option("--allow-partial", help="Take what fits.")] = False,
) -> None:
    """Turn a checkpoint of the original code into safetensors that eval and train --init take.

    Nothing in the file is run: it is read as tensors and plain data only.
    """
    from actcli.models import (
        IncompleteImport,
        checkpoint_num_classes,
        create_model,
        import_checkpoint,
        load_weights,
        save_weights,
    )

    if not checkpoint.exists():
        raise ActcliError(f"there is no file {checkpoint}.")
    classes = _classes(classes_from)
    chosen = {"num_frames": num_frames, "backbone": backbone}
    options = {name: value for name, value in chosen.items() if value is not None} | _parse(option or [])
    if onto is not None:
        if model or num_classes or options:
            raise ActcliError("with --onto the model is that of the weights; leave out the options of the model.")
        made, metadata = load_weights(onto)
        classes = classes or metadata.get("classes")
    else:
        count = num_classes or (len(classes) if classes else checkpoint_num_classes(checkpoint, source))
        made = create_model(model or source, num_classes=count, **options)
    try:
        report = import_checkpoint(checkpoint, source, made, allow_partial)
    except IncompleteImport as error:
        _print_rows(error.report)
        raise
    target = out or checkpoint.with_name(checkpoint.name.removesuffix(".tar")).with_suffix(".safetensors")
    save_weights(made, target, {"classes": classes, "source": f"{source} checkpoint {checkpoint.name}"})
    if not report.complete:
        _print_rows(report)
    console.print(f"{report.loaded} tensors taken over. next: actcli eval --weights {target}", markup=False)


def _classes(shards: str | None) -> list[str] | None:
    from actcli.shards import ShardSet

    return list(ShardSet.open(shards).card.classes) if shards else None


def _parse(settings: list[str]) -> dict[str, Any]:
    import yaml

    pairs = [text.partition("=") for text in settings]
    return {name: yaml.safe_load(value) for name, _, value in pairs}


def _print_rows(report: Any) -> None:
    rows = report.rows()
    problems = table("problem", "tensor", "shapes")
    for row in rows[:MAX_ROWS]:
        problems.add_row(*row)
    console.print(problems)
    if len(rows) > MAX_ROWS:
        console.print(f"and {len(rows) - MAX_ROWS} more")
