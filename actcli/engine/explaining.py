"""What ``actcli cam`` does: film strips and short videos of where a model looked."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax

from actcli.engine.cam import heat_maps
from actcli.engine.drawing import Picture, enlarged, heated, strip, titled, write_picture, write_video
from actcli.engine.evaluator import published_views, scored_shards
from actcli.engine.hardware import Hardware, launch
from actcli.engine.inputs import model_inputs
from actcli.engine.prediction import class_names_of, packed_videos
from actcli.engine.protocols import AskedViews
from actcli.engine.results import read_metrics, read_scores
from actcli.engine.splits import open_test
from actcli.errors import ActcliError
from actcli.ingest.loose import SPLIT, LooseClip, find_videos
from actcli.loaders import Loader
from actcli.models import VideoModel, WeightFacts, load_weights
from actcli.shards import ShardSet

Note = Callable[[str], None]
_SECONDS_OF_FRAME = 0.3
_MAX_NAME = 60
_MAX_CLASSES = 8  # named in an error
_LEAST_HEIGHT = 160


@dataclass(frozen=True)
class Explanation:
    """Where the model looked in one clip."""

    name: str
    """File, or the clip's name in the official list."""
    label: str
    """Class by the list; empty where it is not known."""
    guess: str
    """Likeliest class by the model."""
    probability: float
    """Of the guess, 0..1."""
    explained: str
    """The class whose evidence is shown."""
    strip: Path
    """PNG: the frames the model saw, and below each what spoke for the class."""
    video: Path
    """MP4 of the same frames."""


@dataclass(frozen=True)
class _Shown:
    name: str
    label: str


def explain_videos(
    paths: Sequence[Path | str],
    weights: Path,
    out_dir: Path,
    hardware: Hardware,
    class_name: str | None = None,
    note: Note = lambda _: None,
) -> tuple[list[Explanation], list[str]]:
    """Explain what a model says about videos: its guess, or ``class_name``.

    Returns:
        The explanations, and for each video that cannot be read a sentence that says why.

    Raises:
        ActcliError: There is no video, or the model has no such class or sees optical flow.
    """
    model, facts = _load(weights)
    wanted = _label(class_names_of(model, facts), class_name)
    videos = [LooseClip(video) for video in find_videos(map(Path, paths))]
    if not videos:
        raise ActcliError(
            f"there is no video in {', '.join(map(str, paths)) or 'what was given'}. Name files or folders."
        )
    with packed_videos(videos, facts, class_names_of(model, facts), hardware) as (shards, outcomes):
        unreadable = [
            f"{video.path} cannot be read: {outcome.message or outcome.error}"
            for video, outcome in zip(videos, outcomes, strict=True)
            if not outcome.is_ok
        ]
        if shards is None:
            return [], unreadable
        shown = {number: _Shown(str(video.path), "") for number, video in enumerate(videos)}
        loader = _open(model, facts, shards, SPLIT, "1", hardware, note)
        return [one for _, one in _explain(model, facts, loader, shown, out_dir, wanted)], unreadable


def explain_worst(
    evaluation: Path,
    weights: Path,
    out_dir: Path,
    hardware: Hardware,
    num_clips: int = 8,
    class_name: str | None = None,
    note: Note = lambda _: None,
) -> list[Explanation]:
    """Explain the clips of an evaluation to whose class the model gave the least probability.

    Raises:
        ActcliError: There is no such evaluation or class, no clip has a label, or the model sees optical flow.
    """
    model, facts = _load(weights)
    classes = class_names_of(model, facts)
    wanted = _label(classes, class_name)
    metrics, scores = read_metrics(evaluation, ("shards", "split", "split_id")), read_scores(evaluation)
    labelled = np.flatnonzero(scores.labels >= 0)
    if not len(labelled):
        raise ActcliError(f"the clips of {evaluation} have no labels, so that none is the worst. Name videos instead.")
    given = softmax(scores.logits, axis=1)[labelled, scores.labels[labelled]]
    worst = labelled[np.argsort(given, kind="stable")][:num_clips]
    split, split_id = metrics["split"], metrics["split_id"]
    whole = scored_shards(metrics)
    names = dict(zip(whole.index(split, split_id).keys.tolist(), whole.clip_names(split, split_id), strict=True))
    keys = scores.keys[worst].tolist()
    if not names.keys() >= set(keys):
        raise ActcliError(f"{whole.root} does not hold the {split} clips of {evaluation}. Evaluate again: actcli eval")
    shown = {key: _Shown(names[key], classes[scores.labels[n]]) for key, n in zip(keys, worst, strict=True)}
    few = scored_shards(metrics, [f"{key:09d}" for key in keys])
    loader = _open(model, facts, few, split, split_id, hardware, note)
    found = dict(_explain(model, facts, loader, shown, out_dir, wanted))
    return [found[key] for key in keys]


def _load(weights: Path) -> tuple[VideoModel, WeightFacts]:
    model, facts = load_weights(weights)
    if model.input_spec.modality != "rgb":
        raise ActcliError(
            f"{model.config['name']} sees {model.input_spec.modality}; where a model looks is shown for RGB "
            f"frames only."
        )
    return model.eval(), facts


def _label(classes: Sequence[str], name: str | None) -> int | None:
    """The label of a class."""
    if name is None:
        return None
    if name not in classes:
        close = difflib.get_close_matches(name, classes, 1)
        more = " …" if len(classes) > _MAX_CLASSES else "."
        hint = f"did you mean {close[0]!r}?" if close else f"its classes are: {', '.join(classes[:_MAX_CLASSES])}{more}"
        raise ActcliError(f"the model has no class {name!r}; {hint}")
    return classes.index(name)


def _open(
    model: VideoModel,
    facts: WeightFacts,
    shards: ShardSet,
    split: str,
    split_id: str,
    hardware: Hardware,
    note: Note,
) -> Loader:
    """One look at each clip: the middle crop of its frames."""
    views = published_views(AskedViews(clips=1, crops=1), model, facts, note)
    fabric = launch(hardware, "32-true")
    return open_test(
        shards,
        split,
        split_id,
        views,
        model.input_spec,
        replace(hardware, workers=0),
        fabric,
        num_frames=model.num_frames,
        batch_size=1,
    )


def _explain(
    model: VideoModel,
    facts: WeightFacts,
    loader: Loader,
    shown: dict[int, _Shown],
    out_dir: Path,
    wanted: int | None,
) -> Iterator[tuple[int, Explanation]]:
    """Key and explanation of each clip; ``wanted`` is the class whose evidence is shown, else the guess."""
    classes = class_names_of(model, facts)
    with loader:
        for batch in loader:
            [clip] = model_inputs(batch, model.input_spec)
            heat, logits = heat_maps(model, clip, wanted)
            assert batch.rgb is not None
            frames = batch.rgb[0, 0].permute(0, 2, 3, 1).numpy()  # T H W C
            key = int(batch.keys[0])
            probabilities = torch.softmax(logits, 0)
            guess = int(probabilities.argmax())
            yield (
                key,
                _write(
                    shown[key],
                    key,
                    classes[guess],
                    float(probabilities[guess]),
                    classes[guess if wanted is None else wanted],
                    list(frames),
                    [heated(frame, one) for frame, one in zip(frames, heat, strict=True)],
                    out_dir,
                ),
            )


def _write(
    clip: _Shown,
    key: int,
    guess: str,
    probability: float,
    explained: str,
    frames: Sequence[Picture],
    hot: Sequence[Picture],
    out_dir: Path,
) -> Explanation:
    lines = [f"{clip.name}: {guess} ({probability:.0%})", f"what speaks for {explained}"]
    if clip.label:
        lines.insert(1, f"class: {clip.label}")
    frames, hot = ([enlarged(one, _LEAST_HEIGHT) for one in pictures] for pictures in (frames, hot))
    stem = out_dir / f"{key:09d}-{re.sub(r'[^A-Za-z0-9]+', '-', Path(clip.name).stem)[:_MAX_NAME]}"
    picture, video = stem.with_name(stem.name + ".png"), stem.with_name(stem.name + ".mp4")
    write_picture(picture, titled(strip([frames, hot]), lines))
    pairs = (strip([pair]) for pair in zip(frames, hot, strict=True))
    write_video(video, pairs, 1 / _SECONDS_OF_FRAME)
    return Explanation(clip.name, clip.label, guess, probability, explained, picture, video)
