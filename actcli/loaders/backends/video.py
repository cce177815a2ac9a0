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
from actcli.loaders.views import Size

_CODECS = ("h264", "vp9")
"""H.264 is what we write; VP9 is what DALI decodes without a GPU too."""
_MACROBLOCK = 32
"""H.264 stores sides rounded up to macroblocks, or to pairs of them."""

Pixels = NDArray[np.uint8]


def decode_frames(payload: bytes | memoryview, frames: Iterable[int], size: Size) -> Iterator[Pixels]:
    """RGB pictures ``[H, W, 3]`` of ``frames``, which are positions in presentation order, ascending.

    Decoding starts at the nearest key frame before a wanted frame, unless the decoder is already past that. The bytes
    are taken for MP4 and nothing else, whatever they look like.

    Raises:
        ActcliError: The video is damaged, has fewer frames or another size.
    """
    try:
        with av.open(io.BytesIO(payload), "r", format="mp4") as container:
            stream = _checked_stream(container, size)
            yield from _decode(container, stream, list(frames))
    except ActcliError:
        raise
    except (av.FFmpegError, ValueError, LookupError, ArithmeticError, MemoryError) as error:  # what damage gives
        raise ActcliError(f"the video cannot be decoded ({error})") from error


def _checked_stream(container: InputContainer, size: Size) -> VideoStream:
    """The video stream, which takes no more memory than ``size`` needs."""
    if len(container.streams.video) != 1:
        raise ActcliError(f"the video has {len(container.streams.video)} video streams")
    stream = container.streams.video[0]
    codec = stream.codec_context
    if codec is None:
        raise ActcliError("the video is of an unknown codec")
    if codec.name not in _CODECS or (codec.width, codec.height) != size:
        raise ActcliError(
            f"the video is {codec.name} of {codec.width} x {codec.height} pixels; {' or '.join(_CODECS)} of "
            f"{size.width} x {size.height} is what the index allows"
        )
    codec.options = {"max_pixels": str((size.width + _MACROBLOCK) * (size.height + _MACROBLOCK))}
    return stream


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
