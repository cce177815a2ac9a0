"""Block order as plain integers: every clip once, every byte read once, the same whatever the number of ranks."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcli.loaders.blocks import BlockOrder, Extent, Mixing, Parts, block_order, cut_blocks
from actcli.loaders.order import Order


def clips(sizes, per_tar=7, gap=10):
    """Clips of ``sizes`` bytes, ``per_tar`` in a tar, with ``gap`` bytes of headers before each."""
    sizes = np.asarray(sizes, np.int64)
    shards = np.arange(len(sizes)) // per_tar
    ends = np.concatenate([np.cumsum(part + gap) for part in np.split(sizes, range(per_tar, len(sizes), per_tar))])
    return Extent(shards, ends - sizes, ends)


def read_by(extent, order: BlockOrder, rank, world_size, first=0):
    mine = np.arange(rank, len(order.rows), world_size)
    return Parts.of(extent, order, mine[mine >= first])


def test_twelve_clips_in_three_blocks_make_two_lanes():
    extent = clips([10] * 12, per_tar=4, gap=0)
    order = block_order(extent, Mixing(2, 40, 30), seed=0, epoch=0)
    lanes = [order.rows[lane::2] // 4 for lane in (0, 1)]
    assert [len(set(blocks)) for blocks in lanes] == [2, 2]
    assert len(set(lanes[0]) & set(lanes[1])) == 1  # the block in the middle is cut
    assert len(np.unique(order.parts)) == 4


@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=60),
    st.sampled_from([1, 2, 4, 6, 12]),
    st.integers(1, 500),
    st.integers(1, 900),
    st.integers(0, 3),
)
def test_every_clip_comes_once_and_lies_in_the_part_it_is_read_with(sizes, lanes, block_bytes, window_bytes, epoch):
    extent = clips(sizes)
    order = block_order(extent, Mixing(lanes, block_bytes, window_bytes), seed=3, epoch=epoch)
    assert sorted(order.rows) == list(range(len(sizes)))
    parts = Parts.of(extent, order, np.arange(len(sizes)))
    assert (parts.shards[order.parts] == extent.shards[order.rows]).all()
    assert (parts.begins[order.parts] <= extent.begins[order.rows]).all()
    assert (parts.ends[order.parts] >= extent.ends[order.rows]).all()
    assert parts.uses.sum() == len(sizes)


@given(st.lists(st.integers(1, 200), min_size=24, max_size=80), st.integers(1, 500), st.integers(1, 900))
def test_parts_of_all_ranks_do_not_overlap(sizes, block_bytes, window_bytes):
    extent = clips(sizes)
    order = block_order(extent, Mixing(12, block_bytes, window_bytes), seed=1, epoch=2)
    for world_size in (1, 2, 3, 4, 12):
        ranges = []
        for rank in range(world_size):
            parts = read_by(extent, order, rank, world_size)
            used = parts.uses > 0
            ranges += zip(parts.shards[used], parts.begins[used], parts.ends[used], strict=True)
        ranges.sort()
        assert all(a[0] < b[0] or a[2] <= b[1] for a, b in itertools.pairwise(ranges))


def test_the_order_hangs_on_seed_and_epoch_and_not_on_ranks():
    extent, mixing = clips([50] * 64), Mixing(8, 200, 400)
    first = block_order(extent, mixing, seed=0, epoch=0)
    assert (first.rows == block_order(extent, mixing, seed=0, epoch=0).rows).all()
    assert (first.rows != block_order(extent, mixing, seed=0, epoch=1).rows).any()
    assert (first.rows != block_order(extent, mixing, seed=1, epoch=0).rows).any()


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_global_batches_are_the_same_for_any_number_of_ranks(world_size):
    extent = clips([50] * 70)
    rows = block_order(extent, Mixing.of(8), seed=0, epoch=5).rows
    ranks = [Order(70, 8 // world_size, True, True, 0, rank, world_size) for rank in range(world_size)]
    steps = [
        np.sort(np.concatenate(parts)) for parts in zip(*([p for _, p in o.batches(5)] for o in ranks), strict=True)
    ]
    assert [sorted(rows[step]) for step in steps] == [sorted(rows[8 * n : 8 * n + 8]) for n in range(8)]


def test_a_part_is_read_from_the_first_clip_that_is_still_wanted():
    extent = clips([100] * 40, per_tar=40)
    order = block_order(extent, Mixing(2, 1000, 1000), seed=0, epoch=0)
    whole, rest = read_by(extent, order, 0, 2), read_by(extent, order, 0, 2, first=30)
    assert rest.uses.sum() == 5
    assert (rest.ends - rest.begins).sum() < (whole.ends - whole.begins).sum() / 2


def test_a_block_ends_with_its_tar_and_with_its_bytes():
    extent = clips([100] * 10, per_tar=6, gap=0)
    assert cut_blocks(extent, 300).tolist() == [0, 3, 6, 9, 10]
    assert cut_blocks(extent, 10_000).tolist() == [0, 6, 10]


@pytest.mark.parametrize(("lanes", "block", "window"), [(1, 32, 256), (8, 16, 32), (64, 8, 8), (4096, 8, 8)])
def test_blocks_have_8_to_32_megabytes(lanes, block, window):
    assert Mixing.of(lanes) == Mixing(lanes, block << 20, window << 20)


def test_1000_ranks_read_equal_shares_and_each_byte_once():
    rng = np.random.default_rng(0)
    extent = clips(rng.integers(300_000, 900_000, 200_000), per_tar=400, gap=1024)
    order = block_order(extent, Mixing.of(8000), seed=0, epoch=0)
    ranks = range(0, 1000, 50)  # a sample: each takes a moment
    shares = np.array([(p.ends - p.begins).sum() for p in (read_by(extent, order, rank, 1000) for rank in ranks)])
    wanted = (extent.ends - extent.begins).sum() / 1000
    assert shares.min() > 0.9 * wanted
    assert shares.max() < 1.1 * wanted
