"""What came of a clip: a line of the ledger, a row of the manifest, a line in the closing table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Literal

from actcli.facts import NO_SIZES, Sizes, plain, read_facts
from actcli.ingest.failure import ClipFailure
from actcli.ingest.records import printable
from actcli.ingest.video_index import VideoIndex

LEFT_FOR_LATER = "LeftForLater"
"""Error of a clip that counts as missing because this run was asked for others."""
Status = Literal["ok", "failed", "missing"]
"""What can come of a clip."""

_COUNTS_END = 1 << 62
_KEY_DIGITS = 9


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ClipOutcome:
    """What came of one clip. Ledger and manifest have these fields under these names."""

    key: str
    """Nine digits: position of the clip in the official list."""
    source_id: str
    """Name of the clip in the official list, printable."""
    status: Status
    """``ok``, ``failed`` or ``missing``."""
    stage: str = ""
    """Where it failed: find, open, decode, index, flow or worker."""
    error: str = ""
    """Type of the error."""
    message: str = ""
    """The error in words, or what is odd about a clip that was kept."""
    num_frames: int = 0
    """Frames, or flow fields."""
    width: int = 0
    """Pixels."""
    height: int = 0
    """Pixels."""
    fps: float = 0.0
    """Frames a second, 0 where unknown."""
    frame_sizes: Sizes = field(default_factory=lambda: NO_SIZES)
    """Bytes of each JPEG, flow having two a field (x, y); or of each packet of the video."""
    bytes: int = 0
    """Bytes of all JPEGs, or of the video file."""
    checksum: str = ""
    """SHA-256 of all JPEGs one after the other, or of the video file, in hex."""
    decoder: str = ""
    """What decoded it, with its version."""
    partial: bool = False
    """Whether it was kept although it broke."""
    bound: float = 0.0
    """Quantisation bound of flow in pixels; 0 for rgb."""
    video: VideoIndex | None = None
    """How the frames are read from the video itself, where that is kept in place of JPEGs."""

    @property
    def is_ok(self) -> bool:
        """Whether there are frames of it."""
        return self.status == "ok"

    @property
    def is_missing(self) -> bool:
        """Whether the clip is not there to be extracted."""
        return self.status == "missing"

    @property
    def is_left(self) -> bool:
        """Whether the clip counts as missing because it was left for a later run."""
        return self.error == LEFT_FOR_LATER

    @staticmethod
    def lost(key: str, source_id: str, failure: ClipFailure) -> "ClipOutcome":
        """The outcome of a clip of which nothing is kept."""
        is_missing = failure.stage == "find" and failure.error == "FileNotFoundError"
        return ClipOutcome(
            key=key,
            source_id=source_id,
            status="missing" if is_missing else "failed",
            stage=failure.stage,
            error=failure.error,
            message=printable(failure.message),
        )

    def to_json(self) -> dict[str, object]:
        """The fields of a ledger line: those that are not what they are by default."""
        line = {
            name: value
            for name, value, usual in zip(_PLAIN, _plain_values(self), _USUAL, strict=True)
            if value != usual
        }
        line |= {"frame_sizes": self.frame_sizes.tolist()} if len(self.frame_sizes) else {}
        return line | {"video": plain(self.video)} if self.video else line

    @staticmethod
    def from_json(line: Mapping[str, object]) -> "ClipOutcome":
        """What a ledger line says.

        Raises:
            ValueError: It cannot be the outcome of a clip.
        """
        outcome = ClipOutcome(**read_facts(ClipOutcome, line, FIELD_NAMES))
        _check(outcome)
        return outcome


FIELD_NAMES = tuple(fact.name for fact in fields(ClipOutcome))
"""Names of all fields, in order."""
_PLAIN = tuple(name for name in FIELD_NAMES if name not in ("frame_sizes", "video"))
_USUAL = tuple(fact.default for fact in fields(ClipOutcome) if fact.name in _PLAIN)
_plain_values = attrgetter(*_PLAIN)


def _check(outcome: ClipOutcome) -> None:
    counts = (outcome.num_frames, outcome.width, outcome.height, outcome.bytes)
    if min(counts) < 0 or max(counts) >= _COUNTS_END or not math.isfinite(outcome.fps + outcome.bound):
        raise ValueError("no such number")
    if not (len(outcome.key) == _KEY_DIGITS and outcome.key.isascii() and outcome.key.isdecimal()):
        raise ValueError("no such clip")
    if not outcome.is_ok:
        if not outcome.stage or not outcome.error:
            raise ValueError("no reason")
        return
    if outcome.video:
        outcome.video.check(outcome.frame_sizes, outcome.num_frames, outcome.bytes)
        return
    planes = 2 if outcome.bound else 1
    total = int(outcome.frame_sizes.sum(dtype="int64"))
    if total != outcome.bytes or len(outcome.frame_sizes) != planes * outcome.num_frames or not outcome.num_frames:
        raise ValueError("the sizes do not add up")
