"""Bytes of plans, read ahead by many threads: for shards that are far away, and for block order.

The batches come with their pictures in them (``BatchPlan.inline``), so that whatever carries them out waits for nobody.
Latency is hidden by depth: ``AHEAD_BYTES`` are asked for before they are needed, in up to ``NUM_REQUESTS`` requests
at a time.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from actcli.errors import ActcliError
from actcli.loaders.plan import BatchPlan, ClipPlan, WantedPictures, broken_clip
from actcli.shards.stream import Encoded, TarReader

AHEAD_BYTES = 96 << 20
"""Bytes that are asked for before the batch that needs them; one batch at least."""
NUM_REQUESTS = 64
"""Requests under way at a time."""
LARGEST_GAP = 256 << 10
"""Unwanted bytes between two pictures that are read along rather than asked around: a request costs as much."""


class Range(NamedTuple):
    """Consecutive bytes of a tar."""

    shard: str
    """Name of the tar."""
    begin: int
    """First byte."""
    end: int
    """Byte after the last one."""


@dataclass(frozen=True)
class Demand:
    """A batch and the ranges that its pictures are in."""

    plan: BatchPlan
    """The batch."""
    ranges: tuple[Range, ...]
    """What has to be read, each range once."""
    kept: frozenset[Range] = frozenset()
    """Those that batches need which are not asked for yet."""


def picture_ranges(plan: BatchPlan) -> Demand:
    """The ranges that hold the pictures of a batch and little else."""
    ranges: list[Range] = []
    for _, wanted in _wanted(plan.clips):
        ranges += _merged(wanted)
    return Demand(plan, tuple(dict.fromkeys(ranges)))


def _merged(wanted: WantedPictures) -> Iterator[Range]:
    """Pictures with at most ``LARGEST_GAP`` between them, read together."""
    spans = sorted((offset, offset + size) for offset, size in zip(wanted.offsets, wanted.sizes, strict=True))
    begin, end = spans[0]
    for next_begin, next_end in spans[1:]:
        if next_begin - end > LARGEST_GAP:
            yield Range(wanted.shard, begin, end)
            begin = next_begin
        end = max(end, next_end)
    yield Range(wanted.shard, begin, end)


def _wanted(clips: Iterable[ClipPlan]) -> Iterator[tuple[ClipPlan, WantedPictures]]:
    return ((clip, wanted) for clip in clips for wanted in (clip.rgb, clip.flow) if wanted is not None)


def _holds(one: Range, wanted: WantedPictures, number: int) -> bool:
    """Whether a picture lies in a range."""
    offset, size = wanted.offsets[number], wanted.sizes[number]
    return one.shard == wanted.shard and one.begin <= offset and offset + size <= one.end


@dataclass
class _Reads:
    """What was asked for and is not done with."""

    reader: TarReader
    threads: ThreadPoolExecutor
    under_way: dict[Range, Future[Encoded]] = field(default_factory=dict)
    waiting_for: Counter[Range] = field(default_factory=Counter)

    def ask(self, demand: Demand) -> int:
        """Ask for what is not under way; the bytes of it."""
        new = [one for one in demand.ranges if one not in self.under_way]
        for one in new:
            self.under_way[one] = self.threads.submit(self.reader.read, one.shard, one.begin, one.end - one.begin)
        self.waiting_for.update(demand.ranges)
        return sum(one.end - one.begin for one in new)

    def deliver(self, demand: Demand, num_bytes: int) -> BatchPlan:
        """The batch with its pictures, once they are there."""
        found = {one: self._wait(one, demand.plan) for one in demand.ranges}
        self.waiting_for.subtract(demand.ranges)
        for one in demand.ranges:
            if not self.waiting_for[one] and one not in demand.kept:
                del self.under_way[one], self.waiting_for[one]
        return _with_pictures(demand.plan, found, num_bytes)

    def _wait(self, one: Range, plan: BatchPlan) -> Encoded:
        try:
            return self.under_way[one].result()
        except ActcliError as error:
            clip, wanted = next(pair for pair in _wanted(plan.clips) if _holds(one, pair[1], 0))
            raise broken_clip(clip, wanted, error) from error


def read_ahead(demands: Iterable[Demand], reader: TarReader) -> Iterator[BatchPlan]:
    """The batches of ``demands`` in their order, with their pictures.

    Raises:
        ActcliError: Bytes could not be had; names the tar.
    """
    threads = ThreadPoolExecutor(NUM_REQUESTS, "actcli-read")
    reads = _Reads(reader, threads)
    waiting: deque[tuple[Demand, int]] = deque()
    num_ahead = 0
    try:
        for demand in demands:
            num_bytes = reads.ask(demand)
            waiting.append((demand, num_bytes))
            num_ahead += num_bytes
            while num_ahead > AHEAD_BYTES:
                first, num_bytes = waiting.popleft()
                num_ahead -= num_bytes
                yield reads.deliver(first, num_bytes)
        while waiting:
            yield reads.deliver(*waiting.popleft())
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _with_pictures(plan: BatchPlan, found: dict[Range, Encoded], num_bytes: int) -> BatchPlan:
    """The pictures back to back, and plans that count from there."""
    data = bytearray()
    clips = []
    for clip in plan.clips:
        rgb, flow = (wanted and _inline(wanted, found, data) for wanted in (clip.rgb, clip.flow))
        clips.append(clip._replace(rgb=rgb, flow=flow))
    return BatchPlan(tuple(clips), bytes(data), num_bytes)


def _inline(wanted: WantedPictures, found: dict[Range, Encoded], data: bytearray) -> WantedPictures:
    pieces = {one: memoryview(piece) for one, piece in found.items() if one.shard == wanted.shard}
    begins = []
    for number, (offset, size) in enumerate(zip(wanted.offsets, wanted.sizes, strict=True)):
        one = next(one for one in pieces if _holds(one, wanted, number))
        begins.append(len(data))
        data += pieces[one][offset - one.begin : offset - one.begin + size]
    return wanted._replace(offsets=begins)


class ThreadedReader:
    """A reader for each thread that asks, since readers of tars are not for several."""

    def __init__(self, make: Callable[[], TarReader]) -> None:
        self._make, self._of_thread = make, threading.local()

    def read(self, shard_name: str, offset: int, size: int) -> Encoded:
        """``size`` bytes of a tar from ``offset``; raises as the reader does."""
        reader: TarReader | None = getattr(self._of_thread, "reader", None)
        if reader is None:
            reader = self._of_thread.reader = self._make()
        return reader.read(shard_name, offset, size)
