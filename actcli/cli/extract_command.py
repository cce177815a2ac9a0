"""``actcli extract``: raw videos to frames."""

from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from actcli.cli._console import Progress, cell, console, plain, print_note, table
from actcli.cli._options import HERE, ClassesOption, DatasetOption, WorkersOption, WorkspaceOption, named_classes
from actcli.cli._workspace import Workspace
from actcli.words import counted

if TYPE_CHECKING:
    from actcli.ingest import Estimate, ExtractOptions, ExtractPlan, ExtractSummary, SplitCount

MAX_FAILURES_SHOWN = 20
MAX_CLASSES_SHOWN = 50

DATA = "Data"
PICTURES = "Pictures"
FLOW = "Optical flow"
SPLITS = "Own datasets that come without splits"
RUN = "Run"


def extract_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    raw_dir: Annotated[
        Path | None,
        typer.Option(help="The downloaded dataset.", show_default="raw/<dataset>", rich_help_panel=DATA),
    ] = None,
    frames_dir: Annotated[
        Path | None, typer.Option(help="Where to write.", show_default="frames/<dataset>", rich_help_panel=DATA)
    ] = None,
    frames_url: Annotated[
        str | None,
        typer.Option(
            help="Put the frames to an object store (s3://bucket/frames/sthv2), one object a clip; card, ledger and "
            "manifest stay in --frames-dir.",
            rich_help_panel=DATA,
        ),
    ] = None,
    from_frames: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pack the JPEG folders of an existing dump instead of decoding videos. May be given several times.",
            rich_help_panel=DATA,
        ),
    ] = None,
    classes: ClassesOption = None,
    sample: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Only so many clips for now, in turn from each class: a look at whether all is well. The same command "
            "without it does the others.",
            rich_help_panel=DATA,
        ),
    ] = None,
    payload: Annotated[
        Literal["mjpeg", "source"],
        typer.Option(
            help="Keep frames as JPEGs, or the videos themselves with an index of their frames: no loss and the least "
            "disk, for some twenty times the loader's work.",
            rich_help_panel=DATA,
        ),
    ] = "mjpeg",
    modality: Annotated[
        Literal["rgb", "flow"], typer.Option(help="Frames or optical flow.", rich_help_panel=DATA)
    ] = "rgb",
    short_side: Annotated[
        int, typer.Option(min=0, help="Pixels of the shorter side; 0 keeps the size.", rich_help_panel=PICTURES)
    ] = 256,
    upscale: Annotated[
        bool, typer.Option("--upscale", help="Enlarge videos that are smaller.", rich_help_panel=PICTURES)
    ] = False,
    fps: Annotated[
        float | None,
        typer.Option(help="Frames per second.", show_default="every frame once", rich_help_panel=PICTURES),
    ] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.", rich_help_panel=PICTURES)] = 90,
    layout: Annotated[
        Literal["mjpeg", "folders"],
        typer.Option(
            help="One file a clip, or folders of img_00001.jpg with lists in the form of TSN, for other tools.",
            rich_help_panel=PICTURES,
        ),
    ] = "mjpeg",
    flow_method: Annotated[
        Literal["dis", "farneback", "tvl1", "raft"],
        typer.Option(
            help="dis takes 3 to 9 ms a frame on one core at 340x256, tvl1 (that of the literature) 500 to 800 ms; "
            "raft needs weights.",
            rich_help_panel=FLOW,
        ),
    ] = "dis",
    flow_bound: Annotated[
        float, typer.Option(help="Motion in pixels that the largest byte stands for.", rich_help_panel=FLOW)
    ] = 20.0,
    val_fraction: Annotated[
        float, typer.Option(help="Share of each class that goes to val.", rich_help_panel=SPLITS)
    ] = 0.2,
    group_by: Annotated[
        str,
        typer.Option(
            help="Regular expression over the path; clips with the same match (of its group, if it has one) stay on "
            r"one side, for example '(rec\d+)_'.",
            show_default="each clip alone",
            rich_help_panel=SPLITS,
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Write nothing; show clips by split and class, and time, memory and disk, from trying a few clips.",
            rich_help_panel=RUN,
        ),
    ] = False,
    keep_partial: Annotated[
        bool,
        typer.Option(
            "--keep-partial", help="Keep the frames before the place where a clip breaks.", rich_help_panel=RUN
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Only take up failed clips again.", rich_help_panel=RUN)
    ] = False,
    clip_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds after which a clip counts as hung.", rich_help_panel=RUN)
    ] = 1800.0,
    executor: Annotated[
        Literal["processes", "ray", "serial"],
        typer.Option(help="Where clips are done.", rich_help_panel=RUN),
    ] = "processes",
    runtime_env: Annotated[
        Path | None,
        typer.Option(
            help="With --executor ray: YAML file of what its nodes need, such as: pip: \\[actcli]", rich_help_panel=RUN
        ),
    ] = None,
    workers: WorkersOption = None,
) -> None:
    """Extract the frames (or optical flow) of a dataset: raw/<dataset> to frames/<dataset>.

    Stopped or killed, the same command continues. Broken clips become rows of manifest.parquet, with the reason.
    """
    from actcli.ingest import ExtractOptions, SplitRule

    space = Workspace(workspace)
    name = space.raw_dataset(dataset)
    extra: dict[str, Any] = {} if workers is None else {"workers": max(1, workers)}
    options = ExtractOptions(
        dataset=name,
        raw_dir=raw_dir or space.raw / name,
        frames_dir=frames_dir or space.frames / name,
        frames_url=frames_url,
        modality=modality,
        payload=payload,
        short_side=short_side,
        upscale=upscale,
        fps=fps,
        quality=quality,
        layout=layout,
        keep_partial=keep_partial,
        classes=named_classes(classes),
        sample=sample,
        retry_failed=retry_failed,
        flow_method=flow_method,
        flow_bound=flow_bound,
        from_frames=tuple(from_frames or ()),
        executor=executor,
        runtime_env=runtime_env,
        clip_timeout=clip_timeout,
        split_rule=SplitRule(val_fraction, group_by),
        **extra,
    )
    source = " and ".join(map(str, options.from_frames)) or options.raw_dir
    console.print(plain(f"extracting {modality} of {source} to {frames_url or options.frames_dir}"), markup=False)
    if dry_run:
        _show_plan(options)
    else:
        _extract(options)


def _show_plan(options: "ExtractOptions") -> None:
    from actcli.ingest import plan_extraction

    plan, estimate = plan_extraction(options)
    _print_plan(plan)
    _print_estimate(plan, estimate, "at the URL" if options.frames_url else "of disk")


def _extract(options: "ExtractOptions") -> None:
    from actcli.ingest import extract_dataset

    shown: list[str] = []

    def on_plan(plan: "ExtractPlan") -> None:
        _print_found(plan)
        shown.extend(plan.warnings)

    with Progress("extract", "clips") as bar:
        summary = extract_dataset(
            options,
            progress=lambda p: bar.update(p.done, p.total, f"{p.frames} frames, {p.failed} failed"),
            on_plan=on_plan,
        )
    _print_summary(options.dataset, summary, shown)
    if not summary.counts["ok"] + summary.counts["partial"]:
        raise typer.Exit(1)
    if options.layout == "mjpeg":
        console.print("next: actcli shard")
    else:
        console.print("the lists beside the frames name them for other tools; shards need --layout mjpeg")


def _split_names(counts: "tuple[SplitCount, ...]") -> list[str]:
    """The splits: train, val; with several split sets train1, test1, …."""
    is_single = len({count.split_set for count in counts}) == 1
    return [count.split if is_single else f"{count.split}{count.split_set}" for count in counts]


def _splits(counts: "tuple[SplitCount, ...]") -> str:
    """``train 18, val 6``."""
    return ", ".join(f"{name} {count.num_found}" for name, count in zip(_split_names(counts), counts, strict=True))


def _print_found(plan: "ExtractPlan") -> None:
    missing = f", {plan.num_missing} of {plan.num_listed} listed clips missing" if plan.num_missing else ""
    console.print(f"{counted(plan.num_classes, 'class')}, clips found: {_splits(plan.splits)}{missing}", markup=False)
    for warning in plan.warnings:
        print_note(warning)


def _print_plan(plan: "ExtractPlan") -> None:
    names = _split_names(plan.splits)
    splits = table("split", "#listed", "#found", "#missing", "#classes")
    for name, count in zip(names, plan.splits, strict=True):
        numbers = (count.num_clips, count.num_found, count.num_clips - count.num_found, count.num_classes)
        splits.add_row(name, *map(str, numbers))
    console.print(splits)
    classes = table("class", *(f"#{name}" for name in names))
    for entry in plan.classes[:MAX_CLASSES_SHOWN]:
        classes.add_row(cell(entry.name), *map(str, entry.clips))
    console.print(classes)
    if len(plan.classes) > MAX_CLASSES_SHOWN:
        print_note(f"{len(plan.classes) - MAX_CLASSES_SHOWN} more classes")
    for warning in plan.warnings:
        print_note(warning)


def _print_estimate(plan: "ExtractPlan", estimate: "Estimate | None", where: str) -> None:
    console.print(f"to do: {plan.num_to_do} of {plan.num_listed} listed clips", markup=False)
    if estimate is not None:
        console.print(
            f"about {timedelta(seconds=round(estimate.seconds))} (h:mm:ss), {_size(estimate.bytes)} {where} and "
            f"{_size(estimate.memory_bytes)} of memory, judging by {counted(estimate.num_tried, 'clip')}",
            markup=False,
        )
    elif plan.num_to_do:
        print_note("none of the clips tried could be extracted, so there is no estimate")
    console.print("nothing was written (--dry-run)")


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _print_summary(name: str, summary: "ExtractSummary", shown: Collection[str]) -> None:
    if summary.failed:
        failures = table("key", "clip", "status", "stage", "reason", title="not extracted")
        for clip in summary.failed[:MAX_FAILURES_SHOWN]:
            reason = cell(f"{clip.error}: {clip.message}")
            failures.add_row(clip.key, cell(clip.source_id), clip.status, clip.stage, reason)
        console.print(failures)
        if len(summary.failed) > MAX_FAILURES_SHOWN:
            print_note(f"{len(summary.failed) - MAX_FAILURES_SHOWN} more in {summary.frames_dir / 'manifest.parquet'}")
    counts = table("dataset", "#listed", "#ok", "#partial", "#failed", "#missing", "#frames", "#MB", "#seconds")
    numbers = [summary.counts[status] for status in ("ok", "partial", "failed", "missing")]
    counts.add_row(
        name,
        *(str(number) for number in (summary.listed, *numbers, summary.frames)),
        f"{summary.bytes / 1e6:.1f}",
        f"{summary.seconds:.1f}",
    )
    console.print(counts)
    console.print(f"{counted(summary.num_classes, 'class')}, clips extracted: {_splits(summary.splits)}", markup=False)
    for warning in summary.warnings:
        if warning not in shown:
            print_note(warning)
    if summary.already_done:
        print_note(f"{counted(summary.already_done, 'clip')} done by earlier runs")
