"""``actcli train``: shards to a run."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from actcli.cli._completion import complete_recipes
from actcli.cli._console import print_note, print_split_sets
from actcli.cli._options import (
    DATA,
    HARDWARE,
    HERE,
    MODEL,
    RUN,
    SCHEDULE,
    BackboneOption,
    CacheBytesOption,
    CacheDirOption,
    ClassesOption,
    DatasetOption,
    DeviceOption,
    ExcludeOption,
    FractionOption,
    LoaderOption,
    MaxClipsOption,
    ModelOption,
    Precision,
    ShardsOptions,
    SplitIdOption,
    WorkersOption,
    WorkspaceOption,
    make_subset,
    num_workers,
)
from actcli.cli._training import train_or_tell
from actcli.cli._workspace import Workspace
from actcli.defaults import CACHE_BYTES
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from actcli.engine.hardware import Hardware
    from actcli.engine.training import Run

CONTINUE_WITH = {
    "resume", "run_dir", "workspace", "workers", "loader", "device", "devices", "checkpoint_minutes",
    "cache_dir", "cache_bytes", "epochs", "micro_batch", "dry_run", "all_splits",
}  # fmt: skip
"""Flags that make sense for a run that goes on; everything else comes from the run."""

RECIPE = "the recipe's"
ReadingOrder = Literal["auto", "index", "blocks"]


def train_command(
    ctx: typer.Context,
    dataset: DatasetOption = None,
    shards_dir: ShardsOptions = None,
    classes: ClassesOption = None,
    fraction: FractionOption = 1.0,
    max_clips_per_class: MaxClipsOption = None,
    exclude_keys: ExcludeOption = None,
    split_id: SplitIdOption = "1",
    order: Annotated[
        ReadingOrder | None,
        typer.Option(
            help="index: shuffle the whole epoch and read the frames it needs. blocks: shuffle and mix large ranges of "
            "the tars, for shards that are far away.",
            show_default="blocks behind a URL, else index",
            rich_help_panel=DATA,
        ),
    ] = None,
    all_splits: Annotated[
        bool, typer.Option("--all-splits", help="Train on every split set and print the mean.", rich_help_panel=DATA)
    ] = False,
    workspace: WorkspaceOption = HERE,
    model: ModelOption = None,
    backbone: BackboneOption = None,
    modality: Annotated[
        str | None, typer.Option(help="rgb or flow, for the TSN family.", show_default="rgb", rich_help_panel=MODEL)
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames", "--num-frames", min=1, help="Frames per clip.", show_default=RECIPE, rich_help_panel=MODEL
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=8, help="Side of the input in pixels.", show_default=RECIPE, rich_help_panel=MODEL),
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(
            "--sampling",
            help="How frames are chosen: segments, dense, tsm, tsm-dense, gsm, gsf, masnet, tokshift, …",
            show_default=RECIPE,
            rich_help_panel=MODEL,
        ),
    ] = None,
    dropout: Annotated[
        float | None, typer.Option(help="Dropout before the classifier.", show_default=RECIPE, rich_help_panel=MODEL)
    ] = None,
    pretrained: Annotated[
        str | None,
        typer.Option(help="imagenet, none, or a file of backbone weights.", show_default=RECIPE, rich_help_panel=MODEL),
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="Start from these weights (safetensors).", rich_help_panel=MODEL)
    ] = None,
    new_head: Annotated[
        bool, typer.Option("--new-head", help="With --init: start a new classifier.", rich_help_panel=MODEL)
    ] = False,
    freeze: Annotated[
        Literal["backbone"] | None,
        typer.Option(
            help="backbone: train the classifier only (linear probe).", show_default="nothing", rich_help_panel=MODEL
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Recipe or YAML file; see: actcli recipes",
            show_default="the model's for this dataset",
            autocompletion=complete_recipes,
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the training split.", show_default=RECIPE, rich_help_panel=SCHEDULE),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Clips per step, over all processes.", show_default=RECIPE, rich_help_panel=SCHEDULE),
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Steps per update.", show_default=RECIPE, rich_help_panel=SCHEDULE)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Base learning rate.", show_default=RECIPE, rich_help_panel=SCHEDULE)
    ] = None,
    scale_lr: Annotated[
        Literal["linear", "sqrt"] | None,
        typer.Option(
            help="Scale the base learning rate with the clips of an update, relative to the recipe's.",
            show_default="not scaled",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    schedule: Annotated[
        Literal["step", "cosine", "polynomial", "constant"] | None,
        typer.Option(
            help="Shape of the learning rate after the warm-up.", show_default=RECIPE, rich_help_panel=SCHEDULE
        ),
    ] = None,
    schedule_per: Annotated[
        Literal["epoch", "step"] | None,
        typer.Option(help="What the learning rate changes with.", show_default=RECIPE, rich_help_panel=SCHEDULE),
    ] = None,
    warmup_epochs: Annotated[
        int | None,
        typer.Option(
            min=0, help="Epochs that lead up to the base rate.", show_default=RECIPE, rich_help_panel=SCHEDULE
        ),
    ] = None,
    optimizer: Annotated[
        Literal["sgd", "adamw"] | None,
        typer.Option(help="Optimiser.", show_default=RECIPE, rich_help_panel=SCHEDULE),
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(help="Weight decay.", show_default=RECIPE, rich_help_panel=SCHEDULE)
    ] = None,
    layer_decay: Annotated[
        float | None,
        typer.Option(
            help="Transformers: each layer learns so many times as fast as the one above it (0.75).",
            show_default="all alike",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    clip_norm: Annotated[
        float | None,
        typer.Option(help="Scale gradients down to this total norm.", show_default=RECIPE, rich_help_panel=SCHEDULE),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            help="Keep a moving average of the weights with this decay per update (0.999); it is what is validated.",
            show_default="none",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of everything random.", show_default="0", rich_help_panel=SCHEDULE)
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other number of the recipe or option of the model: --set schedule.kind=cosine --set shift_div=4",
            metavar="FIELD=VALUE",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    device: DeviceOption = "auto",
    devices: Annotated[
        int, typer.Option(min=1, help="Processes on this machine, one per GPU.", rich_help_panel=HARDWARE)
    ] = 1,
    precision: Annotated[
        Precision | None, typer.Option(help="Arithmetic.", show_default=RECIPE, rich_help_panel=HARDWARE)
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Run the step through torch.compile.", rich_help_panel=HARDWARE)
    ] = False,
    find_batch_size: Annotated[
        bool,
        typer.Option(
            "--find-batch-size",
            help="Take the largest batch whose clips fit at once (see --scale-lr).",
            rich_help_panel=HARDWARE,
        ),
    ] = False,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Clips through the network at once; a batch that does not fit into memory is cut.",
            show_default="as many as fit",
            rich_help_panel=HARDWARE,
        ),
    ] = None,
    workers: WorkersOption = None,
    loader: LoaderOption = "auto",
    cache_dir: CacheDirOption = None,
    cache_bytes: CacheBytesOption = CACHE_BYTES,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run.", show_default="runs/<date>-…", rich_help_panel=RUN)
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Alone: continue the newest unfinished run. With --run-dir: that run. With other options: the run "
            "that was started with them, or a new one. --epochs extends a finished run.",
            rich_help_panel=RUN,
        ),
    ] = False,
    checkpoint_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes between checkpoints inside an epoch.", rich_help_panel=RUN)
    ] = 10.0,
    keep_every: Annotated[
        int | None,
        typer.Option(
            min=1, help="Epochs after which a copy of the weights is kept.", show_default="none", rich_help_panel=RUN
        ),
    ] = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Where the curves go: tensorboard, csv, trackio, wandb; several may be given.",
            show_default="tensorboard",
            rich_help_panel=RUN,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and the memory it takes.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Train a model on shards: shards/* to runs/<date>-<model>-<dataset>-….

    The recipe holds every number of the published training; flags replace single ones, and config.yaml in the run's
    folder says what was really used. Ctrl-C writes a checkpoint; --resume continues to the very same weights.
    """
    from actcli.engine.hardware import Hardware
    from actcli.engine.training import RunPlace, TrainRequest, runs_to_train

    cached = str(cache_dir) if cache_dir else None
    hardware = Hardware(device, devices, num_workers(workers), loader, checkpoint_minutes, cached, cache_bytes)
    space = Workspace(workspace)
    place = RunPlace(space.runs, run_dir, resume, all_splits, epochs, micro_batch)
    flags = _other_flags(ctx)
    if resume and not flags:
        _train(place.runs_that_go_on(print_note), hardware, all_splits=all_splits, dry_run=dry_run)
        return
    before = place.before()
    if before is not None and (find_batch_size or all_splits):
        raise ActcliError(f"{run_dir} is a single run with a batch size; leave out --find-batch-size and --all-splits.")
    if find_batch_size and (batch_size or micro_batch):
        raise ActcliError("--find-batch-size chooses --batch-size and --micro-batch; leave them out.")
    if before is not None and not (shards_dir or dataset):
        shards_dir = [before.shards, *before.joined]
    first, *others = [space.shard_dataset(dataset, given) for given in shards_dir or (None,)]
    request = TrainRequest(
        shards=first,
        joined=others,
        subset=make_subset(classes, fraction, max_clips_per_class, exclude_keys),
        model=model,
        recipe=recipe,
        changes={
            "num_frames": frames,
            "size": size,
            "epochs": epochs,
            "batch_size": batch_size,
            "accumulate": accumulate,
            "learning_rate": learning_rate,
            "scale_lr": scale_lr,
            "optimizer": optimizer,
            "weight_decay": weight_decay,
            "layer_decay": layer_decay,
            "clip_norm": clip_norm,
            "ema": ema,
            "freeze": freeze,
            "compile": compile or None,
            "keep_every": keep_every,
            "log": log,
            "sampling": sampling,
            "order": order,
            "pretrained": pretrained,
            "precision": precision,
            "seed": seed,
            "schedule": {"kind": schedule, "per": schedule_per, "warmup_epochs": warmup_epochs},
            "model_options": {"backbone": backbone, "modality": modality, "dropout": dropout},
        },
        settings=setting or [],
        init=str(init) if init else None,
        new_head=new_head,
        split_id=before.split_id if before is not None and "--split-id" not in flags else split_id,
        micro_batch=micro_batch,
    )
    runs = runs_to_train(request, place, hardware if find_batch_size else None, print_note)
    _train(runs, hardware, all_splits=all_splits, dry_run=dry_run)


def _train(runs: "list[Run]", hardware: "Hardware", *, all_splits: bool, dry_run: bool) -> None:
    best = {run.config.split_id: train_or_tell(run, hardware, dry_run) for run in runs}
    if all_splits:
        print_split_sets(best, "best top-1")


def _other_flags(ctx: typer.Context) -> list[str]:
    """The flags given that say what to train, not where and how far."""
    return [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name not in CONTINUE_WITH
        and str(ctx.get_parameter_source(str(parameter.name))).endswith("COMMANDLINE")
    ]
