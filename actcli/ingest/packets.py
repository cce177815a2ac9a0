"""Pictures from the packets of a video: one decoder, no container.

FFmpeg's demuxers never see the file here, nor anything that it might lead to. The one exception are files whose
containers hold no packets in one piece; they are read as the container that their index names, and as no other.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from actcli.errors import ActcliError
from actcli.facts import Sizes
from actcli.ingest.container import decoder_options
from actcli.ingest.decode import PlaneMaker, Planes, Turn, decode_packets
from actcli.ingest.video_index import CONTAINERS, DECODERS, DecoderSetup, VideoIndex

Bytes = bytes | memoryview

_ROUNDED_UP = 256
"""Decoders ask for sides that are larger by block and border, by at most this many pixels."""

_PADDING = 64
"""FFmpeg's ``AV_INPUT_BUFFER_PADDING_SIZE``."""


class Output(NamedTuple):
    """One picture as a decoder gives it."""

    frame: VideoFrame
    """The picture; of packets its ``pts`` is the number of the packet that it was in."""
    num_packets: int
    """Packets that the decoder had been given when it came."""


def read_planes(
    video: VideoIndex,
    packet_sizes: Sizes,
    frames: Sequence[int],
    size: tuple[int, int],
    read: Callable[[int, int], Bytes],
) -> Iterator[Planes]:
    """Frames of a video, upright and ``size`` (width, height) large.

    Args:
        video: How they are read.
        packet_sizes: Bytes of each packet.
        frames: Which of them, ascending.
        size: Width and height of the frames.
        read: Gives bytes of the file: from which one on, and how many.

    Raises:
        ActcliError: The bytes do not give these frames.
    """
    places = list(zip(video.packet_offsets(packet_sizes).tolist(), packet_sizes.tolist(), strict=True))
    for stretch in video.stretches(np.array(frames, np.int64), len(places)):
        packets = [read(*place) for place in places[stretch.first : stretch.end]]
        yield from decode_planes(video.setup(), packets, stretch.wanted, size, is_whole=video.is_whole)


def decode_planes(
    setup: DecoderSetup, packets: Sequence[Bytes], wanted: Sequence[int], size: tuple[int, int], *, is_whole: bool
) -> Iterator[Planes]:
    """Frames of one stretch, upright and ``size`` (width, height) large.

    Args:
        setup: What the decoder has to know.
        packets: Those of the stretch; the file where it is read whole.
        wanted: Pictures in the order in which they come, the first being 0; ascending.
        size: Width and height of the frames.
        is_whole: Whether ``packets`` is the file.

    Raises:
        ActcliError: The bytes do not give these pictures.
    """
    left, turn, maker = list(reversed(wanted)), Turn.numbered(setup.turn), PlaneMaker(size)
    with _decoder_trouble():
        for number, output in enumerate(file_outputs(setup, packets[0]) if is_whole else outputs(setup, packets)):
            if left and left[-1] == number:
                planes = maker.planes(output.frame, turn)
            while left and left[-1] == number:
                left.pop()
                yield planes
            if not left:
                return
    if left:
        raise ActcliError(f"the video ends before its picture {left[-1]}")


def outputs(setup: DecoderSetup, packets: Iterable[Bytes], first: int = 0) -> Iterator[Output]:
    """Everything that the packets of a stretch give, the first of them having the number ``first``."""
    decoder = _open_decoder(setup)
    count = 0
    for count, data in enumerate(packets, 1):
        packet = _padded(data)
        packet.pts = packet.dts = first + count - 1
        for frame in decoder.decode(packet):
            yield Output(frame, count)
    for frame in decoder.decode(None):
        yield Output(frame, count)


def file_outputs(setup: DecoderSetup, data: Bytes) -> Iterator[Output]:
    """Everything that a whole file gives; what stands before the first key packet may be no picture."""
    form = CONTAINERS[setup.container]
    with av.open(io.BytesIO(data), "r", format=form, metadata_errors="ignore") as container:
        stream = _checked_stream(container, setup)
        for count, _, frames in decode_packets(container.demux(stream)):
            for frame in frames:
                yield Output(frame, count)


def _padded(data: Bytes) -> "Packet[Any]":
    """A packet with zeros behind its bytes; ``Packet(data)`` has what lies there in memory, and decoders read it."""
    packet: Packet[Any] = Packet(len(data))
    packet.update(bytes(data))
    return packet


@contextmanager
def _decoder_trouble() -> Iterator[None]:
    """What FFmpeg makes of damage, in a sentence."""
    try:
        yield
    except (av.FFmpegError, ValueError, LookupError, ArithmeticError, MemoryError) as error:
        if isinstance(error, ActcliError):
            raise
        raise ActcliError(f"the video cannot be decoded ({error})") from error


def _open_decoder(setup: DecoderSetup) -> VideoCodecContext:
    decoder = VideoCodecContext.create(DECODERS[setup.codec], "r")
    assert isinstance(decoder, VideoCodecContext)
    if setup.extradata:
        header = bytes.fromhex(setup.extradata)
        decoder.extradata = header + bytes(_PADDING)  # stays behind the header as what decoders read beyond it;
        decoder.extradata = header  # PyAV leaves whatever was in that memory
    decoder.width, decoder.height = setup.picture_width, setup.picture_height
    decoder.color_range, decoder.colorspace = setup.colour_range, setup.colour_matrix
    decoder.thread_count = 1
    decoder.options = _options(setup) | {"has_b_frames": str(setup.reorder)}
    return decoder


def _options(setup: DecoderSetup) -> dict[str, str]:
    """A decoder takes memory for no larger pictures than the index says."""
    return decoder_options((setup.picture_width + _ROUNDED_UP) * (setup.picture_height + _ROUNDED_UP))


def _checked_stream(container: InputContainer, setup: DecoderSetup) -> VideoStream:
    stream = container.streams.best("video")
    context = stream.codec_context if isinstance(stream, VideoStream) else None
    if not isinstance(stream, VideoStream) or context is None:
        raise ActcliError("the file holds no video")
    found = (context.codec.canonical_name, context.width, context.height)
    if found != (setup.codec, setup.picture_width, setup.picture_height):
        raise ActcliError("the video is {} of {} x {} pixels, the index says otherwise".format(*found))
    context.thread_count = 1
    context.options = _options(setup)
    return stream
