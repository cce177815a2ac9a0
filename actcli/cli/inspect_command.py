"""``actcli inspect``: look at an extracted dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._console import Progress, console, plain, print_note
from actcli.cli._options import HERE, DatasetOption, WorkspaceOption
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError
from actcli.words import counted

MAX_SHOWN = 20
MAX_NAMES_SHOWN = 6


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
    console.print(plain(f"reading {frames_dir}"), markup=False)
    with Progress("inspect", "clips") as bar:
        inspection = inspect_dataset(frames_dir, page, progress=bar.update)
    for leak in inspection.leaks[:MAX_SHOWN]:
        what = leak.what if leak.what.startswith("nearly") else f"the {leak.what}"
        print_note(f"{' and '.join(leak.splits)} share {what}: {_names(leak.clips)}")
    for conflict in inspection.conflicts[:MAX_SHOWN]:
        print_note(f"the same frames have different classes: {_names(conflict.clips)} ({_names(conflict.classes)})")
    found = f"{len(inspection.leaks)} leaks between splits, {len(inspection.conflicts)} labels in conflict"
    console.print(
        f"{counted(inspection.num_clips, 'clip')}, {inspection.num_failed} failed or missing; {found}", markup=False
    )
    console.print(plain(f"page: {page}"), markup=False)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMES_SHOWN]) + (", …" if len(names) > MAX_NAMES_SHOWN else "")
