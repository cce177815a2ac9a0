"""Where the plans of an epoch come from: the index, or tars that are read through from front to back."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Protocol

import numpy as np
import webdataset
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders.order import Order
from actcli.loaders.plan import BatchPlan, ClipPlan, Modality, Planner, ViewSettings, WantedPictures
from actcli.shards import ShardIndex, ShardSet
from actcli.shards.stream import StreamedClip, stream_clips


class Epochs(Protocol):
    """The plans of one split, epoch after epoch."""

    num_clips: int
    """Clips of the split over all ranks."""
    num_without_flow: int
    """Clips that were left out because they have no flow."""
    identity: str
    """What tells this list of clips, and the way it is read, from another."""

    def epoch(self, order: Order, epoch: int, first_step: int) -> Iterator[BatchPlan]:
        """This rank's batches of an epoch, from ``first_step`` on."""
        ...


class IndexedEpochs:
    """The plans of an epoch, by random access through the index."""

    def __init__(self, shards: ShardSet, split: str, split_id: str, settings: ViewSettings) -> None:
        index = shards.index(split, split_id)
        self._rows = _usable_rows(index, settings.modality, split)
        self.num_clips = len(self._rows)
        self.num_without_flow = len(index.keys) - len(self._rows)
        keys = hashlib.sha256(index.keys[self._rows].tobytes()).hexdigest()
        self.identity = f"{shards.card.source_digest[:16]} {keys[:16]}"
        self._index, self._planner = index, Planner(shards.card, settings)

    def epoch(self, order: Order, epoch: int, first_step: int) -> Iterator[BatchPlan]:
        """The batches from ``first_step`` on."""
        for places, positions in order.batches(epoch, first_step):
            clips = map(self._index.clip, self._rows[places].tolist())
            yield self._planner.batch(clips, positions, epoch)


def _usable_rows(index: ShardIndex, modality: Modality, split: str) -> NDArray[np.int64]:
    """The rows of the clips that have what ``modality`` needs."""
    if not len(index.keys):
        raise ActcliError(f"split {split} has no clips. Look at dataset.json, or extract and shard that split.")
    if modality != "flow" and not index.num_frames.any():
        raise ActcliError(
            f"no clip of split {split} has RGB frames. Use modality flow, or extract (--modality rgb) and shard them."
        )
    if modality != "rgb" and not index.flow_num_frames.any():
        raise ActcliError(
            f"no clip of split {split} has flow. Extract it (--modality flow) and shard again, or use modality rgb."
        )
    has_rgb, has_flow = index.num_frames > 0, index.flow_num_frames > 0
    return np.flatnonzero({"rgb": has_rgb, "flow": has_flow, "two_stream": has_rgb & has_flow}[modality])


class StreamedEpochs:
    """No index, no random access, a shuffle buffer: plans of clips as they stream by, with the bytes that they need."""

    def __init__(
        self, shards: ShardSet, split: str, split_id: str, settings: ViewSettings, shuffle_buffer: int
    ) -> None:
        card = shards.card
        card.index_name(split, split_id)  # refuses a split that does not exist
        self.num_clips = card.split_sets[split_id][split]
        self.num_without_flow = 0
        self.identity = f"{card.source_digest}, streamed with a buffer of {shuffle_buffer}"
        self._shards, self._settings = shards, settings
        self._split, self._split_id = split, split_id
        self._planner = Planner(card, settings)
        self._suffix = "mp4" if card.payload == "mp4" else "mjpeg"
        self._shuffle_buffer = shuffle_buffer
        prefix = f"{split}-" if len(card.split_sets) == 1 else "all-"
        self._names = [shard.name for shard in card.shards if shard.name.startswith(prefix)]
        if not self._names:
            raise ActcliError(
                f"{shards.root} lists no tars of split {split}. Write the shards again with: actcli shard --overwrite"
            )

    def epoch(self, order: Order, epoch: int, first_step: int) -> Iterator[BatchPlan]:
        """The batches from ``first_step`` on; those before are read past, since a stream has no other way.

        So are the clips of other ranks: every rank reads all tars.
        """
        self.num_without_flow = 0
        mine = islice(enumerate(self._clips(epoch)), order.rank, None, order.world_size)
        for step, (_, positions) in enumerate(order.batches(epoch)):
            batch = list(islice(mine, len(positions)))
            if len(batch) < len(positions) and (order.drop_last or not batch):
                return  # clips without flow were counted; now there are no more
            if step >= first_step:
                data = bytearray()
                plans = tuple(self._plan(clip, position, epoch, data) for position, clip in batch)
                yield BatchPlan(plans, bytes(data))

    def _clips(self, epoch: int) -> Iterator[StreamedClip]:
        """Clips of the split that have what is asked for, shuffled in training."""
        if not self._settings.training:
            yield from self._wanted(self._names)
            return
        rng = np.random.Generator(np.random.Philox(key=[self._settings.seed, epoch], counter=[0, 0, 0, 3]))
        names = [self._names[number] for number in rng.permutation(len(self._names))]
        size, draws = self._shuffle_buffer, random.Random(int(rng.integers(2**63)))
        yield from webdataset.shuffle(size, initial=size, rng=draws)(self._wanted(names))

    def _wanted(self, names: list[str]) -> Iterator[StreamedClip]:
        for clip in stream_clips(self._shards, names):
            has_flow = clip.clip.flow_num_frames > 0
            in_split = clip.clip.splits.get(self._split_id, self._split) == self._split
            if not in_split:
                continue
            if has_flow or self._settings.modality == "rgb":
                yield self._without_the_other_modality(clip)
            else:
                self.num_without_flow += 1

    def _without_the_other_modality(self, clip: StreamedClip) -> StreamedClip:
        """The clip as it waits in the buffer: flow is not kept for RGB models, nor RGB for flow models."""
        if self._settings.modality == "two_stream":
            return clip
        kept = {
            suffix: data
            for suffix, data in clip.payloads.items()
            if suffix.startswith("flow") == (self._settings.modality == "flow")
        }
        return replace(clip, payloads=kept)

    def _plan(self, clip: StreamedClip, position: int, epoch: int, data: bytearray) -> ClipPlan:
        """The clip's plan; the pictures that it needs are appended to ``data`` and read from there."""
        plan = self._planner.clip(clip.clip, position, epoch)
        rgb = plan.rgb and _inline(plan.rgb, clip.payloads[self._suffix], data)
        flow = plan.flow and _inline(plan.flow, clip.payloads["flow.mjpeg"], data)
        return plan._replace(rgb=rgb, flow=flow)


def _inline(wanted: WantedPictures, payload: bytes, data: bytearray) -> WantedPictures:
    begins = []
    for offset, size in zip(wanted.offsets, wanted.sizes, strict=True):
        begins.append(len(data))
        data += payload[offset : offset + size]
    return wanted._replace(offsets=begins)
