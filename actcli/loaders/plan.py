"""What a batch is made of, as plain numbers: which bytes to read, which boxes to cut, where the pixels go.

The plan is drawn from (seed, epoch, place in the epoch order) alone; the backends only carry it out. That is why they
give the same batch, and why a run can be taken up in the middle of an epoch.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders.augment import Augmentation, Operation
from actcli.loaders.sampling import Indices, Sampling, expand_stack, surrounding_stack
from actcli.loaders.views import Crop, Size, ViewRule, stored_box
from actcli.shards import ShardCard, ShardIndex
from actcli.shards.index import Extents

Modality = Literal["rgb", "flow", "two_stream"]


class Stream(NamedTuple):
    """The pictures of one modality of one clip, each read and decoded once."""

    shard: str
    """Name of the tar."""
    offsets: list[int]
    """First byte of each picture, or the one of the clip's video, ``[pictures]``; lists travel to workers faster."""
    sizes: list[int]
    """Bytes of each, ``[pictures]``."""
    crcs: list[int]
    """CRC-32 of each, ``[pictures]``, or of the one video; empty where shards are streamed without an index."""
    frames: list[int]
    """Frame number of each picture in its video, ``[pictures]``; what a video payload is decoded by."""
    slots: Indices
    """Which picture goes where: RGB ``[clips, T]``, flow ``[clips, T, C]``."""


class ClipPlan(NamedTuple):
    """One clip of the batch with all its views."""

    key: int
    label: int
    frame_size: Size
    """Width and height that the crops refer to."""
    crops: tuple[Crop, ...]
    """The boxes, the same for every frame."""
    operations: tuple[Operation, ...]
    """Changes of the RGB pixels, the same for every frame."""
    rgb: Stream | None
    flow: Stream | None


def broken_clip(clip: ClipPlan, stream: Stream, error: Exception) -> ActcliError:
    """The error for a clip that cannot be read or decoded."""
    return ActcliError(
        f"clip {clip.key:09d} in shard {stream.shard} cannot be read: {error}. "
        "In a local folder `actcli verify` finds every damaged clip."
    )


class BatchPlan(NamedTuple):
    """One batch of one rank."""

    clips: tuple[ClipPlan, ...]
    inline: bytes | None = None
    """The pictures themselves, where the shards are streamed; offsets count from its beginning then."""

    @property
    def num_bytes(self) -> int:
        """Bytes that this batch reads from the shards."""
        return sum(sum(s.sizes) for clip in self.clips for s in (clip.rgb, clip.flow) if s is not None)


@dataclass(frozen=True)
class ViewSettings:
    """Everything that the plan of a clip depends on, apart from the clip."""

    num_frames: int
    size: int
    scale_size: int
    training: bool
    modality: Modality
    flow_stack: int
    sampling: Sampling
    num_crops: int
    rule: ViewRule
    augmentation: Augmentation
    seed: int

    @property
    def num_views(self) -> int:
        """Views per clip: test clips times crops."""
        return self.sampling.num_test_clips * self.num_crops


@dataclass(frozen=True)
class FlipPolicy:
    """What mirroring means for a dataset."""

    allowed: bool
    """Whether clips may be mirrored in training."""
    labels: NDArray[np.int64]
    """The label that each label becomes, ``[classes]``."""

    @classmethod
    def of(cls, card: ShardCard) -> "FlipPolicy":
        """What the dataset's card says."""
        labels = np.arange(len(card.classes))
        for label, mirrored in card.flip_labels().items():
            labels[label] = mirrored
        return cls(card.flip != "forbidden", labels)


class Planner:
    """Draws the plan of each batch."""

    def __init__(self, index: ShardIndex, flip: FlipPolicy, settings: ViewSettings, video: bool) -> None:
        self.index = index
        self.flip = flip
        self.settings = settings
        self.video = video

    def batch(self, rows: NDArray[np.int64], positions: NDArray[np.int64], epoch: int) -> BatchPlan:
        """The clips at ``rows`` of the index; ``positions`` are their places in the epoch order."""
        pairs = zip(rows.tolist(), positions.tolist(), strict=True)
        return BatchPlan(tuple(self.clip(row, position, epoch) for row, position in pairs))

    def clip(self, row: int, position: int, epoch: int) -> ClipPlan:
        """One clip; the draws depend on (seed, epoch, position) only."""
        settings, index = self.settings, self.index
        rng = np.random.Generator(np.random.Philox(key=[settings.seed, epoch], counter=[0, 0, position, 1]))
        frame_size = Size(int(index.widths[row]), int(index.heights[row]))
        try:
            rgb, flow = self._streams(row, rng)
        except ActcliError as error:
            raise ActcliError(f"clip {int(index.keys[row]):09d} in {index.shard_name(row)}: {error}") from error
        label = int(index.labels[row])
        if not settings.training:
            return ClipPlan(int(index.keys[row]), label, frame_size, self._evaluation_crops(frame_size), (), rgb, flow)
        augmentation = settings.augmentation
        flip = self.flip.allowed and rng.random() < augmentation.flip
        crop = augmentation.draw_crop(frame_size, settings.size, settings.scale_size, settings.rule, rng)
        operations = augmentation.draw_operations(rng) if augmentation.changes_pixels() else ()
        if flip and label >= 0:
            label = int(self.flip.labels[label])
        return ClipPlan(int(index.keys[row]), label, frame_size, (crop._replace(flip=flip),), operations, rgb, flow)

    def _evaluation_crops(self, frame_size: Size) -> tuple[Crop, ...]:
        settings = self.settings
        resized = settings.rule.resize(frame_size, settings.scale_size)
        crop_size = settings.scale_size if settings.rule.crop_is_scale else settings.size
        crops = settings.rule.crops(resized, crop_size, settings.num_crops)
        return tuple(stored_box(crop, resized, frame_size) for crop in crops)

    def _streams(self, row: int, rng: np.random.Generator) -> tuple[Stream | None, Stream | None]:
        settings, index = self.settings, self.index
        if settings.modality == "flow":
            num_fields = int(index.flow_num_frames[row])
            starts = settings.sampling.sample(num_fields, settings.num_frames, rng, settings.flow_stack)
            return None, self._flow(row, expand_stack(starts, settings.flow_stack, num_fields))
        frames = settings.sampling.sample(int(index.num_frames[row]), settings.num_frames, rng)
        rgb = self._rgb(row, frames)
        if settings.modality == "rgb":
            return rgb, None
        fields = surrounding_stack(frames, settings.flow_stack, int(index.flow_num_frames[row]))
        return rgb, self._flow(row, fields)

    def _rgb(self, row: int, frames: Indices) -> Stream:
        """``frames [clips, T]``; a frame that several views share is read once."""
        unique, slots = np.unique(frames, return_inverse=True)
        extents = self.index.frame_extents(row, [0] if self.video else unique)
        return self._stream(row, extents, unique, slots.reshape(frames.shape))

    def _flow(self, row: int, fields: Indices) -> Stream:
        """``fields [clips, T, stack]``; each field is two pictures, x and y, so ``slots [clips, T, 2 stack]``."""
        unique, slots = np.unique(fields, return_inverse=True)
        extents = self.index.flow_extents(row, unique)
        pictures = 2 * slots.reshape(*fields.shape, 1) + np.arange(2)
        return self._stream(row, extents, np.repeat(unique, 2), pictures.reshape(*fields.shape[:-1], -1))

    def _stream(self, row: int, extents: Extents, frames: NDArray[np.int64], slots: Indices) -> Stream:
        offsets, sizes, crcs = (column.tolist() for column in extents)
        return Stream(self.index.shard_name(row), offsets, sizes, crcs, frames.tolist(), slots)
