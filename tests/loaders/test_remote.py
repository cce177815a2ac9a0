"""Shards that are far away: block order and the cache give the batches of the folder, and fetch nothing twice."""

import multiprocessing
import os
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
from few_batches import SMALL, batches, same
from range_server import Together, served

import actcli.loaders.ahead as ahead
import actcli.loaders.blocks as blocks
import actcli.remote as remote
import actcli.shards.cache as cache
from actcli.errors import ActcliError
from actcli.loaders import Reading, open_loader
from actcli.loaders.ahead import Demand, read_ranges_ahead
from actcli.loaders.plan import BatchPlan
from actcli.shards import ShardSet
from actcli.shards.cache import CachedReader, ChunkCache
from actcli.shards.reader import Range
from actcli.shards.stream import RetryingReader

BLOCKS = Reading("blocks")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Blocks and chunks that are small beside the tars of the tests."""
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(blocks, "SMALLEST_BLOCK", 60_000)
    monkeypatch.setattr(blocks, "MIXED_BYTES", 400_000)
    monkeypatch.setattr(cache, "CHUNK_BYTES", 20_000)


def keys(found):
    return [key for batch in found for key in batch[0]]


@pytest.mark.parametrize("setup", [{}, {"workers": 2}, {"backend": "dali"}, {"seed": 4}], ids=str)
def test_blocks_from_a_url_are_those_of_the_folder(make_shards, setup):
    root = make_shards(num_clips=12)
    wanted = batches(root, reading=BLOCKS, **setup)
    with served(root) as server:
        assert same(batches(server.url, **setup), wanted)
    assert sorted(keys(wanted)) == list(range(12))


@pytest.mark.parametrize("modality", ["rgb", "flow", "two_stream"])
def test_blocks_hold_what_the_modality_needs(make_shards, modality):
    root = make_shards(num_clips=10, flow=True)
    setup = SMALL | {"modality": modality, "reading": BLOCKS, "drop_last": False}
    with open_loader(root, **setup) as loader:
        found = sorted(key for batch in loader for key in batch.keys.tolist())
        assert len(found) == loader.num_clips


def test_the_ranks_of_an_epoch_fetch_each_byte_once(make_shards):
    root = make_shards(num_clips=24, num_shards=3)
    with served(root) as server:
        for rank in (0, 1):
            batches(server.url, rank=rank, world_size=2)
        asked = [request for request in server.requests if request[0].endswith(".tar")]
        bytes_of = Counter()
        for name, begin, end in asked:
            bytes_of.update((name, at) for at in range(begin, end))
    assert set(bytes_of.values()) == {1}
    assert len(asked) < 24


def test_block_order_goes_on_where_it_stopped_and_fetches_no_more_than_is_left(make_shards):
    root = make_shards(num_clips=24, num_shards=2)
    whole = batches(root, reading=BLOCKS, seed=2)
    with open_loader(root, reading=BLOCKS, seed=2, **SMALL) as loader:
        for _ in zip(range(9), loader, strict=False):
            pass
        state = loader.state_dict()
    with served(root) as server:
        with open_loader(server.url, seed=2, **SMALL) as loader:
            loader.load_state_dict(state)
            rest = [(batch.keys.tolist(), batch.labels.tolist(), batch.clips.clone()) for batch in loader]
        fetched = sum(end - begin for name, begin, end in server.requests if name.endswith(".tar"))
    assert same(rest, whole[9:])
    assert fetched < sum(path.stat().st_size for path in root.glob("*.tar")) / 2


def test_a_state_of_another_order_is_refused(make_shards):
    root = make_shards(num_clips=8)
    with open_loader(root, reading=BLOCKS, **SMALL) as loader:
        state = loader.state_dict()
    with (
        open_loader(root, **SMALL) as loader,
        pytest.raises(ActcliError, match=r"another setup: clip list .*in blocks of"),
    ):
        loader.load_state_dict(state)


def test_an_unknown_order_is_refused(make_shards):
    with pytest.raises(ActcliError, match=r"unknown order 'random'\. As order, choose auto, index, blocks"):
        open_loader(make_shards(), reading=Reading("random"), **SMALL)


def test_no_more_than_the_limit_is_asked_for_ahead(make_shards, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 1)
    root = make_shards(num_clips=12)
    with served(root) as server, open_loader(server.url, reading=Reading("index"), **SMALL) as loader:
        next(iter(loader))
        asked = sum(name.endswith(".tar") for name, *_ in server.requests)
    assert asked <= 4 * SMALL["batch_size"] * SMALL["num_frames"]


def test_batches_are_fetched_at_the_same_time(make_shards):
    root = make_shards(num_clips=8, num_shards=1)
    with served(root) as server:
        server.together = Together(3)  # three clips: more than a batch
        with open_loader(server.url, reading=Reading("index"), **SMALL) as loader:
            next(iter(loader))
        assert len(server.together.asked) == server.together.number


def test_reading_ahead_ends_with_the_loader(make_shards):
    root = make_shards(num_clips=12)
    with open_loader(root, reading=BLOCKS, **SMALL) as loader:
        next(iter(loader))
    del loader
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("actcli-read") and busy(thread)]


def busy(thread):
    thread.join(60)
    return thread.is_alive()


def test_what_several_batches_need_is_read_once_and_let_go_after_the_last():
    def demand(*ranges, kept=()):
        return Demand(BatchPlan(()), ranges, frozenset(kept))

    class Counting:
        def __init__(self):
            self.asked = []

        def try_ranges(self, ranges):
            self.asked += [one.begin for one in ranges]
            return [bytes(one.end - one.begin) for one in ranges]

        def is_near(self, ranges):
            return False

    counting = Counting()
    a, b = Range("a", 0, 10), Range("a", 20, 30)
    demands = [demand(a, kept=[a]), demand(a, b), demand(b), demand(a)]
    assert [plan.num_bytes for plan in read_ranges_ahead(demands, counting)] == [10, 10, 0, 0]
    assert sorted(counting.asked) == [0, 20]


def test_ranges_that_come_near_are_let_go_of_too():
    ranges = [Range("a", 0, 10), Range("a", 20, 30)]

    class ComingNear:
        near = False

        def try_ranges(self, ranges):
            return [bytes(10) for _ in ranges]

        def is_near(self, ranges):
            return self.near

    reader, plans = ComingNear(), [BatchPlan(()) for _ in range(3)]
    with ThreadPoolExecutor(1) as threads:
        reads = ahead._SharedReads(reader, threads)
        far = [reads.ask(Demand(plan, tuple(ranges), frozenset(ranges[:1]))) for plan in plans[:2]]
        reader.near = True
        near = reads.ask(Demand(plans[2], tuple(ranges)))
        assert [asked.num_bytes for asked in (*far, near)] == [20, 0, 0]
        assert [asked.wait().inline for asked in far] == [b"", b""]
        assert reads.under_way.keys() == set(ranges)
        assert near.wait() is plans[2]
        assert not reads.under_way
        assert not reads.waiting_for


def test_no_more_batches_are_planned_than_needed_where_all_is_near():
    class Near:
        def is_near(self, ranges):
            return True

    planned = iter([BatchPlan(()) for _ in range(5)])
    next(ahead.read_pictures_ahead(planned, Near()))
    assert len(list(planned)) == 4


def test_of_clips_that_are_asked_for_together_the_one_that_is_not_there_is_named(make_shards):
    root = make_shards(num_clips=8, num_shards=2)
    with served(root) as server, open_loader(server.url, reading=Reading("index"), **SMALL) as loader:
        (root / "train-000001.tar").unlink()
        with pytest.raises(ActcliError, match=r"clip 0000000\d\d in shard train-000001\.tar cannot be read: bytes"):
            for _ in loader:
                pass


def test_a_changed_byte_in_a_block_is_noticed(make_shards):
    root = make_shards(num_clips=4, num_shards=1)
    path = root / "train-000000.tar"
    data = bytearray(path.read_bytes())
    for at in range(data.index(b"\xff\xd8"), len(data), 300):
        data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ActcliError, match=r"clip \d+ in shard train-000000.tar.*have changed"):
        batches(root, reading=BLOCKS)


# --- The cache --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["index", "blocks"])
def test_the_second_epoch_asks_the_server_for_nothing(make_shards, tmp_path, order):
    root = make_shards(num_clips=12)
    reading = Reading(order, str(tmp_path / "cache"))
    with served(root) as server, open_loader(server.url, reading=reading, **SMALL) as loader:
        first = keys([(batch.keys.tolist(),) for batch in loader])
        server.requests.clear()
        loader.set_epoch(1)
        second = keys([(batch.keys.tolist(),) for batch in loader])
        missing = set(range(12)) - set(first)
        assert sorted(first) == sorted(second) == sorted(set(range(12)) - missing)
        assert [request for request in server.requests if request[0].endswith(".tar")] == []


@pytest.mark.parametrize("order", ["index", "blocks"])
@pytest.mark.parametrize("backend", ["cpu", "dali"])
def test_whoever_decodes_reads_the_cache_itself(make_shards, tmp_path, order, backend):
    root = make_shards(num_clips=12)
    reading = Reading(order, str(tmp_path / "cache"))
    setup = SMALL | {"workers": 2, "backend": backend, "reading": reading}
    with open_loader(root, **setup | {"reading": Reading(order)}) as loader:
        wanted = epochs_of(loader, 3)
    with served(root) as server, open_loader(server.url, **setup) as loader:
        assert same(epochs_of(loader, 3), wanted)
        plans = list(loader._epochs.epoch(loader.order, 1, 0))
    assert [plan.inline for plan in plans] == [None] * len(plans)


@pytest.mark.parametrize("order", ["index", "blocks"])
def test_a_chunk_that_is_gone_when_it_is_to_be_decoded_is_fetched_again(make_shards, tmp_path, order, monkeypatch):
    root = make_shards(num_clips=12)
    wanted = batches(root, reading=Reading(order))
    monkeypatch.setattr(ChunkCache, "is_checked", lambda self, chunk: True)
    with served(root) as server:
        assert same(batches(server.url, workers=2, reading=Reading(order, str(tmp_path))), wanted)


def epochs_of(loader, count):
    found = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        found += [(batch.keys.tolist(), batch.labels.tolist(), batch.clips.clone()) for batch in loader]
    return found


def test_the_cache_serves_other_processes(make_shards, tmp_path):
    root = make_shards(num_clips=12)
    reading = Reading("index", str(tmp_path / "cache"))
    wanted = batches(root)
    with served(root) as server:
        assert same(batches(server.url, reading=reading), wanted)
        server.requests.clear()
        assert same(batches(server.url, reading=reading, workers=2), wanted)
        assert not any(name.endswith(".tar") for name, *_ in server.requests)


def test_a_damaged_chunk_is_fetched_again(make_shards, tmp_path):
    root = make_shards(num_clips=6)
    reading = Reading("index", str(tmp_path))
    wanted = batches(root)
    with served(root) as server:
        batches(server.url, reading=reading)
        chunks = sorted(tmp_path.rglob("*.chunk"))
        chunks[0].write_bytes(b"")
        for chunk in chunks[1:]:
            data = bytearray(chunk.read_bytes())
            data[len(data) // 2] ^= 1
            chunk.write_bytes(data)
        assert same(batches(server.url, reading=reading), wanted)
        assert same(batches(server.url, reading=reading), wanted)


@contextmanager
def cached(root, folder, max_chunks):
    shards = ShardSet.open(root)
    yield (
        CachedReader(RetryingReader(shards.root), shards.card, ChunkCache(folder, max_chunks * cache.CHUNK_BYTES)),
        shards.card.shards,
    )


def read(reader, tar, begin, size):
    return reader.read_ranges([Range(tar.name, begin, begin + size)])[0]


def test_what_was_used_last_stays(make_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SLACK", 0.0)
    monkeypatch.setattr(cache, "_USE_SECONDS", -1.0)
    root = make_shards(num_clips=40, num_shards=1)
    with cached(root, tmp_path, 16) as (tar_reader, [tar]):
        count = -(-tar.bytes // cache.CHUNK_BYTES)
        assert count > 20
        for number in range(count):
            read(tar_reader, tar, number * cache.CHUNK_BYTES, 10)
            read(tar_reader, tar, 0, 10)  # used all the time
            for path in tmp_path.rglob("*.chunk"):  # clocks of file systems are coarse
                status = path.stat()
                os.utime(path, (status.st_atime, status.st_mtime - 10))
    left = sorted(int(path.stem) for path in tmp_path.rglob("*.chunk"))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.chunk")) <= 16 * cache.CHUNK_BYTES
    assert left[0] == 0
    assert left[1:] == list(range(count - len(left) + 1, count))


def test_only_chunks_are_ever_deleted(make_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_SLACK", 0.0)
    root = make_shards(num_clips=40, num_shards=1)
    (tmp_path / "actcli-chunks" / "mine").mkdir(parents=True)
    foreign = [tmp_path / "a.chunk", tmp_path / "actcli-chunks" / "mine" / "notes.txt"]
    for path in foreign:
        path.write_text("mine")
    with cached(root, tmp_path, 16) as (tar_reader, [tar]):
        read(tar_reader, tar, 0, tar.bytes)
    assert all(path.read_text() == "mine" for path in foreign)


def read_all(root, folder, number):
    with cached(root, folder, 16) as (tar_reader, [tar]):
        rng = np.random.default_rng(number)
        wanted = (root / tar.name).read_bytes()
        for _ in range(150):
            begin = int(rng.integers(0, tar.bytes - 30_000))
            if bytes(read(tar_reader, tar, begin, 30_000)) != wanted[begin : begin + 30_000]:
                os._exit(3)
    os._exit(0)


def test_processes_that_are_killed_and_share_a_small_cache_read_the_right_bytes(make_shards, tmp_path):
    root = make_shards(num_clips=40, num_shards=1)
    context = multiprocessing.get_context("fork")
    readers = [context.Process(target=read_all, args=(root, tmp_path, number)) for number in range(4)]
    for process in readers:
        process.start()
    readers[0].kill()
    for process in readers:
        process.join(250)
    assert [process.exitcode for process in readers[1:]] == [0, 0, 0]
    read = context.Process(target=read_all, args=(root, tmp_path, 9))
    read.start()
    read.join(250)
    assert read.exitcode == 0


def test_a_full_disk_under_the_cache_costs_the_cache_only(make_shards, tmp_path, monkeypatch):
    root = make_shards(num_clips=6)
    wanted = batches(root)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ChunkCache, "_make_room", full)
    with served(root) as server, pytest.warns(RuntimeWarning, match="No space left on device.*goes on without it"):
        assert same(batches(server.url, reading=Reading("index", str(tmp_path))), wanted)


def test_a_cache_of_a_local_folder_or_of_no_size_is_refused(make_shards, tmp_path):
    root = make_shards(num_clips=4)
    with pytest.raises(ActcliError, match="is a local folder, which needs no cache"):
        open_loader(root, reading=Reading(cache_dir=str(tmp_path)), **SMALL)
    with pytest.raises(ActcliError, match="cache of 5 bytes is too small"):
        ChunkCache(tmp_path, 5)
    (tmp_path / "file").write_text("")
    with pytest.raises(ActcliError, match=r"cannot be used \(Not a directory\)|File exists"):
        ChunkCache(tmp_path / "file", 1 << 30)
