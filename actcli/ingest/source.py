"""How a video file is read frame by frame, found out by doing it: every frame is compared with what extraction gives.

The clip is decoded twice: once as in every extraction, which finds all damage, and once stretch by stretch from the
bytes of packets alone, as a loader will do it. The index is believed when both give the same frames to the bit. Where
they do not, decoding begins at the first key packet only, or the file is read whole; where that does not help, the clip
fails.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from actcli.errors import ActcliError
from actcli.facts import NO_PLACES, NO_TIMES, Places, Sizes, Times
from actcli.files import open_regular
from actcli.ingest.container import open_container
from actcli.ingest.decode import PlaneMaker, Planes, Turn, VideoClip
from actcli.ingest.failure import ClipFailure
from actcli.ingest.packets import file_outputs, outputs
from actcli.ingest.video_index import CONTAINERS, DECODERS, MAX_EXTRADATA, DecoderSetup, VideoIndex

MAX_BYTES = (1 << 31) - 1
"""Largest file that is stored as it is: packing and streaming hold a file in memory."""
MAX_WHOLE_BYTES = 1 << 28
"""Largest file that may have to be read whole for each frame."""
_HEADER_BYTES = 64
"""At most so many bytes of the container stand between the place that FFmpeg names for a packet and the packet."""
_SAME_SECONDS = 1e-3
"""A frame may be shown so much off an even rate and still count as even; Matroska counts in milliseconds."""

Fingerprint = tuple[int, int, int]
"""CRC-32 of Y, U and V."""


@dataclass
class DecodedFrames:
    """What extraction decodes of a clip: enough to tell whether something else gives the same frames."""

    fingerprints: list[Fingerprint] = field(default_factory=list)
    """Of each frame."""
    seconds: list[float] = field(default_factory=list)
    """When each is shown, from the start of the stream."""
    turn: Turn = field(default_factory=Turn)
    """How pictures are laid upright."""
    size: tuple[int, int] = (0, 0)
    """Width and height of the frames."""

    def read(self, clip: VideoClip) -> None:
        """Decode the clip to its end; what came before an error stays."""
        for seconds, frame in clip.frames():
            planes = clip.planes(frame)
            if not self.fingerprints:
                self.turn, self.size = Turn.of(frame), (planes[0].shape[1], planes[0].shape[0])
            self.fingerprints.append(_fingerprint(planes))
            self.seconds.append(seconds)


class IndexedVideo(NamedTuple):
    """A video that can be read frame by frame."""

    video: VideoIndex
    """How."""
    packet_sizes: Sizes
    """Bytes of each packet."""


class _FoundPacket(NamedTuple):
    """One packet of the video where it lies in the file."""

    offset: int
    size: int
    is_key: bool
    seconds: float | None
    """When it is shown, where the container says that."""


class _Layout(NamedTuple):
    """Which packets give which frames."""

    end: int
    """The packet after the last one that is needed."""
    delay: int
    key_pictures: list[int]
    """One for each key packet that is used."""
    frame_pictures: list[int]


def index_video(path: Path, clip: VideoClip, decoded: DecodedFrames) -> IndexedVideo:
    """Find out how to read the frames of a clip from its file.

    Args:
        path: The file.
        clip: The clip, which may be a part of the file.
        decoded: All frames of the clip.

    Raises:
        ClipFailure: The frames cannot be had from the file in another way than from front to back.
    """
    num_bytes = path.stat().st_size
    if num_bytes > MAX_BYTES:
        raise ClipFailure("index", "FileTooLarge", "files of 2 GB and more are not stored; extract the frames instead")
    container, stream = open_container(path)
    with container, open_regular(path) as file:
        setup = _setup(container, stream, path, decoded.turn)
        packets = _find_packets(container, stream, file)
        is_bounded = sum(packet.size for packet in packets) <= num_bytes  # a table may name the same bytes many times
        if packets and is_bounded and len(setup.extradata) <= 2 * MAX_EXTRADATA:
            keys = _key_packets(packets, clip.first_second)
            for chosen in (keys, keys[:1]) if len(keys) > 1 else (keys,):
                if layout := _by_stretches(setup, packets, chosen, file, _Matching(decoded, clip.repeats_pictures)):
                    return _index(setup, packets, chosen, layout, clip.fps, decoded)
        if num_bytes <= MAX_WHOLE_BYTES:
            file.seek(0)
            whole = replace(setup, extradata="")
            if layout := _by_whole_file(whole, file.read(), _Matching(decoded, clip.repeats_pictures)):
                return _index(whole, [_FoundPacket(0, num_bytes, True, None)], [], layout, clip.fps, decoded)
    raise ClipFailure("index", "NotSeekable", "its frames come out otherwise when it is not read from front to back")


class _Matching:
    """Finds frames among pictures that come in their order."""

    def __init__(self, decoded: DecodedFrames, repeats_pictures: bool) -> None:
        self._decoded, self._repeats = decoded, repeats_pictures
        self._maker = PlaneMaker(decoded.size)
        self.frame_pictures: list[int] = []
        """The picture that each frame is, as far as pictures have come."""

    @property
    def is_complete(self) -> bool:
        """Whether every frame has been found."""
        return len(self.frame_pictures) == len(self._decoded.fingerprints)

    def add(self, number: int, picture: VideoFrame) -> None:
        """See whether a picture is the next frame; where a rate was asked for it may be several."""
        found = _fingerprint(self._maker.planes(picture, self._decoded.turn))
        while not self.is_complete and found == self._decoded.fingerprints[len(self.frame_pictures)]:
            self.frame_pictures.append(number)
            if not self._repeats:
                return


def _by_stretches(
    setup: DecoderSetup, packets: Sequence[_FoundPacket], keys: Sequence[int], file: BinaryIO, matching: _Matching
) -> _Layout | None:
    """Decode each stretch up to the picture that the next one begins with; None where this gives other frames."""
    key_pictures: list[int] = []
    num_pictures = end = 0
    delay = 1
    try:
        for key, next_key in pairwise([*keys, -1]):
            first = num_pictures
            key_pictures.append(first)
            for output in outputs(setup, _read(packets[key:], file), key):
                if output.frame.pts == next_key:
                    break
                if first == num_pictures and first and output.frame.pts != key:
                    return None
                matching.add(num_pictures, output.frame)
                delay = max(delay, output.num_packets - (num_pictures - first))
                end = max(end, key + output.num_packets)
                num_pictures += 1
                if matching.is_complete:
                    return _Layout(end, delay, key_pictures, matching.frame_pictures)
    except (av.FFmpegError, ActcliError, ValueError, MemoryError):
        return None
    return None


def _by_whole_file(setup: DecoderSetup, data: bytes, matching: _Matching) -> _Layout | None:
    """Decode the file as its container; None where this gives other frames."""
    try:
        for number, output in enumerate(file_outputs(setup, data)):
            matching.add(number, output.frame)
            if matching.is_complete:
                return _Layout(1, 1, [], matching.frame_pictures)
    except (av.FFmpegError, ActcliError, ValueError, MemoryError):
        return None
    return None


def _index(
    setup: DecoderSetup,
    packets: Sequence[_FoundPacket],
    keys: Sequence[int],
    layout: _Layout,
    fps: float,
    decoded: DecodedFrames,
) -> IndexedVideo:
    begin = keys[0] if keys else 0
    kept = packets[begin : layout.end]
    sizes = np.array([packet.size for packet in kept], np.uint32)
    offsets = np.array([packet.offset for packet in kept], np.int64)
    video = VideoIndex(
        **vars(setup),
        delay=layout.delay,
        packet_gaps=(np.diff(offsets + sizes, prepend=0) - sizes).astype(np.int32),
        key_packets=np.array(keys[: len(layout.key_pictures)], np.uint32) - np.uint32(begin),
        key_pictures=np.array(layout.key_pictures, np.uint32),
        frame_pictures=_unless_even(layout.frame_pictures),
        frame_times=_unless_regular(decoded.seconds, fps),
    )
    return IndexedVideo(video, sizes)


def _unless_even(pictures: Sequence[int]) -> Places:
    """The numbers, or none where they are 0, 1, 2, …."""
    return NO_PLACES if pictures == list(range(len(pictures))) else np.array(pictures, np.uint32)


def _unless_regular(seconds: Sequence[float], fps: float) -> Times:
    """Microseconds from the first frame, or none where the frames come at an even rate."""
    times = np.array(seconds) - seconds[0]
    if fps and bool((np.abs(times - np.arange(len(times)) / fps) < _SAME_SECONDS).all()):
        return NO_TIMES
    return np.rint(times * 1e6).astype(np.int64)


def _setup(container: InputContainer, stream: VideoStream, path: Path, turn: Turn) -> DecoderSetup:
    context = stream.codec_context
    codec = context.codec.canonical_name
    suffix = _suffix(container, path)
    if suffix is None or codec not in DECODERS:
        found = f"{codec} in {container.format.name}"
        raise ClipFailure("index", "NotStored", f"{found} is not stored as it is; extract the frames instead")
    return DecoderSetup(
        container=suffix,
        codec=codec,
        extradata=(context.extradata or b"").hex(),
        colour_range=int(context.color_range),
        colour_matrix=int(context.colorspace),
        reorder=int(getattr(context, "reorder_depth", context.has_b_frames)),  # older PyAV has the latter only
        picture_width=context.width,
        picture_height=context.height,
        turn=turn.number,
    )


def _suffix(container: InputContainer, path: Path) -> str | None:
    """What a file of this container is called: its own suffix if it is one of those, whatever the file is named."""
    forms = container.format.name.split(",")
    own = path.suffix.lower().removeprefix(".")
    usual = [suffix for suffix, form in CONTAINERS.items() if form in forms]
    return own if own in usual else next(iter(usual), None)


def _find_packets(container: InputContainer, stream: VideoStream, file: BinaryIO) -> list[_FoundPacket]:
    """Where the packets of the video lie; none where one is not in one piece."""
    found: list[_FoundPacket] = []
    try:
        for packet in container.demux(stream):
            if not packet.size:
                continue
            data, offset = bytes(packet), -1 if packet.pos is None else packet.pos
            file.seek(max(offset, 0))
            at = file.read(len(data) + _HEADER_BYTES).find(data)
            if at < 0 or offset < 0:
                return []
            seconds = None if packet.pts is None else float(packet.pts * packet.time_base)
            found.append(_FoundPacket(offset + at, len(data), packet.is_keyframe, seconds))
    except av.FFmpegError:  # the clip is kept up to there; what is needed of it has come, or is not found
        pass
    return found


def _key_packets(packets: Sequence[_FoundPacket], first_second: float | None) -> list[int]:
    """Where decoding may begin: from the first key packet on; of a part, from the last one before its beginning on."""
    keys = [number for number, packet in enumerate(packets) if packet.is_key] or [0]
    if first_second is None:
        return keys
    before = [n for n, key in enumerate(keys) if (packets[key].seconds or 0.0) <= first_second]
    return keys[max(before, default=0) :]


def _read(packets: Sequence[_FoundPacket], file: BinaryIO) -> Iterator[bytes]:
    for packet in packets:
        file.seek(packet.offset)
        yield file.read(packet.size)


def _fingerprint(planes: Planes) -> Fingerprint:
    y, u, v = planes
    return zlib.crc32(y.data), zlib.crc32(u.data), zlib.crc32(v.data)
