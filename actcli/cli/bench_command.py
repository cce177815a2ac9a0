"""``actcli bench``: where is the bottleneck on this machine."""

from typing import Annotated

import typer

from actcli.cli._completion import complete_recipes
from actcli.cli._console import console, print_note, status, table
from actcli.cli._help import ActcliCommand
from actcli.cli._options import (
    HARDWARE,
    HERE,
    MODEL,
    BackboneOption,
    DatasetOption,
    DeviceOption,
    LoaderOption,
    ModelOption,
    Precision,
    ShardsOption,
    WorkersOption,
    WorkspaceOption,
)
from actcli.cli._workspace import Workspace

BATCH = "Batch"

group = typer.Typer(no_args_is_help=True, help="Measure this machine.")


@group.callback()
def bench() -> None:
    """Measure where the bottleneck is on this machine."""


@group.command("loader", cls=ActcliCommand)
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

    shards = Workspace(workspace).shard_dataset(dataset, shards_dir)
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


@group.command("train", cls=ActcliCommand)
def train_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    shards_dir: ShardsOption = None,
    model: ModelOption = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe or YAML file.", autocompletion=complete_recipes, rich_help_panel=MODEL),
    ] = None,
    backbone: BackboneOption = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Frames per clip.", rich_help_panel=BATCH)] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of the input in pixels.", rich_help_panel=BATCH)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips per step.", rich_help_panel=BATCH)] = None,
    precision: Annotated[Precision | None, typer.Option(help="Arithmetic.", rich_help_panel=HARDWARE)] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other number of the recipe.", metavar="FIELD=VALUE", rich_help_panel=MODEL),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.", rich_help_panel=BATCH)] = 20,
    cached_batches: Annotated[
        int, typer.Option(min=1, help="Batches kept on the device for the ceiling.", rich_help_panel=BATCH)
    ] = 4,
    workers: WorkersOption = None,
    loader: LoaderOption = "auto",
    device: DeviceOption = "auto",
) -> None:
    """Measure the training of a recipe on your shards: where the time goes, and what the data costs."""
    from actcli.cli._options import num_workers
    from actcli.cli._training import print_times
    from actcli.engine.bench import bench_training
    from actcli.engine.hardware import Hardware
    from actcli.engine.training import TrainRequest, make_config

    shards = Workspace(workspace).shard_dataset(dataset, shards_dir)
    sizes = {"num_frames": frames, "size": size, "batch_size": batch_size}
    changes = {**sizes, "precision": precision, "model_options": {"backbone": backbone}, "pretrained": "none"}
    request = TrainRequest(shards, model, recipe, changes, setting or [])
    hardware = Hardware(device, 1, num_workers(workers), loader)
    with status(f"timing {steps} steps on {shards}"):
        speed = bench_training(
            make_config(request), hardware, print_note, num_steps=steps, cached_batches=cached_batches
        )
    print_times(speed.times)
    speeds = table("training", "#clips/s")
    speeds.add_row("from the shards", f"{speed.clips_per_second:.2f}")
    speeds.add_row(f"ceiling: {cached_batches} batches kept on the device", f"{speed.ceiling:.2f}")
    console.print(speeds)
    console.print(speed.in_words(), markup=False)
