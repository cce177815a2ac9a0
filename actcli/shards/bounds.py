"""What an index or a clip's JSON may say: numbers are bounded by what the card says and by what a picture can be."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from actcli.facts import Sizes
from actcli.shards.card import ShardCard
from actcli.shards.clip import StoredClip
from actcli.shards.index import FrameTable, ShardIndex

MAX_PIXELS = 1 << 26
"""Pixels of the largest picture that is decoded, twice those of 8K video; they take 200 MB in RGB."""
MAX_KEYS = 10**9
"""Keys have nine digits."""
_BLOCK = 512
_LARGEST_NUMBER = 1e9
_CLIPS_AT_A_TIME = 10_000


def check_index(index: ShardIndex, card: ShardCard) -> None:
    """Compare every number of an index with the card.

    Raises:
        ValueError: One is impossible; names the clip.
    """
    tars = {shard.name: shard.bytes for shard in card.shards}
    for name in index.shard_names:
        if name not in tars:
            raise ValueError(f"it names the tar {name!r}, which the card does not list")
    if not np.diff(np.sort(index.keys)).all():
        raise ValueError("a clip is listed twice")
    tar_bytes = np.array([tars[name] for name in index.shard_names] or [0])[index.shard_ids]
    has_rgb = index.num_frames > 0
    _refuse(index, "its key", (index.keys < 0) | (index.keys >= MAX_KEYS))
    _refuse(index, "its label", (index.labels < -1) | (index.labels >= len(card.classes)))
    _refuse(index, "its number of frames", (index.num_frames < 0) | (index.num_frames > index.payload_bytes))
    _refuse(index, "its width or height", ~_possible_sizes(index))
    _refuse(index, "its frame rate", ~(np.isfinite(index.fps) & (index.fps >= 0)))
    if card.payload == "source":
        _check_videos(index, has_rgb, tar_bytes)
    else:
        num_pictures = np.where(card.payload == "mjpeg", index.num_frames, 1) * has_rgb
        _check_places(index, index.rgb, num_pictures, tar_bytes, "frames")
        _refuse(index, "its number of bytes", has_rgb & (_sums(index.rgb) != index.payload_bytes))
    if index.flow is not None:
        _refuse(index, "its number of flow fields", index.flow_num_frames < 0)
        _refuse(index, "its flow bound", ~(np.isfinite(index.flow_bounds) & (index.flow_bounds >= 0)))
        _check_places(index, index.flow, 2 * index.flow_num_frames.astype(np.int64), tar_bytes, "flow fields")


def check_clip(clip: StoredClip, payload_bytes: Mapping[str, int], card: ShardCard) -> None:
    """Compare every number of a clip that was read from its JSON with its payloads (bytes by suffix) and the card.

    Raises:
        ValueError: One is impossible.
    """
    for name, count in (("num_frames", clip.num_frames), ("flow_num_frames", clip.flow_num_frames)):
        if count < 0:
            raise ValueError(f"its {name} is {count}")
    if not -1 <= clip.label < len(card.classes):
        raise ValueError(f"its label is {clip.label}, there are {len(card.classes)} classes")
    if min(clip.width, clip.height) < 1 or clip.width * clip.height > MAX_PIXELS:
        raise ValueError(f"its pictures have {clip.width} x {clip.height} pixels")
    for name, number in (("fps", clip.fps), ("flow_bound", clip.flow_bound)):
        if not 0 <= number < _LARGEST_NUMBER:
            raise ValueError(f"its {name} is {number}")
    if card.payload == "source":
        _check_video(clip, payload_bytes)
    elif clip.video is not None or not payload_bytes.keys() <= {"mjpeg", "mp4", "flow.mjpeg"}:
        raise ValueError("it has a video of its own, the card says otherwise")
    elif (video_bytes := payload_bytes.get("mp4")) is None:
        _check_sizes(clip.frame_sizes, clip.num_frames, payload_bytes.get("mjpeg", 0))
    elif 0 < clip.num_frames <= video_bytes:
        _check_sizes(clip.frame_sizes, 1, video_bytes)
    else:
        raise ValueError(f"its {clip.num_frames} frames cannot be in {video_bytes} bytes")
    _check_sizes(clip.flow_frame_sizes, 2 * clip.flow_num_frames, payload_bytes.get("flow.mjpeg", 0))


def _check_video(clip: StoredClip, payload_bytes: Mapping[str, int]) -> None:
    """Compare a clip whose payload is the video itself with that; one of flow alone has none."""
    stored = {suffix: size for suffix, size in payload_bytes.items() if suffix != "flow.mjpeg"}
    if clip.video is None and not stored and not clip.num_frames:
        return
    if clip.video is None or list(stored) != [clip.video.container] or clip.num_frames < 1:
        raise ValueError("it has no video, or not the one that it says")
    clip.video.check(clip.frame_sizes, clip.num_frames, stored[clip.video.container])


def _check_sizes(sizes: Sizes, num_pictures: int, payload_bytes: int) -> None:
    total = int(sizes.sum(dtype=np.int64))
    if len(sizes) != num_pictures or total != payload_bytes:
        raise ValueError(
            f"it has {len(sizes)} pictures of {total} bytes, where {num_pictures} of {payload_bytes} should be"
        )


def _refuse(index: ShardIndex, what: str, wrong: NDArray[np.bool_]) -> None:
    if wrong.any():
        raise ValueError(f"clip {index.keys[np.flatnonzero(wrong)[0]]:09d}: {what} cannot be")


def _check_videos(index: ShardIndex, has_rgb: NDArray[np.bool_], tar_bytes: NDArray[np.int64]) -> None:
    """Payloads lie in their tars, and packets are no more than payloads; what they are is looked at clip by clip."""
    if index.videos is None or not np.array_equal(index.videos.is_valid().to_numpy(zero_copy_only=False), has_rgb):
        raise ValueError("it does not say how each video is read")
    num_packets, begins = np.diff(index.rgb.starts), index.rgb.offsets
    _refuse(index, "its number of packets", has_rgb != (num_packets > 0))
    if len(index.rgb.sizes) and not index.rgb.sizes.all():
        raise ValueError("one of its packets has no bytes")
    _refuse(index, "its number of bytes", _sums(index.rgb) > index.payload_bytes)
    outside = (begins < _BLOCK) | (index.payload_bytes < 0) | (begins > tar_bytes - index.payload_bytes)
    _refuse(index, "its place in the tar", has_rgb & outside)


def _possible_sizes(index: ShardIndex) -> NDArray[np.bool_]:
    widths, heights = index.widths.astype(np.int64), index.heights.astype(np.int64)
    return (widths > 0) & (heights > 0) & (widths * heights <= MAX_PIXELS)


def _check_places(
    index: ShardIndex, table: FrameTable, num_pictures: NDArray[np.int64], tar_bytes: NDArray[np.int64], what: str
) -> None:
    lengths, sums = np.diff(table.starts), _sums(table)
    _refuse(index, f"its number of {what}", lengths != num_pictures)
    if len(table.sizes) and not table.sizes.all():
        raise ValueError(f"one of its {what} has no bytes")
    begins, present = table.offsets, lengths > 0
    _refuse(index, "its place in the tar", present & ((begins < _BLOCK) | (begins > tar_bytes - sums)))


def _sums(table: FrameTable) -> NDArray[np.int64]:
    """Bytes of each clip's pictures, int64; some clips at a time, because the sizes are widened on the way."""
    sums = np.zeros(len(table.starts) - 1, np.int64)
    for begin in range(0, len(sums), _CLIPS_AT_A_TIME):
        starts = table.starts[begin : begin + _CLIPS_AT_A_TIME + 1]
        present = np.flatnonzero(np.diff(starts))
        if len(present):
            sizes = table.sizes[starts[0] : starts[-1]]
            sums[begin + present] = np.add.reduceat(sizes, starts[present] - starts[0], dtype=np.int64)
    return sums
