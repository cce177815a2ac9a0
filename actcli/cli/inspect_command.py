"""``actcli inspect``: look at an extracted dataset."""

from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._console import console, print_note, status
from actcli.cli._options import HERE, DatasetOption, WorkspaceOption
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError


def inspect_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    frames_dir: Annotated[Path | None, typer.Option(help="Extracted frames.", show_default="frames/<dataset>")] = None,
    out: Annotated[Path | None, typer.Option(help="The page.", show_default="<frames>/inspect.html")] = None,
) -> None:
    """Write a page about a dataset: class balance, lengths, thumbnails, failures, leaks between splits."""
    from actcli.ingest.inspect import inspect_dataset

    space = Workspace(workspace)
    if frames_dir is None:
        names = space.frame_datasets(dataset)
        if len(names) > 1:
            raise ActcliError(f"there are several datasets: {', '.join(names)}. Choose one with --dataset.")
        frames_dir = space.frames / names[0]
    page = out or frames_dir / "inspect.html"
    with status(f"reading {frames_dir}"):
        inspection = inspect_dataset(frames_dir, page)
    for leak in inspection.leaks:
        print_note(str(leak))
    console.print(f"page: {page}", markup=False)
