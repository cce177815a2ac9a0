"""Clips as video, kept beside the tars until these are written, so that a killed run encodes nothing twice."""

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from actcli.files import file_checksum, is_temporary, temporary_path
from actcli.shards.checksum import FileSeal
from actcli.shards.manifest import Clip, Payload, payload_on_disk
from actcli.shards.options import ShardOptions
from actcli.shards.video import encode_video, video_size

CACHE_NAME = ".actcli-video"
_CACHED_VIDEO = re.compile(r"\d{9}\.[0-9a-f]{64}\.mp4")


def encode_clips(
    clips: Sequence[Clip], options: ShardOptions, digest: str, report: Callable[[int, int], None]
) -> list[Clip]:
    """The clips with videos in place of their frames.

    Args:
        clips: What was extracted.
        options: Where to, and how large.
        digest: Of frames and settings; others have videos of their own.
        report: Told how many clips are done, and of how many.
    """
    cache = options.shards_dir / CACHE_NAME / digest[:16]
    encoded = []
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for clip in pool.map(lambda clip: _with_video(clip, options, cache), clips):
                encoded.append(clip)
                report(len(encoded), len(clips))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return encoded


def remove_cache(folder: Path) -> None:
    """Remove the videos that are in the tars by now, and nothing else."""
    cache = folder / CACHE_NAME
    for path in cache.glob("*/*/*"):
        if _CACHED_VIDEO.fullmatch(path.name) or is_temporary(path.name):
            path.unlink()
    for path in (*cache.glob("*/*"), *cache.glob("*"), cache):
        with suppress(OSError):  # something else lies in it, or it was never made
            path.rmdir()


def _with_video(clip: Clip, options: ShardOptions, cache: Path) -> Clip:
    if clip.rgb is None:
        return clip
    path, checksum = _encoded(options, clip, clip.rgb, cache / f"{int(clip.key) // 1000}")
    width, height = video_size(path)
    size = path.stat().st_size
    one = np.array([size], np.uint32)
    video = replace(clip.rgb, suffix="mp4", file=path, bytes=size, checksum=checksum, frame_sizes=one)
    return replace(clip, rgb=video, width=width, height=height)


def _encoded(options: ShardOptions, clip: Clip, frames: Payload, folder: Path) -> tuple[Path, str]:
    """The clip as video and its sha256, which is part of its name; that of a killed run is kept if it is unchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{clip.key}.*.mp4"):
        checksum = path.name.split(".")[1]
        if FileSeal.of(path).checksum == checksum:
            return path, checksum
        path.unlink()
    partial = temporary_path(folder / f"{clip.key}.mp4")
    try:
        with payload_on_disk(frames) as path:
            encode_video(path, partial, fps=clip.fps, num_frames=frames.num_frames, short_side=options.short_side)
        checksum = file_checksum(partial)
        return partial.replace(folder / f"{clip.key}.{checksum}.mp4"), checksum
    finally:
        partial.unlink(missing_ok=True)
