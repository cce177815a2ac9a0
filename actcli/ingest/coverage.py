"""Whether a file delivers all that it holds: its whole declared length, without a hole.

A file that was cut off often just ends, and a demuxer that meets damaged bytes looks for the next place where it can go
on; neither reports anything. Two facts give them away:

- the declared length. AVI is the worst, its demuxer corrects it to what is there; the frame count in its header
  remains. Empty chunks make packets fewer than that count in healthy AVIs, so time is compared, not packets.
- bytes of the file that belong to no packet, at a place where video time is missing as well. Either alone is sound: a
  picture that stands still leaves a gap in time, and tags, indexes and padding leave one in bytes.
"""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from actcli.ingest.failure import ClipFailure

_DECLARING_CONTAINERS = frozenset({"mp4", "matroska", "avi", "asf", "flv"})
"""Containers whose header states the length; for others libav estimates it from what is there."""
_STREAMED_CONTAINERS = frozenset({"mpegts", "mpeg"})
"""Containers that may begin and end anywhere, as recordings do."""
_MISSING_FRAMES, _MISSING_SHARE = 4, 0.05
"""A file counts as truncated if it lacks more than both of its declared length."""
_OWN_BYTES = {"matroska": 1024, "flv": 512, "mpegts": 512, "avi": 16, "mpeg": 32768, "asf": 32768, "ogg": 32768}
"""Container to the bytes between two packets that are its own (headers, padding); more at a gap in time is a hole.

Not here: mp4, whose index lists every packet, so that damage shows in the packets themselves.
"""
_PAGED_CONTAINERS = frozenset({"mpeg", "asf", "ogg"})
"""Packets lie in pages here, and the packet after a hole may still have the time of a page before it."""
_SYNC_BYTE, _TS_PACKETS = 0x47, (188, 192, 204)
_SYNC_SEARCH_BYTES = 1 << 22


class Coverage:
    """How much of its declared length a file delivers, fed with its packets in the order of the file."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._path = Path(container.name)
        self._stream = stream
        self._step = 1 / float(stream.average_rate or stream.guessed_rate or 25)
        containers = set(container.format.name.split(","))
        self._is_avi, self._is_ts = "avi" in containers, "mpegts" in containers
        self._is_matroska = "matroska" in containers
        self._is_paged = bool(containers & _PAGED_CONTAINERS)
        self._declared = _declared_seconds(container, stream) if containers & _DECLARING_CONTAINERS else 0.0
        self._own_bytes = next((size for name, size in _OWN_BYTES.items() if name in containers), None)
        # A container's length is that of its longest stream, and a byte may belong to any of them: look at all.
        looks_at_all = stream.duration is None or self._own_bytes is not None
        self.streams: list[Any] = list(container.streams) if looks_at_all else [stream]
        self.may_end_anywhere = bool(containers & _STREAMED_CONTAINERS)
        """Whether the last picture may be cut, as in a recording."""
        self._time_bases = [(one.time_base or Fraction(1)).as_integer_ratio() for one in container.streams]
        self._num_listed = stream.frames if "mp4" in containers else 0
        self._num_packets = self._num_shown = 0
        self._has_key_packet = False  # demuxers may pass over what stands before it
        self._begin: float | None = None
        self._end = 0.0
        self._last_video = 0.0
        self._last_shown = 0.0
        self._longest_gap = self._longest_jump = self._step
        self._covered_until: int | None = None
        self._last_pos = -1
        self._lost: tuple[int, int] | None = None
        self._lost_before: tuple[int, int] | None = None
        self._has_broken_chunks = False

    def add(self, packet: Any) -> None:
        """Count one packet.

        Raises:
            ClipFailure: The demuxer marked the packet as cut off, or something before it is lost.
        """
        if not packet.size:
            return
        # MPEG-TS marks every jump of its packet counter, broadcast glitches and joined files included.
        if packet.is_corrupt and not self._is_ts:
            raise ClipFailure("decode", "TruncatedVideo", f"the file breaks off inside a frame after {self}")
        if self._own_bytes is not None:
            self._count_bytes(packet, self._own_bytes)
        pts, dts = packet.pts, packet.dts
        time = dts if pts is None else pts
        if time is None:
            return
        base = self._time_bases[packet.stream_index]
        seconds = _seconds(time, base)
        if packet.stream is self._stream:
            self._num_shown += not packet.is_discard  # an edit list hides some
            self._count_time(seconds if dts is None else _seconds(dts, base), seconds, packet.is_keyframe)
        self._begin = seconds if self._begin is None else min(self._begin, seconds)
        length = _seconds(packet.duration, base) if packet.duration else self._step
        self._end = max(self._end, seconds + length)

    def _count_bytes(self, packet: Any, own_bytes: int) -> None:
        """Note the bytes since the packet before that belong to none."""
        begin, pos = self._covered_until, packet.pos
        if pos is None or pos < 0:
            return
        if pos == self._last_pos and begin is not None:  # laced: several packets in one block
            self._covered_until = begin + packet.size
            return
        self._last_pos = pos
        if begin is not None and pos - begin > own_bytes:
            self._lost = (self._lost[0] if self._lost else begin, pos)
            if self._is_avi:
                self._has_broken_chunks = self._has_broken_chunks or not _are_chunks(self._path, begin, pos)
        self._covered_until = max(begin or 0, pos + packet.size)

    def _count_time(self, order: float, shown: float, is_key: bool) -> None:
        """Note one video packet with its times of decoding and showing in seconds."""
        gap = order - self._last_video if self._num_packets else 0.0
        # Matroska stores no decoding times; what libav guesses runs on evenly over a hole.
        jump = max(0.0, shown - self._last_shown) if self._is_matroska else gap
        usual = self._longest_jump if self._is_matroska else self._step
        lost = self._lost or self._lost_before
        if lost and jump > 1.5 * usual and self._has_key_packet and self._is_hole(*lost):
            raise self._hole_failure(jump, *lost)
        self._longest_jump = max(self._longest_jump, jump if self._num_packets else 0.0)
        self._last_shown = max(self._last_shown, shown)
        self._lost_before = self._lost if self._is_paged else None
        self._lost = None
        self._has_key_packet = self._has_key_packet or is_key
        self._longest_gap = max(self._longest_gap, gap)
        self._last_video = order
        self._num_packets += 1

    def _hole_failure(self, seconds: float, begin: int, end: int) -> ClipFailure:
        place = f"where bytes {begin} to {end} are damaged"
        return ClipFailure("decode", "MissingFrames", f"{seconds:.2f} seconds of video are lost {place}, after {self}")

    def _is_hole(self, begin: int, end: int) -> bool:
        if self._is_avi:  # its times are made from the index and from counts: see ``check``
            return False
        return not self._is_ts or _has_lost_sync(self._path, begin, end)

    def check(self, num_frames: int) -> None:
        """Raise ``ClipFailure`` if something of the declared length is missing; ``num_frames`` were decoded."""
        missing = self._declared - (self._end - (self._begin or 0.0))
        tolerated = 1.5 * max(self._longest_gap, self._step)
        if self._num_packets >= self._num_listed:  # an mp4 lists its frames; edits may hide some, but not shorten it
            tolerated = max(tolerated, _MISSING_FRAMES * self._step, _MISSING_SHARE * self._declared)
        if missing > tolerated:
            raise ClipFailure("decode", "TruncatedVideo", f"the file ends after {self}")
        silent = self._end - self._last_shown
        if self._lost and silent > _MISSING_FRAMES * self._step and self._is_hole(*self._lost):
            raise self._hole_failure(silent, *self._lost)
        if self._has_broken_chunks and self._num_packets < self._stream.frames:
            raise ClipFailure(
                "decode",
                "MissingFrames",
                f"the file lists {self._stream.frames} frames, and {self._num_packets} are whole",
            )
        if self._stream.codec_context.codec.canonical_name == "av1" and num_frames < self._num_shown:
            # each packet of AV1 shows one picture, but its decoder passes over damaged ones without a word
            raise ClipFailure("decode", "MissingFrames", f"{self._num_shown} packets gave {num_frames} pictures")

    def __str__(self) -> str:
        seconds = f"{self._end - (self._begin or 0.0):.2f}"
        return f"{seconds} of {self._declared:.2f} seconds" if self._declared else f"{seconds} seconds"


def _seconds(ticks: int, time_base: tuple[int, int]) -> float:
    """Ticks times a fraction, rounded once."""
    numerator, denominator = time_base
    return ticks * numerator / denominator


def stream_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Length of the stream, or else of its container, or else 0."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _declared_seconds(container: InputContainer, stream: VideoStream) -> float:
    """Length of the video as its header states it; 0 where it does not."""
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        return stream.frames / float(stream.average_rate)
    return stream_seconds(container, stream)


def _has_lost_sync(path: Path, begin: int, end: int) -> bool:
    """Whether the bytes ``begin`` to ``end`` (exclusive, where a packet begins) are no chain of MPEG-TS packets."""
    with path.open("rb") as file:
        file.seek(begin)
        data = file.read(min(end - begin, _SYNC_SEARCH_BYTES))
    chains = [data[offset % size :: size] for size in _TS_PACKETS for offset in (end - begin, end - begin + 4)]
    return not any(set(chain) == {_SYNC_BYTE} for chain in chains)


def _are_chunks(path: Path, begin: int, end: int) -> bool:
    """Whether the bytes ``begin`` to ``end`` (exclusive) of an AVI are whole chunks: padding, indexes, others."""
    position = begin + begin % 2
    with path.open("rb") as file:
        while position + 8 < end:
            file.seek(position)
            header = file.read(8)
            if not header[:4].replace(b" ", b"").isalnum():
                return False
            is_list = header[:4] in (b"LIST", b"RIFF")
            size = int.from_bytes(header[4:], "little")
            position += 12 if is_list else 8 + size + size % 2
    return True
