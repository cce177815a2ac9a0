"""What a model says about videos that belong to no dataset: classes, and in long videos when."""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from actcli.engine.evaluator import published_views
from actcli.engine.hardware import Hardware, launch
from actcli.engine.protocols import AskedViews
from actcli.engine.scoring import score_split
from actcli.engine.splits import VIEWS_PER_STEP, open_test
from actcli.errors import ActcliError
from actcli.ingest.loose import SPLIT, FrameSettings, LooseClip, extract_loose, find_videos, video_seconds
from actcli.ingest.outcome import ClipOutcome
from actcli.models import VideoModel, WeightFacts, load_weights
from actcli.shards import ShardOptions, ShardSet, write_shards

_CLIP_TIMEOUT_SECONDS = 600.0
_MAX_WINDOWS = 100_000  # of a video: more than a day, one a second

Note = Callable[[str], None]


@dataclass(frozen=True)
class Guess:
    """A class and how likely it is."""

    class_name: str
    """Name of the class; its number where the weights hold no names."""
    probability: float
    """0..1."""


@dataclass(frozen=True)
class Prediction:
    """What a model says about a video, or about a part of it."""

    path: str
    """The file."""
    guesses: tuple[Guess, ...] = ()
    """The likeliest classes, likeliest first; none where the file cannot be read."""
    start: float | None = None
    """First second of the part; None for a whole video."""
    end: float | None = None
    """End of the part in seconds, exclusive."""
    problem: str = ""
    """Why the file could not be read."""


@dataclass(frozen=True)
class PredictOptions:
    """Which model, and how it looks at videos."""

    weights: Path
    """Safetensors file of actcli."""
    num_guesses: int | None = 5
    """Classes to name; all of them where it is None."""
    views: AskedViews = field(default_factory=AskedViews)
    """Clips, crops, size, scale and sampling; the published test unless given."""
    every_seconds: float | None = None
    """Look at a window of the video every so many seconds, in place of the whole."""
    window_seconds: float | None = None
    """Length of a window; that of the step unless given."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.num_guesses is not None and self.num_guesses < 1:
            raise ActcliError(f"num_guesses is {self.num_guesses}; it has to be at least 1.")
        for name, value in (("every_seconds", self.every_seconds), ("window_seconds", self.window_seconds)):
            if value is not None and not value > 0:
                raise ActcliError(f"{name} is {value}; it has to be more than 0.")
        if self.window_seconds is not None and self.every_seconds is None:
            raise ActcliError("window_seconds belongs to every_seconds; give both.")


@dataclass(frozen=True)
class _Network:
    """A model with what its weights say about it."""

    model: VideoModel
    facts: WeightFacts
    classes: tuple[str, ...]


def predict(
    paths: Sequence[Path | str],
    options: PredictOptions,
    hardware: Hardware | None = None,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    note: Note = lambda _: None,
) -> list[Prediction]:
    """Classify videos with the very frames, crops and normalisation of an evaluation.

    Args:
        paths: Files, and folders whose videos are taken.
        options: Which model, and how.
        hardware: Where; this machine's GPU or CPU unless given.
        progress: Called with (stage, done, total).
        note: Told what the user should know.

    Returns:
        One prediction per video, or per window; a file that cannot be read is one with its ``problem``.

    Raises:
        ActcliError: There are no videos, the weights cannot be read, or the model needs optical flow.
    """
    hardware = hardware or Hardware()
    model, facts = load_weights(options.weights)
    if model.input_spec.modality != "rgb":
        raise ActcliError(
            f"{model.config['name']} sees {model.input_spec.modality}, and predict makes RGB frames only. Extract the "
            f"videos as a dataset with --modality flow, and evaluate."
        )
    videos = find_videos(map(Path, paths))
    if not videos:
        where = ", ".join(map(str, paths)) or "what was given"
        raise ActcliError(f"there is no video in {where}. Name files, or a folder with videos.")
    if facts.get("extraction") is None:
        note("the weights do not say how their frames were made; taking a short side of 256 pixels")
    clips = [clip for video in videos for clip in _windows(video, options)]
    network = _Network(model, facts, class_names_of(model, facts))
    tell = progress or (lambda *_: None)
    read = partial(tell, "read videos")
    with packed_videos(clips, facts, network.classes, hardware, read) as (shards, outcomes):
        guesses = {} if shards is None else _scores(shards, network, options, hardware, tell, note)
    return [
        Prediction(str(clip.path), guesses.get(number, ()), clip.start, clip.end, _problem(outcome))
        for number, (clip, outcome) in enumerate(zip(clips, outcomes, strict=True))
    ]


def predict_videos(
    videos: Sequence[Path | str],
    weights: Path | str,
    *,
    num_guesses: int = 5,
    every_seconds: float | None = None,
    window_seconds: float | None = None,
) -> list[Prediction]:
    """``actcli.predict``: classify videos with the frames, crops and normalisation of an evaluation.

    Args:
        videos: Files, and folders whose videos are taken.
        weights: Safetensors file of actcli, such as ``runs/<name>/checkpoints/best.safetensors``.
        num_guesses: Classes to name, likeliest first.
        every_seconds: Look at a window of each video every so many seconds, in place of the whole.
        window_seconds: Length of a window; that of the step unless given.

    Returns:
        A prediction for each video, or window; a file that cannot be read is one with its ``problem``.

    Raises:
        ActcliError: There are no videos, the weights cannot be read, or the model needs optical flow.
    """
    options = PredictOptions(Path(weights), num_guesses, every_seconds=every_seconds, window_seconds=window_seconds)
    return predict(videos, options)


def class_names_of(model: VideoModel, facts: WeightFacts) -> tuple[str, ...]:
    """Names of the classes; their numbers where the weights hold no names."""
    return tuple(facts.get("classes") or (str(label) for label in range(model.num_classes)))


@contextmanager
def packed_videos(
    clips: Sequence[LooseClip],
    facts: WeightFacts,
    classes: Sequence[str],
    hardware: Hardware,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[ShardSet | None, list[ClipOutcome]]]:
    """Videos as shards that last as long as the ``with`` block, their frames made as ``facts`` say.

    The position of a clip is its key. There are no shards where no clip can be read; the outcomes say why.
    """
    with tempfile.TemporaryDirectory(prefix="actcli-") as folder:
        frames, packed = Path(folder) / "frames", Path(folder) / "shards"
        frames.mkdir()
        outcomes = extract_loose(
            clips,
            frames,
            FrameSettings.of(facts.get("extraction")),
            classes,
            workers=max(1, hardware.workers),
            timeout=_CLIP_TIMEOUT_SECONDS,
            progress=progress,
        )
        if not any(outcome.is_ok for outcome in outcomes):
            yield None, outcomes
            return
        write_shards(ShardOptions(frames, packed))
        yield ShardSet.open(str(packed)), outcomes


def merge_windows(predictions: Sequence[Prediction], num_guesses: int) -> list[Prediction]:
    """Neighbouring windows of a video with the same likeliest class as one, its probabilities the means.

    Segments that overlap share that time at its middle: 0-3, 2-5, 4-7  ->  0-2.5, 2.5-4.5, 4.5-7.

    Args:
        predictions: Of windows in the order of time, naming all classes (a mean over the likeliest alone is none).
        num_guesses: Classes to name of each segment.
    """
    groups = groupby(predictions, key=lambda one: (one.path, one.guesses[0].class_name if one.guesses else one))
    merged = [_segment(tuple(windows), num_guesses) for _, windows in groups]
    for number, (one, other) in enumerate(pairwise(merged)):
        if one.path == other.path and one.end is not None and other.start is not None and one.end > other.start:
            middle = (one.end + other.start) / 2
            merged[number] = replace(merged[number], end=middle)
            merged[number + 1] = replace(other, start=middle)
    return merged


def _segment(windows: Sequence[Prediction], num_guesses: int) -> Prediction:
    sums: Counter[str] = Counter()
    for window in windows:
        sums.update({guess.class_name: guess.probability for guess in window.guesses})
    guesses = tuple(Guess(name, total / len(windows)) for name, total in sums.most_common(num_guesses))
    return replace(windows[0], guesses=guesses, end=windows[-1].end)


def _windows(video: Path, options: PredictOptions) -> list[LooseClip]:
    """The whole video, or its windows: every 2 s, 3 s long, of 7 s  ->  0-3, 2-5, 4-7, 6-7."""
    if options.every_seconds is None:
        return [LooseClip(video)]
    seconds = video_seconds(video)
    if seconds is None:
        return [LooseClip(video)]  # extraction says what is wrong with it
    length = options.window_seconds or options.every_seconds
    if seconds / options.every_seconds > _MAX_WINDOWS:
        raise ActcliError(
            f"{video} lasts {seconds:g} seconds by its header, which is more than {_MAX_WINDOWS:,} windows; make the "
            f"step longer (--every)."
        )
    starts = np.arange(0, max(seconds - 1e-6, 1e-6), options.every_seconds)
    return [LooseClip(video, float(start), float(min(start + length, seconds))) for start in starts]


def _problem(outcome: ClipOutcome) -> str:
    return "" if outcome.is_ok else outcome.message or outcome.error


def _scores(
    shards: ShardSet,
    network: _Network,
    options: PredictOptions,
    hardware: Hardware,
    tell: Callable[[str, int, int], None],
    note: Note,
) -> dict[int, tuple[Guess, ...]]:
    """The likeliest classes of each clip, by its key."""
    fabric = launch(hardware, "32-true")
    model = network.model
    views = published_views(options.views, model, network.facts, note)
    loader = open_test(
        shards,
        SPLIT,
        "1",
        views,
        model.input_spec,
        replace(hardware, workers=0),
        fabric,
        num_frames=model.num_frames,
        batch_size=max(1, VIEWS_PER_STEP // views.num_views),
    )
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    with loader:
        scores = score_split(
            model, loader, model.input_spec, fabric, progress=lambda done, total: tell("classify", done, total)
        )
    probabilities = softmax(scores.logits, axis=1)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : options.num_guesses]
    return {
        int(key): tuple(Guess(network.classes[label], float(row[label])) for label in labels)
        for key, row, labels in zip(scores.keys, probabilities, best, strict=True)
    }
