"""Where the packets of a video lie in its file, and which of them a frame needs: plain integers, nothing is decoded.

A *packet* holds one coded picture, mostly. Decoding can begin at a *key packet*; a *stretch* is the packets from one on
that are decoded one after the other. A *picture* is what the decoder gives; a *frame* is what the extraction keeps,
which is nearly always each picture once.

    packets        K p b b p | K p b b p          key_packets   0 5
    pictures       0 1 2 3 4 | 5 6 7 8 9          key_pictures  0 5
    frame 3 with delay 2: packets 0 to 4 (end = 0 + 3 + 2), the picture number 3 of what comes out
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from actcli.facts import NO_GAPS, NO_PLACES, NO_TIMES, Gaps, Places, Sizes, Times, read_facts
from actcli.ingest.container import MAX_PIXELS

CONTAINERS: Mapping[str, str] = {
    "mp4": "mov",
    "mov": "mov",
    "m4v": "mov",
    "3gp": "mov",
    "mkv": "matroska",
    "webm": "matroska",
    "avi": "avi",
    "flv": "flv",
    "ts": "mpegts",
    "mpg": "mpeg",
    "wmv": "asf",
    "ogv": "ogg",
}
"""Suffix of a stored file to FFmpeg's name of its container; the first of each is the one that it gets by default."""
DECODERS: Mapping[str, str] = {
    "h264": "h264",
    "hevc": "hevc",
    "av1": "libdav1d",
    "vp9": "vp9",
    "vp8": "vp8",
    "mpeg4": "mpeg4",
    "mpeg2video": "mpeg2video",
    "mpeg1video": "mpeg1video",
    "msmpeg4v1": "msmpeg4v1",
    "msmpeg4v2": "msmpeg4v2",
    "msmpeg4v3": "msmpeg4",
    "wmv1": "wmv1",
    "wmv2": "wmv2",
    "h263": "h263",
    "flv1": "flv",
    "mjpeg": "mjpeg",
    "theora": "theora",
}
"""FFmpeg's name of a codec to that of the decoder that is opened for it; no other is opened."""
MAX_EXTRADATA = 1 << 16
"""Bytes of the largest header of a codec; usual are 50."""
_MAX_REORDER = 16


@dataclass(frozen=True, eq=False, kw_only=True)
class DecoderSetup:
    """What a decoder has to know before the first packet."""

    container: str
    """Suffix of the file, which stands for its container: ``mp4``, ``webm``, ``avi``, …; see ``CONTAINERS``."""
    codec: str
    """FFmpeg's name of the codec: ``h264``, ``vp9``, ``mpeg4``, …; see ``DECODERS``."""
    extradata: str
    """The codec's header from the container, in hex."""
    colour_range: int
    """As the container states it: 0 nothing, 1 limited, 2 full."""
    colour_matrix: int
    """As the container states it: a matrix of ITU-T H.273; 2 nothing."""
    reorder: int
    """Pictures that may come out in another order than they are stored in, as FFmpeg found it for the whole file."""
    picture_width: int
    """Pixels of a coded picture, before it is turned and resized."""
    picture_height: int
    """Pixels of a coded picture."""
    turn: int
    """How pictures are laid upright, ``Turn.number``: 1 swaps sides, 2 mirrors x, 4 mirrors y, in this order."""


class Stretch(NamedTuple):
    """Packets that are decoded one after the other, and which of the pictures are wanted that come out."""

    first: int
    """The first packet."""
    end: int
    """The packet after the last one."""
    wanted: list[int]
    """Pictures in the order in which they come, the first being 0; ascending, one may be wanted several times."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoIndex(DecoderSetup):
    """Everything that is needed to decode single frames of a video file from the bytes of some of its packets.

    The sizes of the packets are kept beside it, as ``frame_sizes``. Where a container does not hold packets in one
    piece (MPEG-TS), the whole file is the only packet, and ``key_packets`` is empty.
    """

    delay: int = 1
    """The decoder has given n pictures of a stretch after at most n − 1 + ``delay`` packets of it."""
    packet_gaps: Gaps = field(default_factory=lambda: NO_GAPS)
    """Bytes from the end of the packet before (of the first one: from the beginning of the file) to each packet."""
    key_packets: Places = field(default_factory=lambda: NO_PLACES)
    """Packets at which decoding can begin."""
    key_pictures: Places = field(default_factory=lambda: NO_PLACES)
    """The picture that comes out first there."""
    frame_pictures: Places = field(default_factory=lambda: NO_PLACES)
    """The picture that each frame is; empty where frame *i* is picture *i*."""
    frame_times: Times = field(default_factory=lambda: NO_TIMES)
    """When each frame is shown, in microseconds from the first one; empty where frame *i* is shown at *i* / fps."""

    @staticmethod
    def of(value: Mapping[str, object]) -> "VideoIndex":
        """The index that ``facts.plain`` made plain.

        Raises:
            ValueError: A field is not there, or is not of its type.
        """
        return VideoIndex(**read_facts(VideoIndex, value, _NAMES))

    @property
    def is_whole(self) -> bool:
        """Whether the file has to be read whole."""
        return not len(self.key_packets)

    def setup(self) -> DecoderSetup:
        """What the decoder has to know, without the rest."""
        return DecoderSetup(**{fact.name: getattr(self, fact.name) for fact in fields(DecoderSetup)})

    def packet_offsets(self, sizes: Sizes) -> NDArray[np.int64]:
        """First byte of each packet in the file, given their sizes."""
        ends: NDArray[np.int64] = np.cumsum(sizes.astype(np.int64) + self.packet_gaps, dtype=np.int64)
        return ends - sizes

    def stretches(self, frames: NDArray[np.int64], num_packets: int) -> list[Stretch]:
        """The packets that give ``frames``, which ascend."""
        pictures = self.frame_pictures[frames].astype(np.int64) if len(self.frame_pictures) else frames
        if self.is_whole:
            return [Stretch(0, 1, pictures.tolist())]
        at = np.searchsorted(self.key_pictures, pictures, side="right") - 1
        found = []
        for number in np.unique(at).tolist():
            wanted = pictures[at == number] - int(self.key_pictures[number])
            first = int(self.key_packets[number])
            found.append(Stretch(first, min(first + int(wanted[-1]) + self.delay, num_packets), wanted.tolist()))
        return found

    def check(self, sizes: Sizes, num_frames: int, num_bytes: int) -> None:
        """Compare every number with the others, and with the length of the file.

        Raises:
            ValueError: One is impossible.
        """
        _check_setup(self)
        if len(self.packet_gaps) != len(sizes) or not len(sizes):
            raise ValueError(f"it has {len(sizes)} packets and {len(self.packet_gaps)} places")
        offsets = self.packet_offsets(sizes)
        if int(offsets.min()) < 0 or int((offsets + sizes).max()) > num_bytes:
            raise ValueError("a packet lies outside of its file")
        if int(sizes.sum(dtype=np.int64)) > num_bytes:
            raise ValueError("its packets have more bytes than its file")
        if len(self.frame_pictures) not in (0, num_frames) or len(self.frame_times) not in (0, num_frames):
            raise ValueError("it has not one picture, or time, for each frame")
        if self.is_whole and (len(sizes), len(self.key_pictures)) != (1, 0):
            raise ValueError("it has no key packet")
        if self.delay < 1 or not _ascend(self.frame_pictures, 0) or not _ascend(self.key_pictures, 0):
            raise ValueError("its pictures are in no order")
        if not self.is_whole:
            self._check_keys(len(sizes))

    def _check_keys(self, num_packets: int) -> None:
        if len(self.key_packets) != len(self.key_pictures) or not _ascend(self.key_packets, 1):
            raise ValueError("its key packets are in no order")
        if self.key_packets[-1] >= num_packets or self.key_pictures[0] != 0:
            raise ValueError("its key packets are not among its packets")


_NAMES = tuple(fact.name for fact in fields(VideoIndex))


def _ascend(places: Places, least: int) -> bool:
    return bool((np.diff(places.astype(np.int64)) >= least).all())


def _check_setup(setup: DecoderSetup) -> None:
    if setup.container not in CONTAINERS or setup.codec not in DECODERS:
        raise ValueError(f"{setup.codec!r} in {setup.container!r} is not known here")
    if len(setup.extradata) > 2 * MAX_EXTRADATA:
        raise ValueError("the header of its codec is too large")
    bytes.fromhex(setup.extradata)
    if min(setup.picture_width, setup.picture_height) < 1 or setup.picture_width * setup.picture_height > MAX_PIXELS:
        raise ValueError(f"its coded pictures have {setup.picture_width} x {setup.picture_height} pixels")
    if not 0 <= setup.colour_range <= 2 or not 0 <= setup.colour_matrix <= 255 or not 0 <= setup.turn <= 7:
        raise ValueError("its colour or turn is not known here")
    if not 0 <= setup.reorder <= _MAX_REORDER:
        raise ValueError(f"its decoder holds back {setup.reorder} pictures")
