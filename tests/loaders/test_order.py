"""Epoch order: every clip once, equal steps on all ranks, nothing but a function of its arguments."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.loaders.order import Order

SETUPS = {
    "num_clips": st.integers(1, 300),
    "batch_size": st.integers(1, 17),
    "world_size": st.integers(1, 5),
    "seed": st.integers(0, 2**32),
    "epoch": st.integers(0, 1000),
}


def all_ranks(epoch, world_size, **setup):
    return [
        [rows.tolist() for rows, _ in Order(**setup, rank=rank, world_size=world_size).batches(epoch)]
        for rank in range(world_size)
    ]


@given(**SETUPS, shuffle=st.booleans())
def test_without_dropping_every_clip_comes_once_in_equal_steps(num_clips, batch_size, world_size, seed, epoch, shuffle):
    ranks = all_ranks(
        epoch, world_size, num_clips=num_clips, batch_size=batch_size, seed=seed, shuffle=shuffle, drop_last=False
    )
    assert len({len(batches) for batches in ranks}) == 1
    assert sorted(row for batches in ranks for rows in batches for row in rows) == list(range(num_clips))
    assert all(len(rows) <= batch_size for batches in ranks for rows in batches)
    if num_clips >= world_size * len(ranks[0]):
        assert all(rows for batches in ranks for rows in batches)


@given(**SETUPS)
def test_with_dropping_every_batch_is_full_and_no_clip_comes_twice(num_clips, batch_size, world_size, seed, epoch):
    setup = {"num_clips": num_clips, "batch_size": batch_size, "seed": seed, "shuffle": True, "drop_last": True}
    if num_clips < batch_size * world_size:
        with pytest.raises(ActcliError, match="do not fill one batch"):
            all_ranks(epoch, world_size, **setup)
        return
    ranks = all_ranks(epoch, world_size, **setup)
    rows = [row for batches in ranks for rows in batches for row in rows]
    assert len(set(rows)) == len(rows)
    assert num_clips - len(rows) < batch_size * world_size
    assert all(len(rows) == batch_size for batches in ranks for rows in batches)


@given(**SETUPS)
def test_the_global_batches_do_not_depend_on_the_number_of_ranks(num_clips, batch_size, world_size, seed, epoch):
    global_batch = batch_size * world_size
    if num_clips < global_batch:
        return
    setup = {"num_clips": num_clips, "seed": seed, "shuffle": True, "drop_last": True}
    ranks = all_ranks(epoch, world_size, batch_size=batch_size, **setup)
    [alone] = all_ranks(epoch, 1, batch_size=global_batch, **setup)
    joined = [sorted(itertools.chain(*parts)) for parts in zip(*ranks, strict=True)]
    assert joined == [sorted(rows) for rows in alone]


@given(**SETUPS, first_step=st.integers(0, 50))
def test_starting_at_a_step_gives_the_rest_of_the_epoch(num_clips, batch_size, world_size, seed, epoch, first_step):
    order = Order(num_clips, batch_size, True, False, seed, 0, world_size)
    whole = [rows.tolist() for rows, _ in order.batches(epoch)]
    assert [rows.tolist() for rows, _ in order.batches(epoch, first_step)] == whole[first_step:]


def test_epochs_and_seeds_differ():
    orders = {tuple(Order(50, 5, True, True, seed).epoch(epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_every_position_is_equally_likely():
    places = np.array([np.argsort(Order(10, 1, True, True, 3).epoch(epoch)) for epoch in range(3000)])
    assert abs(places.mean(axis=0) - 4.5).max() < 0.25


def test_evaluation_keeps_the_order_of_the_index():
    assert all_ranks(0, 2, num_clips=5, batch_size=2, shuffle=False, drop_last=False) == [[[0, 2], [4]], [[1], [3]]]


def test_a_rank_outside_the_world_is_refused():
    with pytest.raises(ActcliError, match="rank 2 of 2"):
        Order(10, 1, True, True, rank=2, world_size=2)
