"""Frames of videos that are stored as they were downloaded, from the bytes of some of their packets."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actcli.ingest.decode import planes_to_rgb
from actcli.ingest.packets import Bytes, decode_planes, read_planes
from actcli.ingest.video_index import DecoderSetup
from actcli.shards.clip import Extents, StoredClip

Pixels = NDArray[np.uint8]


class WantedVideo(NamedTuple):
    """How some frames of a clip come out of packets of its video."""

    setup: DecoderSetup
    """What the decoder has to know."""
    is_whole: bool
    """Whether the one packet is the whole file."""
    stretches: list[tuple[int, list[int]]]
    """Number of packets, and which of the pictures are wanted that come out of them; one stretch after the other."""


def plan_video(clip: StoredClip, frames: NDArray[np.int64]) -> tuple[Extents, WantedVideo]:
    """Where the packets lie that give ``frames``, which ascend, and how they do."""
    assert clip.video is not None
    stretches = clip.video.stretches(frames, len(clip.frame_sizes))
    packets = np.concatenate([np.arange(stretch.first, stretch.end) for stretch in stretches])
    wanted = [(stretch.end - stretch.first, stretch.wanted) for stretch in stretches]
    return clip.packet_extents(packets), WantedVideo(clip.video.setup(), clip.video.is_whole, wanted)


def decode_video(packets: Sequence[Bytes], wanted: WantedVideo, size: tuple[int, int]) -> Iterator[Pixels]:
    """The frames that are wanted, RGB ``[H, W, 3]`` of width and height ``size``, from the packets of all stretches.

    Raises:
        ActcliError: The packets do not give them.
    """
    begin = 0
    for num_packets, pictures in wanted.stretches:
        stretch = packets[begin : begin + num_packets]
        for planes in decode_planes(wanted.setup, stretch, pictures, size, is_whole=wanted.is_whole):
            yield planes_to_rgb(planes)
        begin += num_packets


def video_frames(clip: StoredClip, frames: Sequence[int], read: Callable[[int, int], Bytes]) -> Iterator[Pixels]:
    """Frames of a clip, which ascend, RGB ``[H, W, 3]``; ``read`` gives bytes of the video: from which on, how many.

    Raises:
        ActcliError: The bytes do not give them.
    """
    assert clip.video is not None
    for planes in read_planes(clip.video, clip.frame_sizes, frames, (clip.width, clip.height), read):
        yield planes_to_rgb(planes)
