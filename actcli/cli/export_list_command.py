"""``actcli export-list``: a dataset for other projects."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from actcli.cli._console import Progress, console, plain, print_note
from actcli.cli._options import (
    DATA,
    HERE,
    DatasetOption,
    ShardsOption,
    SplitIdOption,
    WorkersOption,
    WorkspaceOption,
    num_workers,
)
from actcli.cli._workspace import Workspace


def export_list_command(
    project: Annotated[
        Literal["tsm", "mmaction2", "slowfast", "videomae", "vjepa2"], typer.Option("--for", help="Whose lists.")
    ],
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: ShardsOption = None,
    split_id: SplitIdOption = "1",
    media: Annotated[
        Literal["frames", "mp4"] | None,
        typer.Option(
            help="Frame folders or videos.", show_default="frames for tsm, mp4 for the others", rich_help_panel=DATA
        ),
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option(help="Where lists and files go.", show_default="lists/<project>-<dataset>")
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Write a dataset as other projects read it: annotation lists, with frame folders or MP4 files from the shards."""
    from actcli.shards import ShardSet
    from actcli.shards.lists import export_lists

    space = Workspace(workspace)
    shards = ShardSet.open(space.shard_dataset(dataset, shards_dir))
    target = out_dir or space.root / "lists" / f"{project}-{shards.card.name}"
    with Progress("export", "clips") as bar:
        done = export_lists(
            shards, project, target, media=media, split_id=split_id, workers=num_workers(workers), progress=bar.update
        )
    if done.num_unlabelled:
        print_note(f"{done.num_unlabelled} clips have no class and are in no list")
    for path in done.lists:
        console.print(plain(f"{path}"), markup=False)
    console.print(f"{done.num_clips} clips for {project}", markup=False)
