"""``actcli extract``: raw videos to frames."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actcli.cli._console import Progress, console, print_note, table
from actcli.cli._options import HERE, DatasetOption, WorkersOption, WorkspaceOption, check_choice
from actcli.cli._workspace import Workspace

MAX_FAILURES_SHOWN = 20


def extract_command(
    dataset: DatasetOption = None,
    workspace: WorkspaceOption = HERE,
    raw_dir: Annotated[Path | None, typer.Option(help="The downloaded dataset.", show_default="raw/<dataset>")] = None,
    frames_dir: Annotated[Path | None, typer.Option(help="Where to write.", show_default="frames/<dataset>")] = None,
    modality: Annotated[str, typer.Option(help="rgb or flow.")] = "rgb",
    short_side: Annotated[int, typer.Option(min=0, help="Pixels of the shorter side; 0 keeps the size.")] = 256,
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge videos that are smaller.")] = False,
    fps: Annotated[float | None, typer.Option(help="Frames per second.", show_default="every frame once")] = None,
    quality: Annotated[int, typer.Option(min=1, max=100, help="JPEG quality.")] = 90,
    layout: Annotated[str, typer.Option(help="mjpeg, or folders of img_00001.jpg for other tools.")] = "mjpeg",
    keep_partial: Annotated[
        bool, typer.Option("--keep-partial", help="Keep the frames before the place where a clip breaks.")
    ] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Only take up failed clips again.")] = False,
    flow_method: Annotated[
        str,
        typer.Option(
            help="dis (3 to 9 ms a frame on one core at 340x256), farneback, tvl1 (500 to 800 ms; that of the "
            "literature) or raft (needs weights)."
        ),
    ] = "dis",
    flow_bound: Annotated[float, typer.Option(help="Motion in pixels that the largest byte stands for.")] = 20.0,
    from_frames: Annotated[
        Path | None, typer.Option(help="Pack the JPEG folders of an existing dump instead of decoding videos.")
    ] = None,
    executor: Annotated[str, typer.Option(help="processes, ray or serial.")] = "processes",
    workers: WorkersOption = None,
) -> None:
    """Extract the frames (or optical flow) of a dataset: raw/<dataset> to frames/<dataset>.

    Stopped or killed, the same command continues. Broken clips become rows of manifest.parquet, with the reason.
    """
    from actcli.ingest import ExtractOptions, extract_dataset

    check_choice("--modality", modality, "rgb", "flow")
    check_choice("--executor", executor, "processes", "ray", "serial")
    space = Workspace(workspace)
    name = space.raw_dataset(dataset)
    extra: dict[str, Any] = {} if workers is None else {"workers": max(1, workers)}
    options = ExtractOptions(
        dataset=name,
        raw_dir=raw_dir or space.raw / name,
        frames_dir=frames_dir or space.frames / name,
        modality=modality,  # type: ignore[arg-type]
        short_side=short_side,
        upscale=upscale,
        fps=fps,
        quality=quality,
        layout=layout,  # type: ignore[arg-type]
        keep_partial=keep_partial,
        retry_failed=retry_failed,
        flow_method=flow_method,  # type: ignore[arg-type]
        flow_bound=flow_bound,
        from_frames=from_frames,
        executor=executor,  # type: ignore[arg-type]
        **extra,
    )
    console.print(f"extracting {modality} of {options.raw_dir} to {options.frames_dir}", markup=False)
    with Progress("extract", "clips") as bar:
        summary = extract_dataset(
            options, progress=lambda p: bar.update(p.done, p.total, f"{p.frames} frames, {p.failed} failed")
        )
    for warning in summary.warnings:
        print_note(warning)
    _print_summary(name, summary)
    if not summary.counts["ok"] + summary.counts["partial"]:
        raise typer.Exit(1)


def _print_summary(name: str, summary: Any) -> None:
    if summary.failed:
        failures = table("key", "clip", "status", "stage", "reason", title="not extracted")
        for clip in summary.failed[:MAX_FAILURES_SHOWN]:
            failures.add_row(clip.key, clip.source_id, clip.status, clip.stage, f"{clip.error}: {clip.message}")
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
    if summary.already_done:
        print_note(f"{summary.already_done} clips were done by earlier runs")
    console.print("next: actcli shard")
