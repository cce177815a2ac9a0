"""``actcli verify``: check shards byte for byte, and mend them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actcli.cli._console import Progress, console, table
from actcli.cli._options import HERE, DatasetOption, WorkspaceOption
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from actcli.shards import Finding


def verify_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: Annotated[
        str | None,
        typer.Option(help="Folder or URL of shards.", show_default="shards/<dataset>", rich_help_panel="Data"),
    ] = None,
    frames_dir: Annotated[
        Path | None,
        typer.Option(
            help="With --repair: the frames to pack hurt clips from.",
            show_default="frames/<dataset>",
            rich_help_panel="Data",
        ),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every frame as well.")] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Make indexes again from the tars, and pack hurt clips again from the frames, to the byte."
        ),
    ] = False,
) -> None:
    """Check card, tars and indexes against their checksums and each other; exit code 1 if anything differs."""
    space = Workspace(workspace)
    folder = space.shard_dataset(dataset, shards_dir)
    if frames_dir and not repair:
        raise ActcliError("--frames-dir is where --repair takes frames from; add --repair, or leave it out.")
    if repair:
        _repair(folder, frames_dir or space.frames / Path(folder).name)
    if deep or not repair:
        _verify(folder, deep)


def _verify(folder: str, deep: bool) -> None:
    from actcli.shards import verify_shards

    with Progress("verify", "MB") as bar:
        findings = verify_shards(folder, deep=deep, progress=bar.update_bytes)
    if findings:
        _print(findings, "file", "problem")
        advice = "mend them with: actcli verify --repair; or write the shards again: actcli shard --overwrite"
        console.print(_again(folder) if "://" in folder else advice, markup=False)
        raise typer.Exit(1)
    told = ", and every frame can be decoded" if deep else ""
    console.print(f"{folder}: every byte is as it was written{told}", markup=False)


def _repair(folder: str, frames_dir: Path) -> None:
    from actcli.shards.repair import repair_shards

    if "://" in folder:
        raise ActcliError(f"--repair works in a folder. To mend a URL, {_again(folder)}")
    with Progress("verify", "MB") as bar:
        result = repair_shards(Path(folder), frames_dir, report=bar.update_bytes)
    if result.mended:
        _print(result.mended, "mended", "what was wrong")
    if result.left:
        _print(result.left, "not mended", "why")
        console.print(
            "copy these from where they are whole with: actcli pull URL; or write all anew: actcli shard --overwrite"
        )
        raise typer.Exit(1)
    console.print(f"{folder}: every byte is as it was written", markup=False)


def _again(url: str) -> str:
    return f"delete the damaged files there, and send whole ones with: actcli push {url}"


def _print(findings: "Iterable[Finding]", *titles: str) -> None:
    problems = table(*titles)
    for finding in findings:
        problems.add_row(finding.file, finding.problem)
    console.print(problems)
