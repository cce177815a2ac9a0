"""Several processes with gloo: equal steps on every rank, every clip once."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist

from actcli.loaders import open_loader


def _rank(rank, world_size, root, store, training, shuffle_buffer, results):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    setup = {"num_frames": 2, "size": 40, "batch_size": 2, "workers": 1, "training": training}
    setup["shuffle_buffer"] = shuffle_buffer
    keys = []
    with open_loader(root, rank=rank, world_size=world_size, **setup) as loader:
        for batch in loader:
            dist.all_reduce(torch.zeros(1))  # hangs unless every rank makes this step
            keys.append(batch.keys.tolist())
    results.put((rank, keys))
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shuffle_buffer", [None, 5])
def test_all_ranks_make_the_same_steps_and_share_the_clips(make_shards, tmp_path, world_size, training, shuffle_buffer):
    root = make_shards(num_clips=13, num_frames=3, num_shards=3)
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    arguments = (world_size, root, tmp_path / "store", training, shuffle_buffer, results)
    ranks = [context.Process(target=_rank, args=(rank, *arguments)) for rank in range(world_size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(250)
        assert process.exitcode == 0
    keys = dict(results.get() for _ in ranks)
    steps = {len(batches) for batches in keys.values()}
    seen = sorted(key for batches in keys.values() for batch in batches for key in batch)
    if training:
        assert steps == {13 // (2 * world_size)}
        assert len(seen) == len(set(seen)) == steps.pop() * 2 * world_size
    else:
        assert steps == {-(-13 // (2 * world_size))}
        assert seen == list(range(13))
