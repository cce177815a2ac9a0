"""``actcli shard``: frames to WebDataset tars."""

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from actcli.cli._console import Progress, console, print_note, table
from actcli.cli._options import HERE, DatasetOption, WorkersOption, WorkspaceOption
from actcli.cli._workspace import Workspace
from actcli.cli.push_command import push
from actcli.errors import ActcliError
from actcli.words import counted

if TYPE_CHECKING:
    from actcli.shards import ShardForecast, ShardOptions, ShardSummary

DATA = "Data"
TARS = "Tars"
RUN = "Run"


def shard_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    frames_dir: Annotated[
        Path | None,
        typer.Option(help="Extracted frames.", show_default="frames/<dataset>", rich_help_panel=DATA),
    ] = None,
    shards_dir: Annotated[
        str | None,
        typer.Option(
            help="Where to write. To a URL they are copied from shards/<dataset>, where they stay.",
            show_default="shards/<dataset>",
            rich_help_panel=DATA,
        ),
    ] = None,
    payload: Annotated[
        Literal["mjpeg", "video", "source"] | None,
        typer.Option(
            help="JPEGs or the videos themselves (source), whichever was extracted; or JPEGs re-encoded as H.264 "
            "(video), which is smaller.",
            show_default="what was extracted",
            rich_help_panel=TARS,
        ),
    ] = None,
    short_side: Annotated[
        int,
        typer.Option(
            min=0, help="With --payload video: pixels of the shorter side; 0 keeps the size.", rich_help_panel=TARS
        ),
    ] = 0,
    shard_bytes: Annotated[int, typer.Option(min=1, help="Largest size of a tar.", rich_help_panel=TARS)] = 256_000_000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of clips.", rich_help_panel=TARS)] = 0,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace shards of other frames or settings; files that actcli did not write are never touched.",
            rich_help_panel=RUN,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing; show clips and bytes by split, tars, disk and time, from trying a few clips.",
            rich_help_panel=RUN,
        ),
    ] = False,
    workers: WorkersOption = None,
) -> None:
    """Pack frames into WebDataset tars with indexes: frames/* to shards/*.

    Stopped or killed, the same command continues, and the result is the same to the byte.
    """
    from actcli.shards import ShardOptions

    if short_side and payload != "video":
        raise ActcliError("--short-side resizes video payloads only; add --payload video, or extract at that size.")
    space = Workspace(workspace)
    names = [frames_dir.name] if frames_dir and not dataset else space.frame_datasets(dataset)
    if shards_dir and len(names) > 1:
        raise ActcliError(f"--shards-dir is for one dataset, there are {', '.join(names)}. Choose one with --dataset.")
    url = shards_dir if shards_dir and "://" in shards_dir else None
    for name in names:
        options = ShardOptions(
            frames_dir=frames_dir or space.frames / name,
            shards_dir=Path(shards_dir) if shards_dir and not url else space.shards / name,
            seed=seed,
            shard_bytes=shard_bytes,
            payload=payload,
            short_side=short_side,
            workers=max(1, workers or os.cpu_count() or 1),
            overwrite=overwrite,
        )
        if dry_run:
            _print_forecast(name, options)
        else:
            _shard(name, options)
            if url:
                push(options.shards_dir, url, overwrite)
    if not dry_run and not url:
        console.print("next: actcli train --model tsm")


def _print_forecast(name: str, options: "ShardOptions") -> None:
    from actcli.shards import forecast_shards

    forecast = forecast_shards(options)
    splits = table("dataset", "split", "#clips", "#MB of frames")
    for split in forecast.splits:
        label = split.split if len({other.split_id for other in forecast.splits}) == 1 else split.split + split.split_id
        splits.add_row(name, label, str(split.num_clips), f"{split.num_bytes / 1e6:,.1f}")
    console.print(splits)
    most = "at most " if options.payload == "video" else ""
    console.print(
        f"{options.shards_dir}: {most}{counted(forecast.num_tars, 'tar')}, about {forecast.num_bytes / 1e6:,.1f} MB; "
        f"the disk has {forecast.free_bytes / 1e6:,.1f} MB free; "
        f"about {timedelta(seconds=max(1, round(forecast.seconds)))} h",
        markup=False,
    )
    _note_lack_of_room(forecast)
    console.print("nothing was written (--dry-run)")


def _note_lack_of_room(forecast: "ShardForecast") -> None:
    if forecast.num_bytes > forecast.free_bytes:
        print_note("that is more than the disk has; choose another with --shards-dir")


def _shard(name: str, options: "ShardOptions") -> None:
    from actcli.shards import write_shards

    console.print(f"packing {options.frames_dir} into {options.shards_dir}", markup=False)
    bars: dict[str, Progress] = {}
    try:
        summary = write_shards(
            options,
            progress=lambda p: bars.setdefault(
                p.stage, Progress(f"shard ({p.stage})", "files" if p.stage == "index" else "clips")
            ).update(p.done, p.total),
        )
    finally:
        for bar in bars.values():
            bar.__exit__(None, None, None)
    _print_summary(name, summary)


def _print_summary(name: str, summary: "ShardSummary") -> None:
    card = summary.card
    counts = table("dataset", "#listed", "#ok", "#failed", "#missing", "splits", "#tars", "#MB")
    splits = ", ".join(
        f"{split}{'' if len(card.split_sets) == 1 else split_id} {count}"
        for split_id, parts in card.split_sets.items()
        for split, count in parts.items()
    )
    numbers = [str(card.coverage[status]) for status in ("listed", "ok", "failed", "missing")]
    megabytes = sum(shard.bytes for shard in card.shards) / 1e6
    counts.add_row(name, *numbers, splits, str(len(card.shards)), f"{megabytes:.1f}")
    console.print(counts)
    if summary.was_whole:
        console.print("the shards are there already and every checksum is right; nothing was written")
        return
    kept = len(card.shards) - summary.num_written
    if summary.num_added:
        console.print(f"{counted(summary.num_added, 'clip')} added, in tars of their own; no other tar was touched")
    console.print(f"tars: {summary.num_written} written, {kept} of an earlier run kept")
