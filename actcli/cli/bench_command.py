"""``actcli bench``: where is the bottleneck on this machine."""

from typing import Annotated

import typer

from actcli.cli._console import console, print_note, status, table
from actcli.cli._options import HERE, DatasetOption, DeviceOption, ShardsOption, WorkersOption, WorkspaceOption
from actcli.cli._workspace import Workspace

BATCH = "Batch"

group = typer.Typer(no_args_is_help=True, help="Measure this machine.")


@group.callback()
def bench() -> None:
    """Measure where the bottleneck is on this machine."""


@group.command("loader")
def loader_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: ShardsOption = None,
    frames: Annotated[int, typer.Option(min=1, help="Frames per clip.", rich_help_panel=BATCH)] = 8,
    size: Annotated[int, typer.Option(min=8, help="Side of the input in pixels.", rich_help_panel=BATCH)] = 224,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips per batch.", rich_help_panel=BATCH)] = 8,
    workers: WorkersOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Measure the loaders on your shards and recommend one."""
    from actcli.cli._options import num_workers
    from actcli.engine.hardware import Hardware, launch
    from actcli.loaders.bench import bench_loader
    from actcli.shards import ShardSet

    shards = shards_dir or str(Workspace(workspace).shard_dataset(dataset))
    modalities = ShardSet.open(shards).card.modalities
    place = launch(Hardware(device), "32-true").device
    with status(f"measuring loaders on {shards}"):
        report = bench_loader(
            shards,
            workers=(num_workers(workers),),
            device=place if place.type == "cuda" else None,
            modality="rgb" if "rgb" in modalities else "flow",
            num_frames=frames,
            size=size,
            batch_size=batch_size,
        )
    speeds = table("loader", "#workers", "#clips/s", "#MB/s read", "#first batch, s")
    for speed in report.speeds:
        numbers = (speed.clips_per_second, speed.megabytes_per_second, speed.first_batch_seconds)
        speeds.add_row(speed.backend, str(speed.workers), *(f"{number:.1f}" for number in numbers))
    console.print(speeds)
    for backend, reason in report.skipped.items():
        print_note(f"{backend} was not measured: {reason}")
    console.print(report.recommendation(), markup=False)
