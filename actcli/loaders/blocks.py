"""Block order: an epoch planned as large consecutive ranges of the tars, shuffled and mixed. Plain integers only.

A store that is far away gives a few large ranges much faster than many small ones. So the clips of a split, as they lie
in the tars, are cut into *blocks* of some megabytes; the blocks are shuffled, laid end to end, and divided into as many
*lanes* as a global batch has clips; and in each lane a window of clips is shuffled:

    tars            a b c d | e f g h | i j k l         12 clips, blocks of 4
    shuffled        e f g h   i j k l   a b c d
    2 lanes         e f g h i j         k l a b c d
    windows of 3    g e f   j h i       a l k   c b d
    epoch order     g a e l f k j c h b i d             position p is clip p // 2 of lane p % 2

Position p belongs to rank ``p % world_size`` as in every order, and the number of ranks divides that of lanes; so a
lane is read by one rank, each byte once over all of them, and a run may go on with another number of ranks. Windows of
different lanes begin at different times, which spreads the requests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]

MIXED_BYTES = 256 << 20
"""Bytes of all lanes that are mixed with each other at a time, over all ranks."""
SMALLEST_BLOCK, LARGEST_BLOCK = 8 << 20, 32 << 20
"""Bytes of a block; half of a lane's share of ``MIXED_BYTES`` within these limits."""


@dataclass(frozen=True)
class Extent:
    """Where the clips of a split lie, each column ``[num_clips]``, as they lie in the tars."""

    shards: Integers
    """Number of the tar."""
    begins: Integers
    """First byte of all that is wanted of the clip."""
    ends: Integers
    """Byte after the last one."""

    def of(self, rows: Integers) -> "Extent":
        """The places of some clips."""
        return Extent(self.shards[rows], self.begins[rows], self.ends[rows])


@dataclass(frozen=True)
class Mixing:
    """How large blocks and windows are."""

    num_lanes: int
    """Clips of a global batch."""
    block_bytes: int
    """Bytes of a block, about."""
    window_bytes: int
    """Bytes of a lane that are shuffled with each other, about."""

    @staticmethod
    def of(num_lanes: int) -> "Mixing":
        """Sizes for global batches of ``num_lanes`` clips."""
        share = max(MIXED_BYTES // num_lanes, SMALLEST_BLOCK)
        return Mixing(num_lanes, min(max(share // 2, SMALLEST_BLOCK), LARGEST_BLOCK), share)


@dataclass(frozen=True)
class BlockOrder:
    """One epoch of all ranks together; each column ``[num_clips]``, by position in the epoch."""

    rows: Integers
    """The clip."""
    parts: Integers
    """Number of the part of a block that it is read with: clips of one part lie side by side and are in one lane."""


def block_order(extent: Extent, mixing: Mixing, seed: int, epoch: int) -> BlockOrder:
    """The order of an epoch, drawn from (seed, epoch) alone."""
    rng = np.random.Generator(np.random.Philox(key=[seed, epoch], counter=[0, 0, 0, 4]))
    starts = cut_blocks(extent, mixing.block_bytes)
    laid = _lay(starts, rng.permutation(len(starts) - 1))
    num_clips = len(laid)
    lanes, steps = _lanes(num_clips, mixing.num_lanes)
    blocks = np.searchsorted(starts, laid, side="right")
    parts = np.cumsum(np.r_[True, (np.diff(blocks) != 0) | (np.diff(lanes) != 0)]) - 1
    window = max(1, round(mixing.window_bytes * num_clips / max(int((extent.ends - extent.begins).sum()), 1)))
    windows = (steps + lanes * window // mixing.num_lanes) // window  # each lane begins elsewhere in its first window
    groups = np.cumsum(np.r_[0, (np.diff(windows) != 0) | (np.diff(lanes) != 0)])
    mixed = np.argsort(groups + rng.random(num_clips))
    positions = steps * mixing.num_lanes + lanes
    rows, part_of = np.empty_like(laid), np.empty_like(laid)
    rows[positions], part_of[positions] = laid[mixed], parts[mixed]
    return BlockOrder(rows, part_of)


def cut_blocks(extent: Extent, block_bytes: int) -> Integers:
    """Where blocks begin, and the end, ``[num_blocks + 1]``: clips side by side in one tar, cut every ``block_bytes``.

    A block ends with the clip that begins before the next multiple of ``block_bytes`` of its tar.
    """
    same = (np.diff(extent.shards) == 0) & (np.diff(extent.begins // block_bytes) == 0)
    return np.concatenate([[0], np.flatnonzero(~same) + 1, [len(extent.shards)]])


def _lay(starts: Integers, order: Integers) -> Integers:
    """The clips of the blocks in ``order``, end to end."""
    sizes: Integers = np.diff(starts)[order]
    ends: Integers = np.cumsum(sizes)
    first: Integers = np.repeat(starts[:-1][order] - (ends - sizes), sizes)
    return np.arange(len(first)) + first


def _lanes(num_clips: int, num_lanes: int) -> tuple[Integers, Integers]:
    """For clips laid end to end: the lane of each, and its number there.

    5 clips, 2 lanes  ->  0 0 0 1 1 and 0 1 2 0 1
    """
    sizes = (num_clips - np.arange(num_lanes) + num_lanes - 1) // num_lanes
    lanes = np.repeat(np.arange(num_lanes), sizes)
    return lanes, np.arange(num_clips) - np.repeat(np.cumsum(sizes) - sizes, sizes)


@dataclass(frozen=True)
class Parts:
    """What one rank reads of an epoch, from some step on."""

    shards: Integers
    """Number of each part's tar."""
    begins: Integers
    """First byte that is still wanted."""
    ends: Integers
    """Byte after the last one; a part of which nothing is wanted ends where it begins."""
    uses: Integers
    """Clips that are still to come from it."""

    @staticmethod
    def of(extent: Extent, order: BlockOrder, positions: Integers) -> "Parts":
        """The parts that the clips at ``positions`` are read with."""
        parts, wanted = order.parts[positions], extent.of(order.rows[positions])
        count = int(order.parts.max(initial=-1)) + 1
        begins, ends, shards = (
            np.full(count, np.iinfo(np.int64).max),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
        )
        np.minimum.at(begins, parts, wanted.begins)
        np.maximum.at(ends, parts, wanted.ends)
        shards[parts] = wanted.shards
        return Parts(shards, np.minimum(begins, ends), ends, np.bincount(parts, minlength=count))
