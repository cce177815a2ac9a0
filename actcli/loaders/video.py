"""Single frames of a short encoded video, exactly those that decoding the whole video gives."""

import io
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from actcli.errors import ActcliError

Pixels = NDArray[np.uint8]


def decode_frames(payload: bytes | memoryview, frames: Iterable[int]) -> Iterator[Pixels]:
    """RGB pictures ``[H, W, 3]`` of ``frames``, which are positions in presentation order, ascending.

    Decoding starts at the nearest key frame before a wanted frame, unless the decoder is already past that.

    Raises:
        ActcliError: The video is damaged or has fewer frames.
    """
    try:
        with av.open(io.BytesIO(payload), "r") as container:
            yield from _decode(container, container.streams.video[0], list(frames))
    except av.FFmpegError as error:
        raise ActcliError(f"the video cannot be decoded ({error})") from error


def _decode(container: InputContainer, stream: VideoStream, frames: list[int]) -> Iterator[Pixels]:
    stream.codec_context.thread_count = 1
    packets = [(packet.pts, packet.is_keyframe) for packet in container.demux(stream) if packet.pts is not None]
    times = sorted(time for time, _ in packets)
    key_times = sorted(time for time, is_key in packets if is_key)
    if frames and frames[-1] >= len(times):
        raise ActcliError(f"frame {frames[-1]} was asked for, the video has {len(times)}")
    decoder: Iterator[VideoFrame] = iter(())
    at: int | None = None  # presentation time of the newest decoded frame
    for wanted in (times[frame] for frame in frames):
        key_time = key_times[max(bisect_right(key_times, wanted) - 1, 0)]
        if at is None or key_time > at:
            container.seek(key_time, stream=stream, backward=True)
            decoder = container.decode(stream)
        for picture in decoder:
            at = picture.pts
            if at == wanted:
                pixels: Pixels = picture.to_ndarray(format="rgb24")  # type: ignore[assignment]
                yield pixels
                break
        else:
            raise ActcliError(f"the video ends before its frame at time {wanted}")
