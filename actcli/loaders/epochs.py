"""Where the plans of an epoch come from: the index, or tars that are read through from front to back."""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import webdataset
from numpy.typing import NDArray

from actcli.defaults import CACHE_BYTES
from actcli.errors import ActcliError
from actcli.loaders.ahead import Demand, ThreadedReader, read_pictures_ahead, read_ranges_ahead
from actcli.loaders.blocks import (
    LARGEST_BLOCK,
    MIXED_BYTES,
    SMALLEST_BLOCK,
    BlockOrder,
    Extent,
    Mixing,
    Parts,
    block_order,
)
from actcli.loaders.order import Order
from actcli.loaders.plan import BatchPlan, ClipPlan, Modality, Planner, ViewSettings, WantedPictures
from actcli.remote import is_local
from actcli.shards import ShardIndex, ShardSet
from actcli.shards.cache import reader_maker
from actcli.shards.reader import CacheFolder, Range
from actcli.shards.stream import StreamedClip, TarReader, stream_clips

ReadingOrder = Literal["auto", "index", "blocks"]


@dataclass(frozen=True)
class Reading:
    """How tars are read through the index."""

    order: ReadingOrder = "auto"
    """``index`` shuffles an epoch as a whole and reads the frames that are needed; ``blocks`` reads clips whole, in
    large consecutive ranges that are shuffled and mixed (training only). ``auto``: blocks behind a URL."""
    cache_dir: str | None = None
    """Folder that keeps what was read from a URL; it may serve several runs at the same time."""
    cache_bytes: int = CACHE_BYTES
    """Size of that folder; what was not used for longest goes first."""


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


class _Usable:
    """The clips of a split that have what is wanted of them, by their rows in the index."""

    def __init__(self, shards: ShardSet, split: str, split_id: str, settings: ViewSettings) -> None:
        self.index = shards.index(split, split_id)
        self.rows = _usable_rows(self.index, settings.modality, split)
        keys = hashlib.sha256(self.index.keys[self.rows].tobytes()).hexdigest()
        self.identity = f"{shards.card.source_digest[:16]} {keys[:16]}"
        self._planner = Planner(shards.card, settings)

    @property
    def num_left_out(self) -> int:
        """Clips of the split that lack what is wanted."""
        return len(self.index) - len(self.rows)

    def plan(self, rows: NDArray[np.int64], positions: NDArray[np.int64], epoch: int) -> BatchPlan:
        """The batch of some rows, which stand at ``positions`` of the epoch."""
        return self._planner.batch(map(self.index.clip, rows.tolist()), positions, epoch)


class IndexedEpochs:
    """The plans of an epoch, by random access through the index."""

    def __init__(
        self, shards: ShardSet, split: str, split_id: str, settings: ViewSettings, reader: TarReader | None = None
    ) -> None:
        """With a ``reader`` the pictures are read ahead by it; otherwise by whatever carries out the plans."""
        self._clips, self._reader = _Usable(shards, split, split_id, settings), reader
        self.num_clips, self.num_without_flow = len(self._clips.rows), self._clips.num_left_out
        self.identity = self._clips.identity

    def epoch(self, order: Order, epoch: int, first_step: int) -> Iterator[BatchPlan]:
        """The batches from ``first_step`` on."""
        batches = order.batches(epoch, first_step)
        plans = (self._clips.plan(self._clips.rows[places], positions, epoch) for places, positions in batches)
        return plans if self._reader is None else read_pictures_ahead(plans, self._reader)


class BlockedEpochs:
    """The plans of an epoch in block order: large consecutive ranges, each read by one rank and once."""

    def __init__(self, shards: ShardSet, split: str, split_id: str, settings: ViewSettings, reader: TarReader) -> None:
        self._clips, self._reader, self._seed = _Usable(shards, split, split_id, settings), reader, settings.seed
        self.num_clips, self.num_without_flow = len(self._clips.rows), self._clips.num_left_out
        extent = _extent(self._clips.index, self._clips.rows, settings.modality)
        by_place = np.lexsort((extent.begins, extent.shards))
        self._rows, self._extent = self._clips.rows[by_place], extent.of(by_place)
        self.identity = (
            f"{self._clips.identity}, in blocks of {SMALLEST_BLOCK}, {LARGEST_BLOCK} and {MIXED_BYTES} bytes"
        )

    def epoch(self, order: Order, epoch: int, first_step: int) -> Iterator[BatchPlan]:
        """The batches from ``first_step`` on; what was used before is not read again."""
        mixing = Mixing.of(order.batch_size * order.world_size)
        blocks = block_order(self._extent, mixing, self._seed, epoch)
        steps = list(order.positions(first_step))
        return read_ranges_ahead(self._demands(blocks, steps, epoch), self._reader)

    def _demands(self, blocks: BlockOrder, steps: list[NDArray[np.int64]], epoch: int) -> Iterator[Demand]:
        parts = Parts.of(self._extent, blocks, np.concatenate(steps) if steps else np.zeros(0, np.int64))
        left, names = parts.uses.copy(), self._clips.index.shard_names
        for positions in steps:
            plan = self._clips.plan(self._rows[blocks.rows[positions]], positions, epoch)
            numbers = blocks.parts[positions]
            np.subtract.at(left, numbers, 1)
            ranges = {
                part: Range(names[parts.shards[part]], int(parts.begins[part]), int(parts.ends[part]))
                for part in numbers.tolist()
            }
            kept = frozenset(one for part, one in ranges.items() if left[part])
            yield Demand(plan, tuple(ranges.values()), kept)


def with_cache(shards: ShardSet, reading: Reading) -> ShardSet:
    """The shards, read through the cache that ``reading`` asks for.

    Raises:
        ActcliError: They lie in a local folder.
    """
    if reading.cache_dir is None:
        return shards
    if is_local(shards.root):
        raise ActcliError(f"{shards.root} is a local folder, which needs no cache. Leave out cache_dir (--cache-dir).")
    return replace(shards, cache=CacheFolder(Path(reading.cache_dir), reading.cache_bytes))


def open_indexed(
    shards: ShardSet, split: str, split_id: str, settings: ViewSettings, reading: Reading
) -> IndexedEpochs | BlockedEpochs:
    """The plans of a split, in the order that ``reading`` asks for."""
    if reading.order not in get_args(ReadingOrder):
        known = ", ".join(get_args(ReadingOrder))
        raise ActcliError(f"unknown order {reading.order!r}. As order, choose {known}.")
    remote = not is_local(shards.root)
    if settings.training and (reading.order == "blocks" or (reading.order == "auto" and remote)):
        return BlockedEpochs(shards, split, split_id, settings, ThreadedReader(reader_maker(shards)))
    reader = ThreadedReader(reader_maker(shards)) if remote else None
    return IndexedEpochs(shards, split, split_id, settings, reader)


def _extent(index: ShardIndex, rows: NDArray[np.int64], modality: Modality) -> Extent:
    """Where the payloads of ``modality`` lie."""
    shards, begins = index.shard_ids[rows].astype(np.int64), index.offsets[rows]
    ends = begins + index.payload_bytes[rows]
    if modality != "rgb" and index.flow is not None:
        flow_begins = index.flow.offsets[rows]
        flow_ends = flow_begins + index.flow.payload_bytes()[rows]
        if modality == "flow":
            return Extent(shards, flow_begins, flow_ends)
        return Extent(shards, np.minimum(begins, flow_begins), np.maximum(ends, flow_ends))
    return Extent(shards, begins, ends)


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
        for step, positions in enumerate(order.positions()):
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
        frames = next((payload for suffix, payload in clip.payloads.items() if not suffix.startswith("flow")), b"")
        rgb = plan.rgb and _inline(plan.rgb, frames, data)
        flow = plan.flow and _inline(plan.flow, clip.payloads["flow.mjpeg"], data)
        return plan._replace(rgb=rgb, flow=flow)


def _inline(wanted: WantedPictures, payload: bytes, data: bytearray) -> WantedPictures:
    begins = []
    for offset, size in zip(wanted.offsets, wanted.sizes, strict=True):
        begins.append(len(data))
        data += payload[offset : offset + size]
    return wanted._replace(offsets=begins)
