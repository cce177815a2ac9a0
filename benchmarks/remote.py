"""Shards behind a server, beside the same shards on the local disk, in one run.

    python benchmarks/remote.py [--rounds 3] [--seconds 8] [--write]     # results/remote.json

A server of ranges on this machine (a process of its own) waits 5, 30 or 100 ms before it answers a request, and gives
each connection no more than a bandwidth where one is named. Every contender takes 8 segments of 224 pixels in batches
of 8 with two workers and training augmentation, and they take turns for several rounds; a ratio is the median of the
ratios to the local disk within each round. The server runs on the same cores as the loader, so ratios of a machine with
few cores are too low rather than too high. The list names each of 1,024 clips four times, as that of ``loader.py``
does, so block order reads fewer bytes a clip than from a real list, where it reads each clip whole. Shuffle quality is
that of the order alone, counted, not timed.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import platform
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from _shards import SHAPES, make_shards

from actcli.loaders import Reading, open_loader
from actcli.loaders.blocks import Extent, Mixing, Parts, block_order

RESULTS = Path(__file__).parent / "results" / "remote.json"
SETUP = {"num_frames": 8, "size": 224, "batch_size": 8, "workers": 2}
PIECE = 256 << 10
REQUEST = re.compile(
    r"(?P<method>GET|HEAD) /(?P<name>\S+) .*?(?:\r\nRange: bytes=(?P<begin>\d+)-(?P<last>\d+).*)?\r\n\r\n$", re.DOTALL
)
HEAD = "HTTP/1.1 {}\r\nAccept-Ranges: bytes\r\nContent-Length: {}\r\n\r\n"


@dataclass(frozen=True)
class Contender:
    """One way to read."""

    name: str
    """In the table."""
    latency_ms: int | None
    """Of the server; None: the local disk."""
    order: str
    """Of reading."""
    megabytes_per_second: int | None = None
    """Of each connection."""
    cached: bool = False
    """Whether a cache is used, which an epoch before fills."""


LOCAL = Contender("local disk, index", None, "index")
CONTENDERS = (
    LOCAL,
    *(Contender(f"{ms} ms, {order}", ms, order) for ms in (5, 30, 100) for order in ("index", "blocks")),
    Contender("30 ms, 100 MB/s a connection, index", 30, "index", 100),
    Contender("30 ms, 100 MB/s a connection, blocks", 30, "blocks", 100),
    Contender("30 ms, index, second epoch from the cache", 30, "index", cached=True),
    Contender("30 ms, blocks, second epoch from the cache", 30, "blocks", cached=True),
)


def serve(root: Path, latency_ms: int, megabytes_per_second: int | None, port: "multiprocessing.Queue[int]") -> None:
    """Serve ``root`` until killed; the port goes into the queue."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request = REQUEST.match((await reader.readuntil(b"\r\n\r\n")).decode())
                assert request is not None
                await asyncio.sleep(latency_ms / 1000)
                await respond(request, writer)

    async def respond(request: "re.Match[str]", writer: asyncio.StreamWriter) -> None:
        with (root / request["name"]).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            begin, last = int(request["begin"] or 0), int(request["last"] or size - 1)
            writer.write(HEAD.format("206 Partial Content" if request["last"] else "200 OK", last + 1 - begin).encode())
            if request["method"] == "HEAD":
                return
            piece = PIECE if megabytes_per_second else last + 1 - begin
            began = time.monotonic()
            for offset in range(begin, last + 1, piece):
                await asyncio.get_running_loop().sendfile(writer.transport, file, offset, min(piece, last + 1 - offset))
                if megabytes_per_second:
                    sent = offset + piece - begin
                    await asyncio.sleep(max(0.0, began + sent / megabytes_per_second / 1e6 - time.monotonic()))

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


@contextmanager
def served(root: Path, contender: Contender) -> Iterator[str]:
    """Where a contender reads."""
    if contender.latency_ms is None:
        yield str(root)
        return
    context = multiprocessing.get_context("spawn")
    port: multiprocessing.Queue[int] = context.Queue()
    arguments = (root, contender.latency_ms, contender.megabytes_per_second, port)
    server = context.Process(target=serve, args=arguments, daemon=True)
    server.start()
    try:
        yield f"http://127.0.0.1:{port.get(timeout=60)}"
    finally:
        server.kill()
        server.join()


def clips_per_second(root: Path, contender: Contender, seconds: float, scratch: Path) -> tuple[float, float]:
    """Speed after a few batches, and megabytes read a clip."""
    cache = str(scratch / contender.name.replace(" ", "-").replace("/", "-")) if contender.cached else None
    reading = Reading(contender.order, cache)
    with served(root, contender) as url, open_loader(url, **SETUP, reading=reading) as loader:
        if contender.cached:
            for _ in loader:
                pass
        num_clips, begin, read = 0, 0.0, 0
        for epoch in range(1, 100):
            loader.set_epoch(epoch)
            for number, batch in enumerate(loader):
                if epoch == 1 and number == 16:
                    begin, read, num_clips = time.perf_counter(), loader.num_bytes_read, 0
                num_clips += len(batch)
                if begin and time.perf_counter() - begin > seconds:
                    rate = num_clips / (time.perf_counter() - begin)
                    return rate, (loader.num_bytes_read - read) / num_clips / 1e6
    raise AssertionError("unreachable")


def simulate(num_ranks: int = 64, num_clips: int = 168_913) -> dict[str, object]:
    """Something-Something v2's training split on 64 ranks, as plain integers: bytes, balance, shuffle quality."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(300_000, 1_300_000, num_clips)
    per_tar = 320
    shards = np.arange(num_clips) // per_tar
    ends = np.concatenate([np.cumsum(part + 1536) for part in np.split(sizes, range(per_tar, num_clips, per_tar))])
    extent = Extent(shards, ends - sizes, ends)
    order = block_order(extent, Mixing.of(8 * num_ranks), seed=0, epoch=0)
    read, requests = [], 0
    for rank in range(num_ranks):
        parts = Parts.of(extent, order, np.arange(rank, num_clips, num_ranks))
        read.append(int((parts.ends - parts.begins).sum()))
        requests += int((parts.uses > 0).sum())
    places = np.empty(num_clips, np.int64)
    places[order.rows] = np.arange(num_clips)
    apart = np.abs(np.diff(places))
    whole = np.abs(np.diff(rng.permutation(num_clips)))
    return {
        "ranks": num_ranks,
        "clips": num_clips,
        "bytes_read_of_bytes_stored": sum(read) / int(sizes.sum()),
        "smallest_and_largest_share_of_a_rank": [min(read) * num_ranks / sum(read), max(read) * num_ranks / sum(read)],
        "megabytes_a_request": round(sum(read) / requests / 1e6, 1),
        "neighbours_apart_median": int(np.median(apart)),
        "neighbours_apart_median_of_a_whole_shuffle": int(np.median(whole)),
        "neighbours_in_one_global_batch": float((apart < 8 * num_ranks).mean()),
        "neighbours_in_one_global_batch_of_a_whole_shuffle": float((whole < 8 * num_ranks).mean()),
    }


def main() -> None:
    """Measure, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    simulated = simulate()
    print(json.dumps(simulated, indent=1), flush=True)
    rates: dict[str, list[float]] = {one.name: [] for one in CONTENDERS}
    megabytes: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "shards"
        make_shards(root, replace(SHAPES["sthv2"], num_clips=1024))
        for _ in range(arguments.rounds):
            for one in CONTENDERS:
                rate, megabytes[one.name] = clips_per_second(root, one, arguments.seconds, Path(scratch))
                rates[one.name].append(rate)
                print(f"{one.name:45} {rate:7.0f} clips/s {megabytes[one.name]:6.2f} MB a clip", flush=True)
    rows = [
        {
            "name": name,
            "clips_per_second": round(statistics.median(found), 1),
            "of_local": round(statistics.median(a / b for a, b in zip(found, rates[LOCAL.name], strict=True)), 3),
            "megabytes_a_clip": round(megabytes[name], 3),
        }
        for name, found in rates.items()
    ]
    print(json.dumps(rows, indent=1))
    if arguments.write:
        machine = {"cores": os.cpu_count(), "load_average_before": round(load, 1), "python": platform.python_version()}
        value = {"setup": SETUP, "rounds": arguments.rounds, **machine, "speed": rows, "simulated": simulated}
        RESULTS.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    main()
