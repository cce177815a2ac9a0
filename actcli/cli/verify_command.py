"""``actcli verify``: check shards byte for byte."""

from typing import Annotated

import typer

from actcli.cli._console import Progress, console, table
from actcli.cli._options import HERE, DatasetOption, WorkspaceOption
from actcli.cli._workspace import Workspace


def verify_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: Annotated[
        str | None,
        typer.Option(help="Folder or URL of shards.", show_default="shards/<dataset>", rich_help_panel="Data"),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame as well.")] = False,
) -> None:
    """Check card, tars and indexes against their checksums and each other; exit code 1 if anything differs."""
    from actcli.shards import verify_shards

    folder = shards_dir or str(Workspace(workspace).shard_dataset(dataset))
    with Progress("verify", "MB") as bar:
        findings = verify_shards(
            folder, deep=deep, progress=lambda done, total: bar.update(done // 10**6, max(1, total // 10**6))
        )
    if not findings:
        told = ", and every frame can be decoded" if deep else ""
        console.print(f"{folder}: every byte is as it was written{told}", markup=False)
        return
    problems = table("file", "problem")
    for finding in findings:
        problems.add_row(finding.file, finding.problem)
    console.print(problems)
    console.print("write the shards again with: actcli shard --overwrite")
    raise typer.Exit(1)
