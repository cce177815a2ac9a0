"""What every rule for choosing frames is made of: plain integers, no pixels.

A rule maps ``(num_frames, num_segments, stack, rng)`` to frame indices ``[clips, segments]``, 0-based. ``stack`` is the
number of consecutive frames or flow fields that one segment reads (1 for RGB, 5 for the flow of TSN and TSM).

The rules themselves, ours and those of the published code, are in ``actcli.loaders.originals``, a file per code base.
An original may ask for a frame that does not exist; ``Sampling.request`` returns such a number as it is,
``Sampling.sample`` returns frame 0 in its place, because that is what the originals load then.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from typing import Protocol as TypingProtocol

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError

Indices = NDArray[np.int64]
Spread = Literal["segments", "dense"]
"""Whether frames come from the whole of a video or from a window of it."""


class Rng(TypingProtocol):
    """The two draws that sampling needs; ``numpy.random.Generator`` has them."""

    def integers(self, low: int, high: int, size: int | None = None) -> NDArray[np.int64]:
        """Uniform integers in ``low..high - 1``."""
        ...

    def permutation(self, x: int) -> NDArray[np.int64]:
        """``0..x - 1`` in random order."""
        ...


Rule = Callable[[int, int, int, Rng], Indices]


@dataclass(frozen=True)
class Sampling:
    """One way of choosing the frames of a clip."""

    name: str
    """What the user types."""
    num_test_clips: int
    """Clips that one video gives; 1 in training."""
    random: bool
    """Whether the frames are drawn anew each time."""
    rule: Rule
    """Frames as requested, ``[num_test_clips, num_segments]``; may lie outside the video."""
    spread: Spread = "segments"
    """Which of our own samplings is of the same kind, and stands in where the original defines no test."""

    def request(self, num_frames: int, num_segments: int, rng: Rng, stack: int = 1) -> Indices:
        """Frames as the rule asks for them, ``[num_test_clips, num_segments]``; also -1, ``num_frames`` and above.

        Raises:
            ActcliError: The original code fails there.
        """
        if num_frames < 1 or num_segments < 1 or stack < 1:
            raise ActcliError(
                f"sampling needs at least one frame, segment and stack; got {num_frames}, {num_segments}, {stack}."
            )
        return self.rule(num_frames, num_segments, stack, rng)

    def sample(self, num_frames: int, num_segments: int, rng: Rng, stack: int = 1) -> Indices:
        """Frames to read, ``[num_test_clips, num_segments]``, each within ``0..num_frames - 1``.

        A request outside the video becomes frame 0, as in the originals, which load their first frame then.
        """
        frames = self.request(num_frames, num_segments, rng, stack)
        inside: Indices = np.where((frames >= 0) & (frames < num_frames), frames, 0)
        return inside


# --- From a frame to what is read there -------------------------------------------------------------------------------


def expand_stack(starts: Indices, stack: int, num_frames: int) -> Indices:
    """``stack`` consecutive frames from each start, the last one repeated at the end of the video.

    ``starts [...]`` -> ``[..., stack]``. Source: TSM, ``ops/dataset.py`` ``get``, which counts up to the last frame.

    6 frames, starts 0 and 4, stack 3 -> 0 1 2, 4 5 5
    """
    frames: Indices = np.minimum(starts[..., None] + np.arange(stack), num_frames - 1)
    return frames


def surrounding_stack(centres: Indices, stack: int, num_fields: int) -> Indices:
    """``stack`` flow fields around each frame, ``centre - stack // 2 .. centre + stack // 2 - 1``, within the video.

    ``centres [...]`` -> ``[..., stack]``. Source: ST-MulNet, ``lib/data/temporal_sampling.py`` ``generate_flow_list``:
    ten fields, from five before to four after.

    20 fields, centre 7, stack 10 -> . . o o o o o o o o o o . . . . . . . .
    """
    fields: Indices = np.clip(centres[..., None] + np.arange(stack) - stack // 2, 0, num_fields - 1)
    return fields


# --- What several rules share -----------------------------------------------------------------------------------------


def steps(num_frames: float, num_segments: int, phase: float) -> Indices:
    """``int(t * phase + t * i)`` with ``t = num_frames / num_segments``, truncated toward zero, ``[segments]``.

    7 frames, 3 segments, phase 0.5 -> [1, 3, 5]     . o . o . o .
    7 frames, 3 segments, phase 0   -> [0, 2, 4]     o . o . o . .
    """
    t = num_frames / num_segments
    frames: Indices = np.trunc(t * phase + t * np.arange(num_segments)).astype(np.int64)
    return frames


def uniform(phases: tuple[float, ...], num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """A clip per phase; phase 0.5 is the middle of each segment, 0 its beginning. See ``steps``."""
    return np.stack([steps(num_frames - stack + 1, num_segments, phase) for phase in phases])


def first_frames(num_frames: int, num_segments: int) -> Indices:
    """0, 1, 2, … with the last frame repeated, ``[1, segments]``.

    3 frames, 5 segments -> [0, 1, 2, 2, 2]
    """
    frames: Indices = np.minimum(np.arange(num_segments), num_frames - 1)[None]
    return frames


def draw_per_segment(length: int, num_segments: int, rng: Rng) -> Indices:
    """One frame of each segment of ``length`` frames, ``[1, segments]``; what is left at the end is never drawn.

    7 frames, 3 segments of 2 -> one of 0..1, one of 2..3, one of 4..5     [o o] [o o] [o o] .
    """
    return (np.arange(num_segments) * length + rng.integers(0, length, num_segments))[None]


def wrapped(starts: Indices, stride: int, num_frames: int, num_segments: int) -> Indices:
    """Frames ``stride`` apart from each start, beginning again at frame 0 after the last, ``[starts, segments]``.

    7 frames, 4 segments, stride 3, start 1 -> [1, 4, 0, 3]     o o . o o . .
    """
    return (starts[:, None] + stride * np.arange(num_segments)) % num_frames


def random_start(num_starts: int, rng: Rng) -> Indices:
    """One start, ``[1]``; the originals never draw the last admissible one."""
    return np.zeros(1, np.int64) if num_starts == 1 else rng.integers(0, num_starts - 1, 1)


def no_answer(sampler: str, num_frames: int, num_segments: int) -> ActcliError:
    """The error where an original code fails."""
    return ActcliError(
        f"{sampler} has no answer for {num_frames} frames and {num_segments} segments; the original code fails there. "
        "Use sampling segments (--sampling segments), or leave such short clips out."
    )
