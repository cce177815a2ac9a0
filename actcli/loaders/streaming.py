"""Batches from tars that are read through from front to back: no index, no random access, a shuffle buffer."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from actcli.errors import ActcliError
from actcli.facts import Sizes
from actcli.loaders.order import Order
from actcli.loaders.plan import BatchPlan, ClipPlan, FlipPolicy, Planner, Stream, ViewSettings
from actcli.shards import ShardIndex, ShardSet
from actcli.shards.index import FrameTable
from actcli.shards.stream import StreamedClip, stream_clips


class StreamPlans:
    """The plans of an epoch, made from clips as they stream by; each carries the bytes that it needs."""

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
        self._planner = Planner(_EMPTY, FlipPolicy.of(card), settings, video=card.payload == "mp4")
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
        buffer: list[StreamedClip] = []
        for clip in self._wanted(names):
            if len(buffer) < self._shuffle_buffer:
                buffer.append(clip)
                continue
            place = int(rng.integers(len(buffer)))
            ready, buffer[place] = buffer[place], clip
            yield ready
        for place in rng.permutation(len(buffer)).tolist():
            yield buffer[place]

    def _wanted(self, names: list[str]) -> Iterator[StreamedClip]:
        for clip in stream_clips(self._shards, names):
            has_flow = clip.clip.flow_num_frames > 0
            in_split = clip.clip.splits.get(self._split_id, self._split) == self._split
            if not in_split:
                continue
            if has_flow or self._settings.modality == "rgb":
                yield self._without_the_other_stream(clip)
            else:
                self.num_without_flow += 1

    def _without_the_other_stream(self, clip: StreamedClip) -> StreamedClip:
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
        self._planner.index = _index_of(clip)
        plan = self._planner.clip(0, position, epoch)
        suffix = "mp4" if self._planner.video else "mjpeg"
        rgb = plan.rgb and _inline(plan.rgb, clip.payloads[suffix], data)
        flow = plan.flow and _inline(plan.flow, clip.payloads["flow.mjpeg"], data)
        return plan._replace(rgb=rgb, flow=flow)


def _inline(stream: Stream, payload: bytes, data: bytearray) -> Stream:
    begins = []
    for offset, size in zip(stream.offsets, stream.sizes, strict=True):
        begins.append(len(data))
        data += payload[offset : offset + size]
    return stream._replace(offsets=begins)


def _index_of(streamed: StreamedClip) -> ShardIndex:
    """An index of this clip alone, with offsets counted from the beginning of its payloads."""
    clip = streamed.clip
    return ShardIndex(
        keys=np.array([int(clip.key)]),
        labels=np.array([clip.label]),
        shard_ids=np.zeros(1, np.int32),
        shard_names=(clip.shard,),
        payload_bytes=np.array([clip.bytes]),
        num_frames=np.array([clip.num_frames]),
        widths=np.array([clip.width]),
        heights=np.array([clip.height]),
        fps=np.array([clip.fps]),
        rgb=_table(clip.frame_sizes),
        flow=_table(clip.flow_frame_sizes),
        flow_num_frames=np.array([clip.flow_num_frames]),
        flow_bounds=np.array([clip.flow_bound]),
    )


def _table(sizes: Sizes) -> FrameTable:
    no_crcs = np.empty(0, np.uint32)
    return FrameTable(np.zeros(1, np.int64), np.array([0, len(sizes)]), sizes, no_crcs)


_EMPTY = ShardIndex(**{name: np.empty(0) for name in ShardIndex.__dataclass_fields__})  # type: ignore[arg-type]
