"""Video files to upright, square-pixel, full-range YUV planes.

JPEG stores BT.601 YCbCr at full range with halved chroma, and so do nearly all videos but for range and matrix. The
decoded planes therefore go to the JPEG encoder as planes: no RGB in between.

- Size: FFmpeg's scaler with its usual filter (bicubic, wider where pictures are reduced), as ``ffmpeg -vf scale``, and
  with the flags under which it gives the same bytes on every machine. Other pixel formats than 8 bit 4:2:0 (10 bit,
  4:2:2, 4:4:4, RGB, grey) are turned into that on the way.
- Range: a gain and an offset on streams that are not marked full range.
- Matrix: streams marked BT.709, BT.2020, SMPTE 240M or FCC are turned into BT.601 (one 2×2 matrix on the small chroma
  planes and one correction of luma). Unmarked streams are left as they are, as every extraction by ffmpeg left them.
"""

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import av
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from actcli.ingest.container import MAX_PIXELS, MAX_SIDE, open_container
from actcli.ingest.coverage import Coverage, stream_seconds
from actcli.ingest.failure import ClipFailure
from actcli.ingest.sizing import DecodeSettings, target_size

Plane = NDArray[np.uint8]
Planes = tuple[Plane, Plane, Plane]
"""Y ``[H, W]`` and U, V ``[H/2, W/2]``; H and W even."""

DECODER = f"pyav {av.__version__}"

_KR_KB = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
"""Luma weights of red and blue by the stream's matrix number (ITU-T H.273) where they are not BT.601's."""
_KR_KB_601 = (0.299, 0.114)
_UNTRIMMED_SLACK_SECONDS = 2.0
SCALER = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
"""FFmpeg's usual filter, with the flags under which it promises the same bytes on every machine."""


class VideoClip:
    """One clip of a video file; iterating over it decodes, and may raise ``ClipFailure`` at any frame.

    Args:
        path: The file.
        settings: Size and frame rate.
        start: First second, where the file is a longer video. A file hardly longer than ``end - start`` is taken for
            the trimmed clip itself, and both are ignored.
        end: End in seconds, exclusive.

    Raises:
        ClipFailure: The file cannot be opened or holds no video.
    """

    def __init__(
        self, path: Path, settings: DecodeSettings, start: float | None = None, end: float | None = None
    ) -> None:
        self._settings = settings
        self._container, self._stream = open_container(path)
        self._range = _untrimmed_range(self._container, self._stream, start, end)
        self._origin = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        self.fps = float(settings.fps or self._stream.average_rate or self._stream.guessed_rate or 0)
        self._step = 1 / float(self._stream.average_rate or self._stream.guessed_rate or 25)
        self._maker: PlaneMaker | None = None

    @property
    def first_second(self) -> float | None:
        """Where the clip begins in the time of the stream; None where the file is the clip."""
        return self._origin + self._range[0] if self._range else None

    @property
    def repeats_pictures(self) -> bool:
        """Whether a picture may be several frames, because a rate was asked for."""
        return self._settings.fps is not None

    def __enter__(self) -> "VideoClip":
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[Planes]:
        """All frames in presentation order, all of the size that the first one has after resizing."""
        for _, frame in self.frames():
            yield self.planes(frame)

    def frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """Every frame as it was decoded, and its time in seconds from the start of the stream."""
        frames = self._timed_frames()
        return _resample(frames, self._settings.fps, self._step) if self._settings.fps else frames

    def planes(self, frame: VideoFrame) -> Planes:
        """What the clip's frame is made of; the first frame decides on the size of all."""
        turn = Turn.of(frame)
        if self._maker is None:
            self._maker = PlaneMaker(self._target_size(frame, turn))
        return self._maker.planes(frame, turn)

    def _timed_frames(self) -> Iterator[tuple[float, VideoFrame]]:
        """Seconds from the start of the stream, and frame."""
        begin, end = self._range or (0.0, None)
        time = -self._step
        for frame in self._decode(self._origin + begin):
            time = frame.time - self._origin if frame.time is not None else time + self._step
            if end is not None and time >= end:
                return
            if not self._range or time >= begin:
                yield time, frame

    def _decode(self, seek_seconds: float) -> Iterator[VideoFrame]:
        """All frames from the key frame before ``seek_seconds``; damage after the first key frame is a failure."""
        coverage = Coverage(self._container, self._stream)
        num_frames = 0
        try:
            if self._range:
                self._container.seek(int(seek_seconds * av.time_base), backward=True)
            for frame in _sound_frames(self._packets(coverage), coverage):
                num_frames += 1
                yield frame
        except (av.FFmpegError, OSError) as error:
            raise _decode_failure(error, coverage) from None
        if not self._range:
            coverage.check(num_frames)

    def _packets(self, coverage: Coverage) -> "Iterator[Packet[VideoStream]]":
        packets = cast("Iterator[Packet[VideoStream]]", self._container.demux(coverage.streams))
        for packet in packets:
            coverage.add(packet)
            if packet.stream is self._stream:
                yield packet

    def _target_size(self, frame: VideoFrame, turn: "Turn") -> tuple[int, int]:
        aspect = float(self._stream.sample_aspect_ratio or 1) or 1.0
        width, height = (round(frame.width * aspect), frame.height)
        size = target_size(*((height, width) if turn.swaps_sides else (width, height)), self._settings)
        if max(size) > MAX_SIDE or size[0] * size[1] > MAX_PIXELS:
            raise ClipFailure("decode", "PictureTooLarge", f"frames of {size[0]}x{size[1]} pixels are refused")
        return size


@dataclass(frozen=True)
class Turn:
    """How a decoded picture is laid upright: its sides swapped, then mirrored."""

    swaps_sides: bool = False
    """Rows become columns."""
    mirrors_x: bool = False
    """Left and right are exchanged."""
    mirrors_y: bool = False
    """Top and bottom are exchanged."""

    @property
    def number(self) -> int:
        """0 to 7: 1 swaps sides, 2 mirrors x, 4 mirrors y."""
        return self.swaps_sides + 2 * self.mirrors_x + 4 * self.mirrors_y

    @staticmethod
    def numbered(number: int) -> "Turn":
        """The turn of that ``number``."""
        return Turn(bool(number & 1), bool(number & 2), bool(number & 4))

    @staticmethod
    def of(frame: VideoFrame) -> "Turn":
        """What the display matrix of a decoded picture asks for, rounded to quarter turns.

        The matrix is ``[a b u; c d v; x y w]``: column p and row q of the picture are shown at (a p + c q, b p + d q).
        """
        side_data = frame.side_data.get("DISPLAYMATRIX") if len(frame.side_data) else None
        if side_data is None:
            return UPRIGHT
        a, b, _, c, d = np.frombuffer(cast(Any, side_data), np.int32)[:5].tolist()
        if abs(b) > abs(a):
            return Turn(True, c < 0, b < 0)
        return Turn(False, a < 0, d < 0)

    def apply(self, plane: Plane) -> Plane:
        """The plane as it is shown."""
        upright = plane.T if self.swaps_sides else plane
        return upright[:: -1 if self.mirrors_y else 1, :: -1 if self.mirrors_x else 1]


UPRIGHT = Turn()
"""Of pictures that are stored as they are shown."""


class PlaneMaker:
    """Makes planes of one size of decoded pictures.

    Args:
        size: Width and height of the planes as they are shown.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self._size = size
        self._scaler = VideoReformatter()

    def planes(self, frame: VideoFrame, turn: Turn) -> Planes:
        """A decoded picture upright at full range; a surplus of one pixel is cropped, not resampled."""
        width, height = self._size[::-1] if turn.swaps_sides else self._size
        form, matrix = frame.format, int(frame.colorspace)
        is_full = form.is_rgb or frame.color_range == ColorRange.JPEG or form.name.startswith("yuvj")
        is_fitting = 0 <= frame.width - width <= 1 and 0 <= frame.height - height <= 1
        if not is_fitting or form.name not in ("yuv420p", "yuvj420p"):
            size = (frame.width, frame.height) if is_fitting else (width, height)
            frame = self._scaled(frame, size, is_full)
        planes = plane_arrays(frame, width, height)
        if not is_full:
            planes = list(map(_to_full_range, planes, TO_FULL_RANGE))
        if not form.is_rgb and (weights := _KR_KB.get(matrix)):
            planes = _to_601(planes, weights)
        if turn != UPRIGHT:
            planes = [turn.apply(plane) for plane in planes]
        y, u, v = map(np.ascontiguousarray, planes)
        return y, u, v

    def _scaled(self, frame: VideoFrame, size: tuple[int, int], is_full: bool) -> VideoFrame:
        """8 bit 4:2:0 in width and height ``size``; RGB becomes BT.601 at full range.

        The scaler could bring the rest to full range too, but puts grey at 127.5 then, where JPEG has 128.
        """
        colour_range = ColorRange.JPEG if is_full else ColorRange.MPEG
        return self._scaler.reformat(
            frame,
            *size,
            format="yuv420p",
            interpolation=SCALER,
            src_color_range=colour_range,
            dst_color_range=colour_range,
            src_colorspace=frame.colorspace,
            dst_colorspace=Colorspace.ITU601 if frame.format.is_rgb else frame.colorspace,
            threads=1,
        )


def planes_to_rgb(planes: Planes) -> Plane:
    """RGB ``[H, W, 3]`` as a JPEG decoder makes it: chroma interpolated between its samples, BT.601 at full range."""
    y, u, v = planes
    size = (y.shape[1], y.shape[0])
    blue, red = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in (u, v))
    return _plane(cv2.cvtColor(cv2.merge([y, red, blue]), cv2.COLOR_YCrCb2RGB))


class DecodedPacket(NamedTuple):
    """What a packet gave."""

    number: int
    """Of the packet; the first is 1."""
    packet: "Packet[VideoStream]"
    """The packet; the last one, which is empty, ends the video."""
    frames: list[VideoFrame]
    """The pictures that came out when it went in."""


def decode_packets(packets: "Iterable[Packet[VideoStream]]") -> Iterator[DecodedPacket]:
    """Decode the packets of a container one after the other; those before the first key packet may give nothing.

    Raises:
        av.FFmpegError: The decoder refuses a packet from the first key packet on.
    """
    has_key_packet = False
    for number, packet in enumerate(packets, 1):
        has_key_packet = has_key_packet or packet.is_keyframe
        try:
            frames = packet.decode()
        except av.FFmpegError:
            if has_key_packet:
                raise
            continue
        yield DecodedPacket(number, packet, frames)


def _sound_frames(packets: "Iterable[Packet[VideoStream]]", coverage: Coverage) -> Iterator[VideoFrame]:
    """Decoded frames, up to the first damaged one after a key frame.

    What stands before the first key frame (a recording that begins anywhere, an open group of pictures) cannot be
    decoded, or not rightly, and is FFmpeg's to show or to drop. A recording may end inside its last picture.

    Raises:
        ClipFailure: A picture is damaged.
    """
    has_key_frame = False
    held: VideoFrame | None = None
    for _, packet, frames in decode_packets(packets):
        if held is not None and packet.size:
            raise ClipFailure("decode", "DamagedPicture", f"a picture is damaged after {coverage}")
        for frame in frames:
            has_key_frame = has_key_frame or bool(frame.key_frame)
            if held is not None:
                yield held
                held = None
            if frame.is_corrupt and has_key_frame:
                if not coverage.may_end_anywhere:
                    raise ClipFailure("decode", "DamagedPicture", f"a picture is damaged after {coverage}")
                held = frame
            else:
                yield frame
    if held is not None:
        yield held


def _decode_failure(error: Exception, coverage: Coverage) -> ClipFailure:
    """FFmpeg's error in words; many of its decoders return a number of the operating system that means nothing."""
    if isinstance(error, av.error.InvalidDataError):
        return ClipFailure("decode", "InvalidDataError", f"Invalid data found after {coverage}")
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return ClipFailure("decode", "MemoryError", f"the memory did not suffice after {coverage}")
    if getattr(error, "errno", None) == errno.EIO:
        return ClipFailure("decode", "TruncatedVideo", f"the file breaks off or cannot be read after {coverage}")
    return ClipFailure("decode", "DamagedPicture", f"the decoder gave up after {coverage}")


def _untrimmed_range(
    container: InputContainer, stream: VideoStream, start: float | None, end: float | None
) -> tuple[float, float] | None:
    """The range to cut out, or None where the file is the clip."""
    if start is None or end is None:
        return None
    return (start, end) if stream_seconds(container, stream) > end - start + _UNTRIMMED_SLACK_SECONDS else None


def _resample(
    frames: Iterator[tuple[float, VideoFrame]], fps: float, last_seconds: float
) -> Iterator[tuple[float, VideoFrame]]:
    """At each instant k / fps after the first frame, the frame on screen then; the last one stays ``last_seconds``."""
    ahead = next(frames, None)
    begin, count = (ahead[0] if ahead else 0.0), 0
    while ahead:
        time, frame = ahead
        ahead = next(frames, None)
        until = ahead[0] if ahead else time + last_seconds
        while (instant := begin + count / fps) < until - 1e-6:
            yield instant, frame
            count += 1


def plane_arrays(frame: VideoFrame, width: int, height: int) -> list[Plane]:
    """Views of Y ``[height, width]`` and of U and V, which have half of both, without what is beyond that."""
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    planes: Iterable[Any] = frame.planes  # buffers, which their stub does not say
    return [
        np.ndarray(shape, np.uint8, plane, strides=(plane.line_size, 1))
        for plane, shape in zip(planes, shapes, strict=True)
    ]


_weigh = cast("Callable[[Plane, float, Plane, float, float], Plane]", cv2.addWeighted)
"""OpenCV's sum of two planes with weights and an offset: bytes in, bytes out."""


def _plane(image: Any) -> Plane:
    """OpenCV's result as the type that it has: bytes in, bytes out."""
    return cast(Plane, image)


TO_FULL_RANGE = (
    (255 / 219, -16 * 255 / 219),  # 16 to 235 become 0 to 255
    *[(255 / 224, 128 - 128 * 255 / 224 - 1e-4)] * 2,  # 16 to 240 about 128; level 16 comes to 0.5, and shall be 0
)
"""Gain and offset of Y, U and V; the results are rounded and clipped. Half the time of a look-up table."""


def _to_full_range(plane: Plane, scale: tuple[float, float]) -> Plane:
    """The plane times a gain, with an offset."""
    gain, offset = scale
    return _weigh(plane, gain, plane, 0, offset)


@lru_cache
def _matrix_to_601(weights: tuple[float, float]) -> NDArray[np.float32]:
    """``[3, 3]``: from (U, V, 1) to what Y gains, plus 128, and to the new U and V; all are bytes at full range."""
    kr, kb = weights
    kg = 1 - kr - kb
    red, blue = (1, 0, 2 * (1 - kr)), (1, 2 * (1 - kb), 0)
    green = (1, -2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg)
    to_rgb = np.array([red, green, blue])
    kr, kb = _KR_KB_601
    luma = np.array([kr, 1 - kr - kb, kb])
    to_blue = (np.array([0, 0, 1]) - luma) / (2 * (1 - kb))
    to_red = (np.array([1, 0, 0]) - luma) / (2 * (1 - kr))
    of_chroma = (np.stack([luma, to_blue, to_red]) @ to_rgb)[:, 1:]  # Y itself passes unchanged
    offset = 128 - of_chroma.sum(1) * 128  # U and V carry + 128, and so shall the results
    return np.column_stack([of_chroma, offset]).astype(np.float32)


def _to_601(planes: list[Plane], weights: tuple[float, float]) -> list[Plane]:
    """Full-range planes from the matrix with luma weights ``weights`` to BT.601."""
    y, u, v = planes
    gain, new_u, new_v = cv2.split(cv2.transform(cv2.merge([u, v]), _matrix_to_601(weights)))
    gain = _plane(cv2.resize(gain, (y.shape[1], y.shape[0]), interpolation=cv2.INTER_LINEAR))
    return [_weigh(y, 1, gain, 1, -128), _plane(new_u), _plane(new_v)]
