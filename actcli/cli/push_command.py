"""``actcli push``: finished shards to a URL."""

from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._console import Progress, console
from actcli.cli._options import HERE, DatasetOption, WorkspaceOption
from actcli.cli._workspace import Workspace


def push_command(
    url: Annotated[str, typer.Argument(help="Where they go, such as s3://bucket/sthv2 or hf://datasets/me/sthv2.")],
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: Annotated[
        Path | None, typer.Option(help="Folder of shards.", show_default="shards/<dataset>", rich_help_panel="Data")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other shards there.", rich_help_panel="Run")
    ] = False,
) -> None:
    """Copy shards to a URL; the card goes last. Stopped or killed, the same command continues."""
    push(Path(Workspace(workspace).shard_dataset(dataset, shards_dir)), url, overwrite)


def push(folder: Path, url: str, overwrite: bool) -> None:
    """Push with a bar, and say what was sent."""
    from actcli.shards.transfer import push_shards

    with Progress("push", "MB") as bar:
        summary = push_shards(
            folder,
            url,
            overwrite=overwrite,
            progress=bar.update_bytes,
        )
    console.print(
        f"{url} holds the {summary.num_files} files of {folder}; {summary.num_sent} were sent now "
        f"({summary.num_bytes / 1e6:,.1f} MB). next: actcli train --shards-dir {url}",
        markup=False,
    )
