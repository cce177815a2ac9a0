"""What a batch is made of, as plain numbers: which bytes to read, which boxes to cut, where the pixels go.

The plan is drawn from (seed, epoch, place in the epoch order) alone; the backends only carry it out. That is why they
give the same batch, and why a run can be taken up in the middle of an epoch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders.augment import Augmentation, Operation
from actcli.loaders.sampling import Indices, Sampling, expand_stack, surrounding_stack
from actcli.loaders.views import Crop, Size, ViewRule, stored_box
from actcli.shards import ShardCard
from actcli.shards.clip import Extents, StoredClip
from actcli.shards.source_video import WantedVideo, plan_video

Modality = Literal["rgb", "flow", "two_stream"]


class WantedPictures(NamedTuple):
    """The pictures of one modality that one clip needs, each read and decoded once."""

    shard: str
    """Name of the tar."""
    offsets: list[int]
    """First byte of each picture, or the one of the clip's video, ``[pictures]``; lists travel to workers faster."""
    sizes: list[int]
    """Bytes of each, ``[pictures]``."""
    crcs: list[int]
    """CRC-32 of each, ``[pictures]``, or of the one video; empty where tars are streamed without an index."""
    frames: list[int]
    """Frame number of each picture in its video, ``[pictures]``; what a video payload is decoded by."""
    slots: Indices
    """Which picture goes where: RGB ``[clips, T]``, flow ``[clips, T, C]``."""
    video: WantedVideo | None = None
    """Where the payload is the video itself; offsets, sizes and CRC-32 are those of packets then, ``[packets]``."""


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
    rgb: WantedPictures | None
    flow: WantedPictures | None


def broken_clip(clip: ClipPlan, wanted: WantedPictures, error: Exception) -> ActcliError:
    """The error for a clip that cannot be read or decoded."""
    return ActcliError(
        f"clip {clip.key:09d} in shard {wanted.shard} cannot be read: {error}. "
        "In a local folder `actcli verify` finds every damaged clip."
    )


class BatchPlan(NamedTuple):
    """One batch of one rank."""

    clips: tuple[ClipPlan, ...]
    inline: bytes | None = None
    """The pictures themselves, where they were read before; offsets count from its beginning then."""
    num_bytes_before: int | None = None
    """Bytes that were read for it then, where that is known."""

    @property
    def num_bytes(self) -> int:
        """Bytes that this batch reads from the shards."""
        if self.num_bytes_before is not None:
            return self.num_bytes_before
        return sum(sum(wanted.sizes) for clip in self.clips for wanted in (clip.rgb, clip.flow) if wanted is not None)


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
class Mirroring:
    """What mirroring means for a dataset."""

    allowed: bool
    """Whether clips may be mirrored in training."""
    labels: NDArray[np.int64]
    """The label that each label becomes, ``[classes]``."""

    @classmethod
    def of(cls, card: ShardCard) -> "Mirroring":
        """What the dataset's card says."""
        labels = np.arange(len(card.classes))
        for label, mirrored in card.flip_labels().items():
            labels[label] = mirrored
        return cls(card.flip != "forbidden", labels)


class Planner:
    """Draws the plan of each batch."""

    def __init__(self, card: ShardCard, settings: ViewSettings) -> None:
        self.settings = settings
        self._mirroring = Mirroring.of(card)
        self._video = card.payload == "mp4"

    def batch(self, clips: Iterable[StoredClip], positions: NDArray[np.int64], epoch: int) -> BatchPlan:
        """The plan of ``clips``; ``positions`` are their places in the epoch order."""
        pairs = zip(clips, positions.tolist(), strict=True)
        return BatchPlan(tuple(self.clip(stored, position, epoch) for stored, position in pairs))

    def clip(self, stored: StoredClip, position: int, epoch: int) -> ClipPlan:
        """The plan of one clip; the draws depend on (seed, epoch, position) only."""
        settings = self.settings
        rng = np.random.Generator(np.random.Philox(key=[settings.seed, epoch], counter=[0, 0, position, 1]))
        frame_size = Size(stored.width, stored.height)
        try:
            rgb, flow = self._pictures(stored, rng)
        except ActcliError as error:
            raise ActcliError(f"clip {stored.key} in {stored.shard}: {error}") from error
        key, label = int(stored.key), stored.label
        if not settings.training:
            return ClipPlan(key, label, frame_size, self._test_crops(frame_size), (), rgb, flow)
        augmentation = settings.augmentation
        flip = self._mirroring.allowed and rng.random() < augmentation.flip
        crop = augmentation.draw_crop(frame_size, settings.size, settings.scale_size, settings.rule, rng)
        operations = augmentation.draw_operations(rng) if augmentation.changes_pixels() else ()
        if flip and label >= 0:
            label = int(self._mirroring.labels[label])
        return ClipPlan(key, label, frame_size, (crop._replace(flip=flip),), operations, rgb, flow)

    def _test_crops(self, frame_size: Size) -> tuple[Crop, ...]:
        settings = self.settings
        resized = settings.rule.resize(frame_size, settings.scale_size)
        crop_size = settings.scale_size if settings.rule.crop_is_scale else settings.size
        crops = settings.rule.crops(resized, crop_size, settings.num_crops)
        return tuple(stored_box(crop, resized, frame_size) for crop in crops)

    def _pictures(
        self, stored: StoredClip, rng: np.random.Generator
    ) -> tuple[WantedPictures | None, WantedPictures | None]:
        """What is wanted of RGB and of flow."""
        settings = self.settings
        if settings.modality == "flow":
            starts = settings.sampling.sample(stored.flow_num_frames, settings.num_frames, rng, settings.flow_stack)
            return None, _flow(stored, expand_stack(starts, settings.flow_stack, stored.flow_num_frames))
        frames = settings.sampling.sample(stored.num_frames, settings.num_frames, rng)
        rgb = self._rgb(stored, frames)
        if settings.modality == "rgb":
            return rgb, None
        return rgb, _flow(stored, surrounding_stack(frames, settings.flow_stack, stored.flow_num_frames))

    def _rgb(self, stored: StoredClip, frames: Indices) -> WantedPictures:
        """``frames [clips, T]``; a frame that several views share is read once."""
        unique, slots = np.unique(frames, return_inverse=True)
        if stored.video is not None:
            packets, video = plan_video(stored, unique)
            return _wanted(stored, packets, unique, slots.reshape(frames.shape))._replace(video=video)
        extents = stored.frame_extents([0] if self._video else unique)
        return _wanted(stored, extents, unique, slots.reshape(frames.shape))


def _flow(stored: StoredClip, fields: Indices) -> WantedPictures:
    """``fields [clips, T, stack]``; each field is two pictures, x and y, so ``slots [clips, T, 2 stack]``."""
    unique, slots = np.unique(fields, return_inverse=True)
    extents = stored.flow_extents(unique)
    pictures = 2 * slots.reshape(*fields.shape, 1) + np.arange(2)
    return _wanted(stored, extents, np.repeat(unique, 2), pictures.reshape(*fields.shape[:-1], -1))


def _wanted(stored: StoredClip, extents: Extents, frames: NDArray[np.int64], slots: Indices) -> WantedPictures:
    offsets, sizes, crcs = (column.tolist() for column in extents)
    return WantedPictures(stored.shard, offsets, sizes, crcs, frames.tolist(), slots)
