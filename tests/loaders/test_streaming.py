"""Shards behind a URL: range requests through the index, tars read through without it, connections that fail."""

import socket
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
import torch
from few_batches import SMALL, batches, same
from range_server import Together, served

import actcli.loaders.ahead as ahead
import actcli.remote as remote
import actcli.shards.stream as stream
from actcli.errors import ActcliError
from actcli.loaders import Reading, open_loader
from actcli.shards import ShardSet


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_url_gives_the_batches_of_the_folder(make_shards, workers):
    root = make_shards(num_clips=6)
    with served(root) as server:
        reading = Reading("index")
        assert same(batches(server.url, workers=workers, reading=reading), batches(root))


def test_a_file_url_gives_the_batches_of_the_folder(make_shards):
    root = make_shards(num_clips=6)
    assert same(batches(root.as_uri()), batches(root))


def test_only_the_frames_that_are_needed_are_requested(make_shards, monkeypatch):
    monkeypatch.setattr(ahead, "LARGEST_GAP", 0)
    root = make_shards(num_clips=4, num_frames=40)
    with served(root) as server:
        with open_loader(server.url, training=False, **SMALL) as loader:
            list(loader)
            used = loader.num_bytes_read
        tars = sum(end - begin for name, begin, end in server.requests if name.endswith(".tar"))
    assert used == tars
    assert tars < sum(path.stat().st_size for path in root.glob("*.tar")) / 5


def test_a_lost_connection_is_tried_again(make_shards):
    root = make_shards(num_clips=6)
    with served(root) as server:
        server.fail = lambda name, number: name.endswith(".tar") and number % 5 == 0
        assert same(batches(server.url, reading=Reading("index")), batches(root))


def test_a_connection_that_stays_lost_names_shard_and_clip(make_shards):
    root = make_shards(num_clips=4, num_shards=1)
    with served(root) as server:
        server.fail = lambda name, number: name.endswith(".tar")
        with pytest.raises(ActcliError, match=r"clip 00000000\d in shard train-000000\.tar cannot be read"):
            batches(server.url)


def test_streaming_for_evaluation_gives_the_indexed_batches(make_shards):
    root = make_shards(num_clips=7, num_shards=1, flow=True)
    for setup in ({"num_crops": 3}, {"workers": 2}, {"backend": "dali"}):
        wanted = batches(root, training=False, **setup)
        assert same(batches(root, training=False, shuffle_buffer=4, **setup), wanted)


def test_streaming_flow_leaves_out_clips_without_it(make_shards):
    root = make_shards(num_clips=7, num_shards=1, flow=True)
    wanted = batches(root, training=False, modality="flow")
    with open_loader(root, training=False, modality="flow", shuffle_buffer=4, **SMALL) as loader:
        assert same([(b.keys.tolist(), b.labels.tolist(), b.clips.clone()) for b in loader], wanted)
        assert loader.num_without_flow == 1


def test_a_streamed_epoch_gives_every_clip_once_in_another_order(make_shards):
    root = make_shards(num_clips=24, num_shards=4)
    orders = []
    with open_loader(root, shuffle_buffer=5, **SMALL) as loader:
        assert len(loader) == 12
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            orders.append([key for batch in loader for key in batch.keys.tolist()])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(24))
    assert orders[0] != orders[1]
    assert np.abs(np.diff(orders[0])).max() > 4


def test_a_stream_resumes_where_it_stopped(make_shards):
    root = make_shards(num_clips=12, num_shards=3)
    whole = batches(root, shuffle_buffer=4, seed=2)
    with open_loader(root, shuffle_buffer=4, seed=2, **SMALL) as loader:
        for _ in zip(range(2), loader, strict=False):
            pass
        state = loader.state_dict()
    with open_loader(root, shuffle_buffer=4, seed=2, **SMALL) as loader:
        loader.load_state_dict(state)
        rest = [(batch.keys.tolist(), batch.labels.tolist(), batch.clips.clone()) for batch in loader]
    assert same(rest, whole[2:])


def test_a_stream_from_a_url_survives_lost_connections(make_shards, monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 5000)
    root = make_shards(num_clips=6)
    with served(root) as server:
        server.fail = lambda name, number: name.endswith(".tar") and number % 4 == 0
        assert same(batches(server.url, shuffle_buffer=3), batches(root, shuffle_buffer=3))


def test_a_damaged_tar_names_itself_and_the_last_good_clip(make_shards):
    root = make_shards(num_clips=4, num_shards=1)
    path = root / "train-000000.tar"
    data = bytearray(path.read_bytes())
    begin = data.index(b"000000002.json")
    data[begin + 100 : begin + 160] = bytes(60)
    path.write_bytes(data)
    clips = stream.stream_clips(ShardSet.open(root), ["train-000000.tar"])
    with pytest.raises(ActcliError, match=r"shard train-000000\.tar broke off after clip 000000001: 2 more clips"):
        list(clips)


def test_two_streams_come_from_one_stream_of_tars(make_shards):
    root = make_shards(num_clips=8, flow=True)
    settings = {"num_frames": 2, "size": 32, "batch_size": 2, "workers": 0, "training": False, "modality": "two_stream"}
    indexed = [(batch.keys.tolist(), batch.rgb, batch.flow) for batch in open_loader(root, **settings)]
    streamed = [(b.keys.tolist(), b.rgb, b.flow) for b in open_loader(root, shuffle_buffer=4, **settings)]
    by_key = {key: (rgb[n], flow[n]) for keys, rgb, flow in indexed for n, key in enumerate(keys)}
    seen = [key for keys, _, _ in streamed for key in keys]
    assert sorted(seen) == sorted(by_key)
    for keys, rgb, flow in streamed:
        for n, key in enumerate(keys):
            assert torch.equal(rgb[n], by_key[key][0])
            assert torch.equal(flow[n], by_key[key][1])


def test_a_stream_of_a_split_without_tars_is_refused(make_shards):
    shards = ShardSet.open(make_shards(num_clips=3))
    empty = replace(shards, card=replace(shards.card, split_sets={"1": {"train": 3, "val": 0}}))
    with pytest.raises(ActcliError, match=r"lists no tars of split val. Write the shards again"):
        open_loader(empty, "val", shuffle_buffer=2, **SMALL)


def test_flow_for_several_ranks_needs_the_index(make_shards):
    with pytest.raises(ActcliError, match=r"2 ranks would not make the same steps.*Leave shuffle_buffer out"):
        open_loader(make_shards(flow=True), modality="flow", shuffle_buffer=4, world_size=2, **SMALL)


def test_the_frames_of_clips_are_requested_at_the_same_time(make_shards, monkeypatch):
    monkeypatch.setattr(ahead, "LARGEST_GAP", -1)
    root = make_shards(num_clips=4, num_frames=12)
    with served(root) as server:
        server.together = Together(4 * SMALL["num_frames"])
        assert same(batches(server.url, reading=Reading("index")), batches(root))
        assert len(server.together.asked) == server.together.number


def test_card_and_index_are_asked_for_again_too(make_shards):
    root = make_shards(num_clips=6)
    with served(root) as server:
        server.fail = lambda name, number: number in (1, 3)
        server.refuse = lambda name, number: 503 if number in (2, 6) else 0
        assert same(batches(server.url, reading=Reading("index")), batches(root))


def test_a_server_that_refuses_is_quoted(make_shards):
    root = make_shards(num_clips=6)
    with served(root) as server:
        server.refuse = lambda name, number: 403
        with pytest.raises(ActcliError, match=r"dataset\.json cannot be read \(.*403"):
            batches(server.url)
    with pytest.raises(ActcliError, match=r"dataset\.json cannot be read \(.*connect"):
        batches(server.url)


def test_a_server_without_range_requests_is_called_that(make_shards):
    root = make_shards(num_clips=6)
    with served(root) as server:
        server.knows_ranges = False
        with pytest.raises(ActcliError, match="knows no range requests"):
            batches(server.url)
        assert sum(name.endswith(".tar") for name, *_ in server.requests) <= SMALL["num_frames"]  # asked once


def test_a_streamed_epoch_of_training_has_full_batches_only(make_shards):
    root = make_shards(num_clips=9, flow=True)  # two of them without flow
    setup = SMALL | {"modality": "flow", "shuffle_buffer": 3, "batch_size": 4}
    with open_loader(root, **setup) as loader:
        assert [len(batch) for batch in loader] == [4]
    with open_loader(root, training=False, **setup) as loader:
        assert [len(batch) for batch in loader] == [4, 3]


@contextmanager
def silent_server(answers=()):
    """Takes every connection and gives only the files in ``answers``."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken, stop = [], threading.Event()

    def serve():
        while not stop.is_set():
            with suppress(OSError):  # nobody asks, or who asked has given up
                connection, _ = listener.accept()
                taken.append(connection)
                name = connection.recv(65536).partition(b" /")[2].partition(b" ")[0].decode()
                if name in answers:
                    header = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(answers[name])}\r\n\r\n"
                    connection.sendall(header.encode() + answers[name])

    listener.settimeout(0.05)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        for connection in (*taken, listener):
            connection.close()


@pytest.mark.parametrize("answered", [(), ("dataset.json",), ("dataset.json", "train.index.parquet")])
def test_a_server_that_never_answers_is_given_up(make_shards, monkeypatch, answered):
    monkeypatch.setattr(remote, "SILENCE_SECONDS", 0.1)
    root = make_shards(num_clips=4)
    answers = {name: (root / name).read_bytes() for name in answered}
    with silent_server(answers) as url, pytest.raises(ActcliError, match=r"cannot be read.*Timeout"):
        batches(url)


def test_a_server_may_keep_silent_for_seconds_not_minutes():
    assert remote.SILENCE_SECONDS * remote.ATTEMPTS <= 120


def test_a_request_has_time_for_the_bytes_that_it_asks_for():
    class Slow:
        async_impl = True

    assert remote.deadline(Slow, 50_000_000) == {"timeout": remote.SILENCE_SECONDS + 1000}


def test_s3_gives_up_on_a_silent_server_too():
    limits = remote._options("s3://bucket/shards")["config_kwargs"]
    assert limits["connect_timeout"] == limits["read_timeout"] == 5.0
    assert limits["retries"] == {"total_max_attempts": 1}
    assert remote._options("memory://shards") == {}


@pytest.mark.parametrize("name", ["train.index.parquet"])
def test_a_changed_index_behind_a_url_is_found(make_shards, name):
    root = make_shards(num_clips=4)
    with served(root) as server:
        shards = ShardSet.open(server.url)
        data = bytearray((root / name).read_bytes())
        data[40] ^= 4
        (root / name).write_bytes(data)
        with pytest.raises(ActcliError, match=rf"{name} is not the index that the card names"):
            shards.index("train")
