"""``actcli shard``: frames to WebDataset tars."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actcli.cli._console import Progress, console, table
from actcli.cli._options import HERE, DatasetOption, WorkersOption, WorkspaceOption, check_choice
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError


def shard_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    frames_dir: Annotated[Path | None, typer.Option(help="Extracted frames.", show_default="frames/<dataset>")] = None,
    shards_dir: Annotated[Path | None, typer.Option(help="Where to write.", show_default="shards/<dataset>")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of clips.")] = 0,
    shard_bytes: Annotated[int, typer.Option(min=1, help="Largest size of a tar.")] = 256_000_000,
    payload: Annotated[str, typer.Option(help="mjpeg, or video: re-encoded as H.264, smaller.")] = "mjpeg",
    short_side: Annotated[int, typer.Option(min=0, help="With --payload video: pixels of the shorter side.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace shards of other frames or settings.")] = False,
    workers: WorkersOption = None,
) -> None:
    """Pack frames into WebDataset tars with indexes: frames/* to shards/*.

    Stopped or killed, the same command continues, and the result is the same to the byte.
    """
    from actcli.shards import ShardOptions

    check_choice("--payload", payload, "mjpeg", "video")
    if short_side and payload != "video":
        raise ActcliError("--short-side resizes video payloads only; add --payload video, or extract at that size.")
    space = Workspace(workspace)
    names = [frames_dir.name] if frames_dir and not dataset else space.frame_datasets(dataset)
    if shards_dir and len(names) > 1:
        raise ActcliError(f"--shards-dir is for one dataset, there are {', '.join(names)}. Choose one with --dataset.")
    for name in names:
        options = ShardOptions(
            frames_dir=frames_dir or space.frames / name,
            shards_dir=shards_dir or space.shards / name,
            seed=seed,
            shard_bytes=shard_bytes,
            payload=payload,  # type: ignore[arg-type]
            short_side=short_side,
            workers=max(1, workers or 2),
            overwrite=overwrite,
        )
        _shard(name, options)
    console.print("next: actcli train --model tsm")


def _shard(name: str, options: Any) -> None:
    from actcli.shards import write_shards

    console.print(f"packing {options.frames_dir} into {options.shards_dir}", markup=False)
    bars: dict[str, Progress] = {}
    try:
        summary = write_shards(
            options,
            progress=lambda p: bars.setdefault(p.stage, Progress(f"shard ({p.stage})", "clips")).update(
                p.done, p.total
            ),
        )
    finally:
        for bar in bars.values():
            bar.__exit__(None, None, None)
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
    else:
        kept = len(card.shards) - summary.num_written
        console.print(f"{summary.num_written} tars were written, {kept} of an earlier run were kept")
