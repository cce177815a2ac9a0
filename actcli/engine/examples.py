"""Clips as film strips, for pages about evaluations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from actcli.engine.metrics import Scores
from actcli.errors import ActcliError
from actcli.ingest.flow import dequantise, flow_to_colour
from actcli.loaders.backends.video import decode_frames
from actcli.loaders.views import Size
from actcli.pages import MAX_PICTURES, FilmStrip, film_strip
from actcli.pages.strips import Picture
from actcli.shards import ShardIndex, ShardReader, ShardSet
from actcli.shards.clip import StoredClip
from actcli.shards.source_video import video_frames

_MIN_DECODED = 96  # pixels; libjpeg shrinks while it decodes


@dataclass(frozen=True)
class ShownClip:
    """One clip of an evaluation with its pictures."""

    name: str
    """Source id."""
    label: str
    """Class."""
    guess: str
    """Likeliest class by the model."""
    guess_probability: float
    """0..1."""
    label_probability: float
    """What the model gave the class itself, 0..1."""
    film: FilmStrip | None
    """None where its pictures cannot be had any more."""


class ClipPictures:
    """The clips of an evaluated split, by their position in the scores."""

    def __init__(
        self, scores: Scores, probabilities: NDArray[np.float64], shards: ShardSet, split: str, split_id: str
    ) -> None:
        self._scores, self._probabilities, self._card = scores, probabilities, shards.card
        self._index, self._reader = shards.index(split, split_id), ShardReader(shards.root)
        self._names = shards.clip_names(split, split_id)
        order = np.argsort(self._index.keys, kind="stable")
        self.rows: NDArray[np.int64] = order[np.searchsorted(self._index.keys, scores.keys, sorter=order)]
        """``[N]``: row of the index for each scored clip."""

    @property
    def index(self) -> ShardIndex:
        """All clips of the split."""
        return self._index

    def show(self, number: int) -> ShownClip:
        """The clip at a position of the scores."""
        label, row = int(self._scores.labels[number]), int(self.rows[number])
        guess = int(self._probabilities[number].argmax())
        return ShownClip(
            name=self._names[row],
            label=self._card.classes[label],
            guess=self._card.classes[guess],
            guess_probability=float(self._probabilities[number, guess]),
            label_probability=float(self._probabilities[number, label]),
            film=self._film(row),
        )

    def _film(self, row: int) -> FilmStrip | None:
        try:
            return film_strip(list(self._pictures(row)))
        except (ActcliError, ValueError, OSError):
            return None  # the tar went away since the scores were made; the page does without pictures

    def _pictures(self, row: int) -> Iterator[Picture]:
        if not self._index.num_frames[row]:
            yield from self._flow_pictures(row)
            return
        clip = self._index.clip(row)
        frames = _spread(clip.num_frames)
        if self._card.payload == "mp4":
            payload = self._reader.read(clip.shard, clip.offset, clip.bytes)
            yield from decode_frames(payload, frames, Size(clip.width, clip.height))
            return
        if clip.video is not None:
            yield from video_frames(clip, frames, self._reads(clip))
            return
        places = clip.frame_extents(frames)
        for offset, size in zip(places.offsets.tolist(), places.sizes.tolist(), strict=True):
            jpeg = bytes(self._reader.read(clip.shard, offset, size))
            yield simplejpeg.decode_jpeg(jpeg, "RGB", min_height=_MIN_DECODED, min_width=_MIN_DECODED)

    def _reads(self, clip: StoredClip) -> Callable[[int, int], bytes]:
        """What reads bytes of the clip's video."""
        return lambda offset, size: self._reader.read(clip.shard, clip.offset + offset, size)

    def _flow_pictures(self, row: int) -> Iterator[Picture]:
        """Flow as colours: x and y of a field are two grey JPEGs."""
        clip = self._index.clip(row)
        places = clip.flow_extents(_spread(clip.flow_num_frames))
        jpegs = [
            simplejpeg.decode_jpeg(bytes(self._reader.read(clip.shard, offset, size)), "GRAY")[..., 0]
            for offset, size in zip(places.offsets.tolist(), places.sizes.tolist(), strict=True)
        ]
        for x, y in zip(jpegs[::2], jpegs[1::2], strict=True):
            yield flow_to_colour(dequantise(x, y, clip.flow_bound))


def _spread(num_frames: int) -> list[int]:
    """``MAX_PICTURES`` frames at equal distances from the first to the last: 22 -> [0, 3, 6, 9, 12, 15, 18, 21]."""
    count = min(MAX_PICTURES, num_frames)
    return [round(place) for place in np.linspace(0, num_frames - 1, count)]
