"""What packing a dataset would come to, found out without writing a file."""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actcli.files import nearest_folder
from actcli.shards._folder import base_card, check_place, ours, refuse_foreign
from actcli.shards.growth import find_growth
from actcli.shards.journal import Journal
from actcli.shards.manifest import Clip, Payload, Source, payload_crcs, payload_on_disk, read_payload, read_source
from actcli.shards.options import ShardOptions
from actcli.shards.plan import output_names, plan_tars
from actcli.shards.reader import CARD_NAME
from actcli.shards.video import encode_video

SAMPLE_BYTES = 64 << 20
"""Frames that are read to measure the rate."""
SAMPLE_VIDEOS = 3
"""Clips that are encoded to measure rate and size."""


@dataclass(frozen=True)
class SplitForecast:
    """One split of one split set."""

    split_id: str
    split: str
    num_clips: int
    num_bytes: int
    """Bytes of its frames as they were extracted."""


@dataclass(frozen=True)
class ShardForecast:
    """What ``write_shards`` would do with the same options."""

    splits: tuple[SplitForecast, ...]
    num_tars: int
    """With video payloads, at most."""
    num_bytes: int
    """Size of the tars; with video payloads an estimate from a few clips."""
    free_bytes: int
    """Room on the disk that they go to."""
    seconds: float
    """Estimate: the rate at which a sample was read and checked, or encoded, here and now."""


def forecast_shards(options: ShardOptions) -> ShardForecast:
    """Plan the tars and measure a sample.

    Raises:
        ActcliError: ``write_shards`` would refuse too: frames are missing or damaged, or other files are in the way.
    """
    check_place(options.shards_dir)
    source = read_source(options.frames_dir)
    options = source.settle(options)
    owned = ours(options.shards_dir, Journal.read(options.shards_dir))
    base = None if options.overwrite else base_card(options.shards_dir, owned)
    growth = find_growth(options, source, base)
    clips = () if base is not None and growth.digest == base.source_digest else growth.clips  # all is there
    plan = plan_tars(clips, source.card.split_sets, options, [tar.name for tar in growth.kept])
    refuse_foreign(options.shards_dir, [CARD_NAME, *output_names(plan, source.card)], owned)
    num_bytes = sum(tar.num_bytes() for tar in plan)
    if options.payload == "video":
        share, seconds = _measure_encoding(options, clips)
    else:
        share, seconds = 1.0, _measure_reading(clips)
    cores = min(options.workers, len(os.sched_getaffinity(0)))
    return ShardForecast(
        tuple(_splits(source)),
        len(plan),
        round(num_bytes * share),
        shutil.disk_usage(nearest_folder(options.shards_dir)).free,
        seconds / cores,
    )


def _splits(source: Source) -> list[SplitForecast]:
    found = []
    for split_id, splits in source.card.split_sets.items():
        for split in splits:
            clips = [clip for clip in source.clips if clip.splits.get(split_id) == split]
            num_bytes = sum(payload.bytes for clip in clips for payload in clip.payloads)
            found.append(SplitForecast(split_id, split, len(clips), num_bytes))
    return found


def _measure_reading(clips: Sequence[Clip]) -> float:
    """Seconds that one core takes to read and check all frames."""
    payloads = [payload for clip in clips for payload in clip.payloads]
    begin, read = time.perf_counter(), 0
    for payload in payloads:
        payload_crcs(payload, read_payload(payload))
        read += payload.bytes
        if read >= SAMPLE_BYTES:
            break
    return (time.perf_counter() - begin) * sum(payload.bytes for payload in payloads) / max(read, 1)


def _measure_encoding(options: ShardOptions, clips: Sequence[Clip]) -> tuple[float, float]:
    """Size of videos as a part of that of the frames, and the seconds that one core takes to encode all."""
    sources: list[tuple[Clip, Payload]] = [(clip, clip.rgb) for clip in clips if clip.rgb is not None]
    sample = sources[:: max(1, len(sources) // SAMPLE_VIDEOS)][:SAMPLE_VIDEOS]
    begin, encoded = time.perf_counter(), 0
    with tempfile.TemporaryDirectory(prefix="actcli-") as folder:
        target = Path(folder) / "sample.mp4"
        for clip, rgb in sample:
            with payload_on_disk(rgb) as path:
                encode_video(path, target, fps=clip.fps, num_frames=rgb.num_frames, short_side=options.short_side)
            encoded += target.stat().st_size
    read = sum(rgb.bytes for _, rgb in sample)
    seconds = time.perf_counter() - begin
    return encoded / max(read, 1), seconds * sum(rgb.bytes for _, rgb in sources) / max(read, 1)
