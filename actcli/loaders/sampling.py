"""Which frames of a video make a clip: pure integer rules, ours and those of the published code.

Every rule maps ``(num_frames, num_segments, stack, rng)`` to frame indices ``[clips, segments]``, 0-based. ``stack`` is
the number of consecutive frames or flow fields that one segment reads (1 for RGB, 5 for the flow of TSN and TSM).

Our own rules, ``segments`` and ``dense``, spread the frames evenly whatever the length. The others are named
``<original>-<mode>`` and give that original's frames exactly, flaws included. An original may ask for a frame that
does not exist; ``Sampling.request`` returns such a number as it is, ``Sampling.sample`` returns frame 0 in its place,
because that is what the originals load then.

Sources: TSM ``ops/dataset.py``, GSM and GSF ``dataset.py``, MAS-Net (a copy of TSM), TokShift ``data/dataset.py``,
ST-MulNet ``lib/data/temporal_sampling.py``; the rules are restated here from their behaviour.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol as TypingProtocol

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError

Indices = NDArray[np.int64]


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
    num_clips: int
    """Clips that one video gives."""
    random: bool
    """Whether the frames are drawn anew each time."""
    rule: Rule
    """Frames as requested, ``[num_clips, num_segments]``; may lie outside the video."""

    @property
    def original(self) -> str | None:
        """The published code base whose rule this is, or ``None`` for ours."""
        head = self.name.partition("-")[0]
        return head if head in ORIGINALS else None

    def request(self, num_frames: int, num_segments: int, rng: Rng, stack: int = 1) -> Indices:
        """Frames as the rule asks for them, ``[num_clips, num_segments]``; -1 or ``num_frames`` and above may occur.

        Raises ``ActcliError`` where the original code fails.
        """
        if num_frames < 1 or num_segments < 1 or stack < 1:
            raise ActcliError(
                f"sampling needs at least one frame, segment and stack; got {num_frames}, {num_segments}, {stack}."
            )
        return self.rule(num_frames, num_segments, stack, rng)

    def sample(self, num_frames: int, num_segments: int, rng: Rng, stack: int = 1) -> Indices:
        """Frames to read, ``[num_clips, num_segments]``, each within ``0..num_frames - 1``.

        A request outside the video becomes frame 0, as in the originals, which load their first frame then.
        """
        frames = self.request(num_frames, num_segments, rng, stack)
        inside: Indices = np.where((frames >= 0) & (frames < num_frames), frames, 0)
        return inside


def expand_stack(starts: Indices, stack: int, num_frames: int) -> Indices:
    """``stack`` consecutive frames from each start, the last one repeated at the end of the video.

    ``starts [...]`` -> ``[..., stack]``. Source: TSM counts up from the start and stops counting at the last frame.
    """
    frames: Indices = np.minimum(starts[..., None] + np.arange(stack), num_frames - 1)
    return frames


def surrounding_stack(centres: Indices, stack: int, num_fields: int) -> Indices:
    """``stack`` flow fields around each frame, ``centre - stack // 2 .. centre + stack // 2 - 1``, within the video.

    ``centres [...]`` -> ``[..., stack]``. Source: ST-MulNet reads ten fields, from five before to four after.
    """
    fields: Indices = np.clip(centres[..., None] + np.arange(stack) - stack // 2, 0, num_fields - 1)
    return fields


# --- Ours -------------------------------------------------------------------------------------------------------------


def _segments_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """One frame from each of ``num_segments`` equal parts, every frame of the video equally likely.

    4 frames, 2 segments -> one of 0..1, one of 2..3.     2 frames, 4 segments -> 0 0 1 1.
    """
    starts = max(num_frames - stack + 1, 1)
    edges = np.arange(num_segments) * starts
    return ((edges + rng.integers(0, starts, num_segments)) // num_segments)[None]


def _segments_even(num_clips: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Evenly spaced frames; clip ``k`` takes the ``(2 k + 1) / (2 num_clips)`` point of every segment.

    7 frames, 3 segments, 1 clip -> [1, 3, 5]      . o . o . o .
    """
    starts = max(num_frames - stack + 1, 1)
    points: Indices = 2 * num_clips * np.arange(num_segments) + (2 * np.arange(num_clips) + 1)[:, None]
    frames: Indices = points * starts // (2 * num_clips * num_segments)
    return frames


_DENSE_WINDOW = 64


def _dense_window(num_frames: int, num_segments: int, starts: Indices) -> Indices:
    window = min(_DENSE_WINDOW, num_frames)
    return starts[:, None] + np.arange(num_segments) * window // num_segments


def _dense_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Evenly spaced frames of a random window of 64 frames, or of the whole of a shorter video."""
    num_starts = max(num_frames - _DENSE_WINDOW, 0) + 1
    return _dense_window(num_frames, num_segments, rng.integers(0, num_starts, 1))


def _dense_even(num_clips: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """Evenly spaced frames of ``num_clips`` windows of 64 frames spread over the video; one clip sits in the middle."""
    last_start = max(num_frames - _DENSE_WINDOW, 0)
    starts = np.arange(num_clips) * last_start // (num_clips - 1) if num_clips > 1 else np.array([last_start // 2])
    return _dense_window(num_frames, num_segments, starts)


# --- Uniform sampling of TSM, GSM, GSF and MAS-Net --------------------------------------------------------------------


def _steps(num_frames: float, num_segments: int, phase: float) -> Indices:
    """``int(t * phase + t * i)`` with ``t = num_frames / num_segments``, truncated toward zero, ``[segments]``."""
    t = num_frames / num_segments
    steps: Indices = np.trunc(t * phase + t * np.arange(num_segments)).astype(np.int64)
    return steps


def _first_frames(num_frames: int, num_segments: int) -> Indices:
    """0, 1, 2, … with the last frame repeated, ``[1, segments]``."""
    frames: Indices = np.minimum(np.arange(num_segments), num_frames - 1)[None]
    return frames


def _draw_per_segment(length: int, num_segments: int, rng: Rng) -> Indices:
    return (np.arange(num_segments) * length + rng.integers(0, length, num_segments))[None]


def _tsm_random(sorted_from: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """A draw per segment of whole frames; ``sorted_from`` is the stack up to which a short video is drawn sorted."""
    starts = num_frames - stack + 1
    length = starts // num_segments
    if length > 0:
        return _draw_per_segment(length, num_segments, rng)
    if num_frames - min(stack, sorted_from) + 1 > num_segments:
        if starts < 1:
            raise _fails("TSM's training sampler", num_frames, num_segments)
        return np.sort(rng.integers(0, starts, num_segments))[None]
    return np.zeros((1, num_segments), np.int64)


def _tsm_val(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    if num_frames > num_segments + stack - 1:
        return _uniform((0.5,), num_frames, num_segments, stack, rng)
    return np.zeros((1, num_segments), np.int64)


def _uniform(phases: tuple[float, ...], num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """A clip per phase; phase 0.5 is the middle of each segment, 0 its beginning."""
    return np.stack([_steps(num_frames - stack + 1, num_segments, phase) for phase in phases])


def _gsf_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    if num_frames < num_segments:
        return _uniform((0.5,), num_frames, num_segments, 1, rng)
    return _draw_per_segment(num_frames // num_segments, num_segments, rng)


def _gsf_ten_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    return np.concatenate([_random_or_first(num_frames, num_segments, rng) for _ in range(10)])


def _random_or_first(num_frames: int, num_segments: int, rng: Rng) -> Indices:
    if num_frames < num_segments:
        return _first_frames(num_frames, num_segments)
    return _draw_per_segment(num_frames // num_segments, num_segments, rng)


def _gsf_sparse_video(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    return _tsm_val(num_frames, num_segments, 1, rng) + 1  # counts from one twice


# --- GSF's strided sampling, five frames apart ------------------------------------------------------------------------

_INTERVAL = 5


def _interval_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    num_starts = num_frames - _INTERVAL * (num_segments - 1) - 1
    if num_starts <= 0:
        return _random_or_first(num_frames, num_segments, rng)
    return rng.integers(0, num_starts, 1)[:, None] + _INTERVAL * np.arange(num_segments)


def _interval_centre(num_frames: int, num_segments: int, start: int) -> Indices:
    if start > 0:
        return (start + _INTERVAL * np.arange(num_segments))[None]
    if num_frames > num_segments:
        return _steps(num_frames, num_segments, 0.5)[None]
    return _first_frames(num_frames, num_segments)


def _interval_val(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    start = (num_frames - 1) // 2 - _INTERVAL * (num_segments // 2 - 1) - 2
    return _interval_centre(num_frames, num_segments, start)


def _interval_test_one(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    num_frames -= 1
    start = num_frames // 2 - _INTERVAL * (num_segments // 2 - 1) - 1
    return _interval_centre(num_frames, num_segments, start)


def _interval_test_two(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    num_frames -= 1
    last_start = num_frames - _INTERVAL * (num_segments - 1) - 1
    if last_start > 0:
        starts = np.linspace(1, last_start, 2).astype(np.int64)
        return starts[:, None] + _INTERVAL * np.arange(num_segments) - 1  # the original forgets to count from one
    return np.repeat(_interval_centre(num_frames, num_segments, 0) - 1, 2, axis=0)


# --- Dense sampling ---------------------------------------------------------------------------------------------------


def _wrapped(starts: Indices, stride: int, num_frames: int, num_segments: int) -> Indices:
    """Frames ``stride`` apart from each start, beginning again at frame 0 after the last."""
    return (starts[:, None] + stride * np.arange(num_segments)) % num_frames


def _tsm_dense(
    starts: Callable[[int, Rng], Indices], num_frames: int, num_segments: int, stack: int, rng: Rng
) -> Indices:
    num_starts = max(1, 1 + num_frames - _DENSE_WINDOW)
    return _wrapped(starts(num_starts, rng), _DENSE_WINDOW // num_segments, num_frames, num_segments)


def _random_start(num_starts: int, rng: Rng) -> Indices:
    """One start; the originals never draw the last admissible one."""
    return np.zeros(1, np.int64) if num_starts == 1 else rng.integers(0, num_starts - 1, 1)


def _middle_start(num_starts: int, rng: Rng) -> Indices:
    return np.array([(num_starts - 1) // 2])


def _ten_starts(num_starts: int, rng: Rng) -> Indices:
    return np.linspace(0, num_starts - 1, 10).astype(np.int64)


def _masnet_dense(
    num_clips: int, to_integer: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    num_frames: int, num_segments: int, stack: int, rng: Rng,
) -> Indices:  # fmt: skip
    """A uniform sample shifted by ``num_clips`` phases.

    ``to_integer``: since numpy 1.20 the starts are rounded down, before they were rounded toward zero.
    """
    t = num_frames / num_segments
    starts = to_integer(np.linspace(0, t - 1, num_clips))
    return np.trunc(t * np.arange(num_segments) + starts[:, None]).astype(np.int64)


# --- TokShift ---------------------------------------------------------------------------------------------------------

_TOKSHIFT_STRIDE = 32


def _tokshift_num_starts(num_frames: int, num_segments: int) -> int:
    return max(num_frames - num_segments * _TOKSHIFT_STRIDE + 1, 1)


def _tokshift_dense_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    start = _random_start(_tokshift_num_starts(num_frames, num_segments), rng)
    return _wrapped(start, _TOKSHIFT_STRIDE, num_frames, num_segments)


def _tokshift_dense_even(num_clips: int, num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    num_starts = _tokshift_num_starts(num_frames, num_segments)
    starts = np.trunc(np.arange(num_clips) * num_frames / num_clips).astype(np.int64)
    starts = np.minimum(starts, num_starts) if num_starts > 1 else np.zeros(num_clips, np.int64)
    return _wrapped(starts, _TOKSHIFT_STRIDE, num_frames, num_segments)


def _tokshift_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    if num_frames < num_segments:
        raise _fails("TokShift's uniform training sampler", num_frames, num_segments)
    return _draw_per_segment(num_frames // num_segments, num_segments, rng)


def _tokshift_uniform(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    return _uniform((0.5,), num_frames, num_segments, 1, rng) - 1


def _tokshift_twice(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    first = _tokshift_uniform(num_frames, num_segments, 1, rng)
    return np.concatenate([first, np.full_like(first, first[0, -1])])


# --- ST-MulNet: room for five flow fields before and after each frame -------------------------------------------------

_MARGIN = 5
_STMULNET_STRIDE = 5
_MOST_FILLED = 21


def _inner_points(num_frames: int, num_points: int) -> NDArray[np.float64]:
    return np.linspace(_MARGIN, num_frames - _MARGIN, num_points)


def _inner_grid(num_frames: int, stride: int) -> NDArray[np.float64]:
    return np.arange(_MARGIN, num_frames - _MARGIN + 1, stride).astype(np.float64)


def _fill(samples: NDArray[np.float64], num_frames: int, num_segments: int, rng: Rng) -> NDArray[np.float64]:
    """Adds random points of ever finer grids until there are enough; an even grid when too many are missing."""
    if not len(samples):
        raise _fails("ST-MulNet's sampler", num_frames, num_segments)
    if num_segments - len(samples) > _MOST_FILLED:
        return np.sort(np.round(_inner_points(num_frames, num_segments)))
    while len(samples) < num_segments:
        num_points = len(samples) + 1
        points = np.linspace(_MARGIN, num_frames - _MARGIN, num_points, endpoint=False)
        samples = np.append(samples, np.round(points[rng.integers(1, num_points, 1)]))
    return np.sort(samples)


def _stmulnet(
    grid: Callable[[int, int, Rng], NDArray[np.float64]], num_frames: int, num_segments: int, stack: int, rng: Rng
) -> Indices:
    """Points of a grid; too few are filled up at random, of too many a random window of neighbours is kept."""
    samples = grid(num_frames, num_segments, rng)
    if len(samples) < num_segments:
        samples = _fill(samples, num_frames, num_segments, rng)
    if len(samples) > num_segments:
        start = int(rng.integers(0, len(samples) - num_segments, 1)[0])
        samples = samples[start : start + num_segments]
    return _stmulnet_frames(samples, num_frames)


def _stmulnet_frames(samples: NDArray[np.float64], num_frames: int) -> Indices:
    if (np.diff(samples) < 0).any():
        raise _fails("ST-MulNet's sampler", num_frames, len(samples))
    if samples[-1] + _MARGIN >= num_frames:
        samples[-1] -= 2  # some flow folders lack the last field; only the last sample moves, as in the original
    return np.trunc(samples).astype(np.int64)[None]


def _uniform_grid(num_frames: int, num_segments: int, rng: Rng) -> NDArray[np.float64]:
    stride = max((num_frames - 2 * _MARGIN) // max(num_segments - 1, 1), 1)
    return _inner_grid(num_frames, stride)


def _strided_grid(num_frames: int, num_segments: int, rng: Rng) -> NDArray[np.float64]:
    grid = _inner_grid(num_frames, _STMULNET_STRIDE)
    return grid if len(grid) >= num_segments else np.round(_inner_points(num_frames, num_segments))


def _stmulnet_random(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    """``num_segments`` different frames of the inner part, in order."""
    population = max(num_frames - 2 * _MARGIN, 0)
    samples = (rng.permutation(population)[:num_segments] + _MARGIN).astype(np.float64)
    if len(samples) < num_segments:
        samples = _fill(samples, num_frames, num_segments, rng)
    return _stmulnet_frames(np.sort(samples), num_frames)


def _stmulnet_f25(num_frames: int, num_segments: int, stack: int, rng: Rng) -> Indices:
    if num_segments != 25:
        raise ActcliError(f"stmulnet-f25 always takes 25 frames, not {num_segments}. Use num_frames 25 (--frames 25).")
    return _stmulnet_frames(_inner_points(num_frames, 25), num_frames)


def _fails(sampler: str, num_frames: int, num_segments: int) -> ActcliError:
    return ActcliError(
        f"{sampler} has no answer for {num_frames} frames and {num_segments} segments; the original code fails there. "
        "Use sampling segments (--protocol segments), or leave such short clips out."
    )


# --- Names ------------------------------------------------------------------------------------------------------------

ORIGINALS = ("tsm", "gsm", "gsf", "masnet", "tokshift", "stmulnet")

_CENTRE = partial(_uniform, (0.5,))
_CENTRE_FIRST = partial(_uniform, (0.5, 0.0))
_START_FIRST = partial(_uniform, (0.0, 0.5))
_TSM_RANDOM = partial(_tsm_random, 1)  # a short video is drawn sorted when N > S, whatever the stack
_GSM_RANDOM = partial(_tsm_random, 10**9)  # … when N - stack + 1 > S
_DENSE_RANDOM = partial(_tsm_dense, _random_start)
_DENSE_TEN = partial(_tsm_dense, _ten_starts)

_NAMED = {
    sampling.name: sampling
    for sampling in (
        Sampling("tsm-train-uniform-random", 1, True, _TSM_RANDOM),
        Sampling("tsm-val", 1, False, _tsm_val),
        Sampling("tsm-test-1clip", 1, False, _CENTRE),
        Sampling("tsm-test-2clip-twice-sample", 2, False, _CENTRE_FIRST),
        Sampling("tsm-train-dense-random", 1, True, _DENSE_RANDOM),
        Sampling("tsm-val-dense-random", 1, True, _DENSE_RANDOM),
        Sampling("tsm-test-dense-10clip", 10, False, _DENSE_TEN),
        Sampling("gsm-train-uniform-random", 1, True, _GSM_RANDOM),
        Sampling("gsm-val", 1, False, _tsm_val),
        Sampling("gsm-test-1clip", 1, False, _CENTRE),
        Sampling("gsm-test-2clip", 2, False, _START_FIRST),
        Sampling("gsf-train-uniform-random", 1, True, _gsf_random),
        Sampling("gsf-val", 1, False, _CENTRE),
        Sampling("gsf-test-1clip", 1, False, _CENTRE),
        Sampling("gsf-test-2clip", 2, False, _START_FIRST),
        Sampling("gsf-test-10clip-random", 10, True, _gsf_ten_random),
        Sampling("gsf-test-dense-10clip", 10, False, _DENSE_TEN),
        Sampling("gsf-interval5-train-random", 1, True, _interval_random),
        Sampling("gsf-interval5-val", 1, False, _interval_val),
        Sampling("gsf-interval5-test-1clip", 1, False, _interval_test_one),
        Sampling("gsf-interval5-test-2clip", 2, False, _interval_test_two),
        Sampling("gsf-sparse-video-val", 1, False, _gsf_sparse_video),
        Sampling("masnet-train-uniform-random", 1, True, _TSM_RANDOM),
        Sampling("masnet-val", 1, False, _tsm_val),
        Sampling("masnet-test-1clip", 1, False, _CENTRE),
        Sampling("masnet-test-2clip-twice-sample", 2, False, _CENTRE_FIRST),
        Sampling("masnet-train-dense-random", 1, True, _DENSE_RANDOM),
        Sampling("masnet-val-dense", 1, False, partial(_tsm_dense, _middle_start)),
        Sampling("masnet-test-dense-4clip", 4, False, partial(_masnet_dense, 4, np.floor)),
        Sampling("masnet-test-dense-4clip-numpy-before-1-20", 4, False, partial(_masnet_dense, 4, np.trunc)),
        Sampling("masnet-test-dense-10clip", 10, False, partial(_masnet_dense, 10, np.floor)),
        Sampling("masnet-test-dense-10clip-numpy-before-1-20", 10, False, partial(_masnet_dense, 10, np.trunc)),
        Sampling("tokshift-train-dense-random", 1, True, _tokshift_dense_random),
        Sampling("tokshift-val-test-dense-1clip", 1, False, partial(_tokshift_dense_even, 1)),
        Sampling("tokshift-val-test-dense-10clip", 10, False, partial(_tokshift_dense_even, 10)),
        Sampling("tokshift-train-uniform-random", 1, True, _tokshift_random),
        Sampling("tokshift-val-uniform-1clip-as-coded", 1, False, _tokshift_uniform),
        Sampling("tokshift-val-uniform-twice-as-coded", 2, False, _tokshift_twice),
        Sampling("stmulnet-f25", 1, False, _stmulnet_f25),
        Sampling("stmulnet-uniform", 1, True, partial(_stmulnet, _uniform_grid)),
        Sampling("stmulnet-temporal-stride", 1, True, partial(_stmulnet, _strided_grid)),
        Sampling("stmulnet-random", 1, True, _stmulnet_random),
    )
}

# A family stands for what its original does in training and, by the number of clips, in the test.
_FAMILIES: dict[str, tuple[str, dict[int, str]]] = {
    "tsm": ("train-uniform-random", {1: "test-1clip", 2: "test-2clip-twice-sample"}),
    "tsm-dense": ("train-dense-random", {1: "val-dense-random", 10: "test-dense-10clip"}),
    "gsm": ("train-uniform-random", {1: "test-1clip", 2: "test-2clip"}),
    "gsf": ("train-uniform-random", {1: "test-1clip", 2: "test-2clip", 10: "test-10clip-random"}),
    "masnet": ("train-uniform-random", {1: "test-1clip", 2: "test-2clip-twice-sample"}),
    "masnet-dense": ("train-dense-random", {1: "val-dense", 4: "test-dense-4clip", 10: "test-dense-10clip"}),
    "tokshift": ("train-dense-random", {1: "val-test-dense-1clip", 10: "val-test-dense-10clip"}),
    "stmulnet": ("random", {1: "random"}),
}


def sampling_names() -> list[str]:
    """Everything that ``find_sampling`` understands: our two rules, the families, the single modes."""
    return ["segments", "dense", *_FAMILIES, *_NAMED]


def find_sampling(name: str, training: bool = False, num_clips: int = 1) -> Sampling:
    """The sampling called ``name``.

    ``segments`` and ``dense`` take any number of clips. A family (``tsm``, ``masnet-dense``, …) gives what that
    original does in training or with that many test clips. A full name (``gsf-test-2clip``) is one of its modes.

    Raises ``ActcliError`` for an unknown name, or a number of clips that the original does not have.
    """
    if name == "segments":
        rule = _segments_random if training else partial(_segments_even, num_clips)
        return Sampling(name, 1 if training else num_clips, training, rule)
    if name == "dense":
        rule = _dense_random if training else partial(_dense_even, num_clips)
        return Sampling(name, 1 if training else num_clips, training, rule)
    if name in _FAMILIES:
        return _NAMED[_family_member(name, training, num_clips)]
    if name not in _NAMED:
        raise ActcliError(f"unknown sampling {name!r}. Choose one of: {', '.join(sampling_names())}.")
    if _NAMED[name].num_clips != num_clips:
        raise ActcliError(
            f"{name} gives {_NAMED[name].num_clips} clips, not {num_clips}. "
            f"Use num_clips {_NAMED[name].num_clips} (--clips)."
        )
    return _NAMED[name]


def _family_member(name: str, training: bool, num_clips: int) -> str:
    train, test = _FAMILIES[name]
    original = name.partition("-")[0]
    if training:
        return f"{original}-{train}"
    if num_clips not in test:
        allowed = " or ".join(str(count) for count in test)
        raise ActcliError(
            f"{name} tests with {allowed} clips, not {num_clips}. Use one of these, or "
            "sampling segments (--protocol segments)."
        )
    return f"{original}-{test[num_clips]}"
