"""``actcli export``: a model for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from actcli.cli._console import console, print_note, status
from actcli.cli._options import HERE, CheckpointOption, RunOption, WeightsOption, WorkspaceOption, refuse_beside
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from actcli.shards import ShardSet

Form = Literal["onnx", "torch"]
SUFFIXES: dict[Form, str] = {"onnx": ".onnx", "torch": ".pt2"}


def export_command(
    ctx: typer.Context,
    run: RunOption = None,
    checkpoint: CheckpointOption = "best",
    weights: WeightsOption = None,
    to: Annotated[
        Form | None,
        typer.Option(help="onnx, or torch for torch.export.load.", show_default="as --out is named, else onnx"),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=16, help="Side of the frames in pixels.", show_default="that of the training")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The file.", show_default="beside the weights, .onnx or .pt2")
    ] = None,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Write a model as ONNX or for torch.export, and compare its scores with ours, on clips of its dataset if at hand.

    The batch size is free; class names and what the input has to be (frames, size, mean, std) are in the metadata.
    """
    from actcli.engine.export import export_model
    from actcli.engine.runs import find_run, weights_path

    if weights is not None:
        refuse_beside(ctx, "--weights", "run", "checkpoint")
    run_dir = None if weights else find_run(Workspace(workspace).runs, run)
    chosen = weights or weights_path(find_run(Workspace(workspace).runs, run), checkpoint)
    form = _form(to, out)
    target = out or chosen.with_suffix(SUFFIXES[form])
    with status(f"exporting {chosen}"):
        done = export_model(chosen, target, form, size, _clips_of(run_dir))
    shapes = ", ".join(f"[{', '.join(map(str, shape))}]" for shape in done.input_shapes)
    where = f"on {done.num_real_clips} clips of the dataset and on noise" if done.num_real_clips else "on noise"
    console.print(
        f"{done.path}: input {shapes}; {where} its scores differ from ours by {done.difference:.1e} of the largest",
        markup=False,
    )


def _form(to: Form | None, out: Path | None) -> Form:
    """What ``--to`` asks for, or the name of the file; they may not contradict each other."""
    named = next((form for form, suffix in SUFFIXES.items() if out is not None and out.suffix == suffix), None)
    if to is not None and named not in (None, to):
        raise ActcliError(f"{out} is the name of a file for {named}, and --to is {to}. Leave out --to, or rename it.")
    return to or named or "onnx"


def _clips_of(run_dir: Path | None) -> "ShardSet | None":
    """The clips that a run was tested on; None where they are not at hand any more."""
    from actcli.engine.runs import RunConfig

    if run_dir is None:
        return None
    try:
        return RunConfig.read(run_dir).open_shards(tests=True)
    except ActcliError as error:
        print_note(f"scores are compared on noise alone: {error}")
        return None
