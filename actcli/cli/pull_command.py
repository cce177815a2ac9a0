"""``actcli pull``: shards behind a URL to a folder."""

from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._console import Progress, console
from actcli.cli._options import HERE, WorkspaceOption
from actcli.cli._workspace import Workspace


def pull_command(
    url: Annotated[str, typer.Argument(help="Where shards are.")],
    workspace: WorkspaceOption = HERE,
    shards_dir: Annotated[
        Path | None, typer.Option(help="Where they go.", show_default="shards/<dataset>", rich_help_panel="Data")
    ] = None,
) -> None:
    """Copy shards from a URL and compare their checksums. Stopped or killed, the same command continues."""
    from actcli.shards import ShardSet
    from actcli.shards.transfer import pull_shards

    folder = shards_dir or Workspace(workspace).shards / ShardSet.open(url).card.name
    with Progress("pull", "MB") as bar:
        summary = pull_shards(url, folder, progress=bar.update_bytes)
    console.print(
        f"{folder} holds the {summary.num_files} files of {url}; {summary.num_sent} were copied now "
        f"({summary.num_bytes / 1e6:,.1f} MB). next: actcli train --shards-dir {folder}",
        markup=False,
    )
