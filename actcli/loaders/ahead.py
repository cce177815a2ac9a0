"""Bytes of plans, read ahead by many threads: for shards that are far away, and for block order.

The batches come with their pictures in them (``BatchPlan.inline``), so that whatever carries them out waits for nobody.
Latency is hidden by depth: ``AHEAD_BYTES`` are asked for before they are needed, in up to ``NUM_CALLS`` calls at a
time.
"""

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import NamedTuple, TypeVar

from actcli.errors import ActcliError
from actcli.loaders.plan import BatchPlan, ClipPlan, WantedPictures, broken_clip
from actcli.shards.reader import Range
from actcli.shards.stream import Encoded, TarReader

Wish = TypeVar("Wish")

AHEAD_BYTES = 96 << 20
"""Bytes that are asked for before the batch that needs them; one batch at least."""
NUM_CALLS = 16
"""Threads that ask."""
CLIPS_A_CALL = 8
"""Clips that a thread asks for together in index order: waking one for each costs as much as the request itself."""
LARGEST_GAP = 256 << 10
"""Unwanted bytes between two pictures that are read along rather than asked around: a request costs as much."""


@dataclass(frozen=True)
class Demand:
    """A batch and the ranges that its pictures are in, which other batches may need too."""

    plan: BatchPlan
    """The batch."""
    ranges: tuple[Range, ...]
    """What has to be read, each range once."""
    kept: frozenset[Range] = frozenset()
    """Those that batches need which are not asked for yet."""


class _Asked(NamedTuple):
    """A batch that is on its way."""

    num_bytes: int
    """What was asked for."""
    wait: Callable[[], BatchPlan]
    """Gives the batch, once its pictures are there."""


def read_pictures_ahead(plans: Iterable[BatchPlan], reader: TarReader) -> Iterator[BatchPlan]:
    """The batches of ``plans`` in their order, with their pictures unless they are near; little else is read.

    Raises:
        ActcliError: Bytes could not be had; names the clip and the tar.
    """
    with _threads() as threads:

        def ask(plan: BatchPlan) -> _Asked:
            groups = [plan.clips[first : first + CLIPS_A_CALL] for first in range(0, len(plan.clips), CLIPS_A_CALL)]
            ranges = [_ranges_of(clips) for clips in groups]
            if all(map(reader.is_near, ranges)):
                return _Asked(0, lambda: plan)
            calls = [threads.submit(_read_pictures, reader, *together) for together in zip(groups, ranges, strict=True)]
            num_bytes = sum(one.end - one.begin for group in ranges for one in group)
            return _Asked(
                num_bytes,
                lambda: _with_pictures(plan, [picture for call in calls for picture in call.result()], num_bytes),
            )

        yield from _ahead(plans, ask)


def read_ranges_ahead(demands: Iterable[Demand], reader: TarReader) -> Iterator[BatchPlan]:
    """The batches of ``demands`` in their order, with their pictures unless they are near.

    What several batches need is read once.

    Raises:
        ActcliError: Bytes could not be had; names the clip and the tar.
    """
    with _threads() as threads:
        yield from _ahead(demands, _SharedReads(reader, threads).ask)


@contextmanager
def _threads() -> Iterator[ThreadPoolExecutor]:
    threads = ThreadPoolExecutor(NUM_CALLS, "actcli-read")
    try:
        yield threads
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def _ahead(wishes: Iterable[Wish], ask: Callable[[Wish], _Asked]) -> Iterator[BatchPlan]:
    """What was asked for, in its order: ``AHEAD_BYTES`` later, or at once where nothing had to be asked for."""
    waiting: deque[_Asked] = deque()
    num_ahead = 0
    for wish in wishes:
        waiting.append(ask(wish))
        num_ahead += waiting[-1].num_bytes
        while waiting and (num_ahead > AHEAD_BYTES or not waiting[0].num_bytes):
            first = waiting.popleft()
            num_ahead -= first.num_bytes
            yield first.wait()
    while waiting:
        yield waiting.popleft().wait()


def _ranges_of(clips: Iterable[ClipPlan]) -> list[Range]:
    """The ranges that hold the pictures of some clips and little else."""
    return list(dict.fromkeys(one for _, wanted in _wanted(clips) for one in _merged(wanted)))


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


def _read_pictures(reader: TarReader, clips: Sequence[ClipPlan], ranges: Sequence[Range]) -> list[bytes]:
    """The pictures of some clips; what was read along with them is let go at once."""
    pieces = dict(zip(ranges, reader.try_ranges(ranges), strict=True))
    return [bytes(picture) for picture in _cut_out(clips, pieces)]


@dataclass
class _SharedReads:
    """What was asked for and is not done with."""

    reader: TarReader
    threads: ThreadPoolExecutor
    under_way: dict[Range, Future[list[Encoded | ActcliError]]] = field(default_factory=dict)
    waiting_for: Counter[Range] = field(default_factory=Counter)

    def ask(self, demand: Demand) -> _Asked:
        """Ask for what is not under way."""
        self.waiting_for.update(demand.ranges)
        if self.reader.is_near(demand.ranges):
            return _Asked(0, lambda: self._near(demand))
        new = [one for one in demand.ranges if one not in self.under_way]
        for one in new:
            self.under_way[one] = self.threads.submit(self.reader.try_ranges, [one])
        num_bytes = sum(one.end - one.begin for one in new)
        return _Asked(num_bytes, lambda: self._wait(demand, num_bytes))

    def _wait(self, demand: Demand, num_bytes: int) -> BatchPlan:
        found = {one: self.under_way[one].result()[0] for one in demand.ranges}
        self._let_go(demand)
        return _with_pictures(demand.plan, list(_cut_out(demand.plan.clips, found)), num_bytes)

    def _near(self, demand: Demand) -> BatchPlan:
        self._let_go(demand)
        return demand.plan

    def _let_go(self, demand: Demand) -> None:
        self.waiting_for.subtract(demand.ranges)
        for one in demand.ranges:
            if not self.waiting_for[one] and one not in demand.kept:
                self.under_way.pop(one, None)
                del self.waiting_for[one]


def _cut_out(clips: Iterable[ClipPlan], pieces: Mapping[Range, Encoded | ActcliError]) -> Iterator[memoryview]:
    """The pictures of some clips, one after the other, out of what was read."""
    for clip, wanted in _wanted(clips):
        of_tar = [(one, piece) for one, piece in pieces.items() if one.shard == wanted.shard]
        for offset, size in zip(wanted.offsets, wanted.sizes, strict=True):
            one, piece = next(pair for pair in of_tar if pair[0].begin <= offset and offset + size <= pair[0].end)
            if isinstance(piece, ActcliError):
                raise broken_clip(clip, wanted, piece) from piece
            yield memoryview(piece)[offset - one.begin : offset - one.begin + size]


def _with_pictures(plan: BatchPlan, pictures: Sequence[Encoded], num_bytes: int) -> BatchPlan:
    """A batch with its pictures back to back, and plans that count from there."""
    begins = accumulate(map(len, pictures), initial=0)

    def counted(wanted: WantedPictures | None) -> WantedPictures | None:
        return wanted and wanted._replace(offsets=list(islice(begins, len(wanted.offsets))))

    clips = tuple(clip._replace(rgb=counted(clip.rgb), flow=counted(clip.flow)) for clip in plan.clips)
    return BatchPlan(clips, b"".join(pictures), num_bytes)


class ThreadedReader:
    """A reader for each thread that asks, since readers of tars are not for several."""

    def __init__(self, make: Callable[[], TarReader]) -> None:
        self._make, self._of_thread = make, threading.local()

    def try_ranges(self, ranges: Sequence[Range]) -> list[Encoded | ActcliError]:
        """The bytes of each range, or why they could not be had."""
        return self._reader().try_ranges(ranges)

    def is_near(self, ranges: Sequence[Range]) -> bool:
        """Whether all of it is kept on this machine."""
        return self._reader().is_near(ranges)

    def _reader(self) -> TarReader:
        reader: TarReader | None = getattr(self._of_thread, "reader", None)
        if reader is None:
            reader = self._of_thread.reader = self._make()
        return reader
