"""What large sets take, computed from what the other benchmarks measured, and 1,000 ranks as plain integers.

    python benchmarks/scaling.py [--write]     # results/scaling.json and the tables in docs/scaling.md

Measured constants come from ``results/ingest-kinetics400.json`` and ``results/loader.json``: frames extracted and clips
loaded per processor second, bytes of a frame, memory of an index. Everything else is arithmetic: machines are taken to
do equal shares without waiting for each other, disks and networks are taken to keep up, and the table says what that
asks of them. No cluster took part.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from actcli.loaders.blocks import Extent, Mixing, Parts, block_order

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "scaling.md"
CORES, GPUS, GPU_CLIPS_PER_SECOND = 64, 8, 300
"""Of a machine: processor cores, GPUs, and clips that each trains in a second (TSM on a ResNet-50, 8 frames)."""
FRAMES, SEGMENTS, BATCH = 300, 8, 8
"""Frames of a clip (10 s at 30 a second), frames that a training view takes, clips of a batch on each GPU."""


@dataclass(frozen=True)
class Constants:
    """What was measured."""

    frames_per_cpu_second: float
    """Extracted, decoding and encoding."""
    bytes_per_frame: float
    """JPEG, quality 90, short side 256."""
    clips_per_cpu_second: float
    """Loaded: 8 frames of 224 pixels, training augmentation."""
    index_bytes_per_clip: float
    """Memory of each process that has the index open, at 45 frames a clip."""


@dataclass(frozen=True)
class Row:
    """One set on some machines."""

    name: str
    clips: int
    machines: int
    extract_hours: float
    """All cores of all machines at it."""
    terabytes: float
    epoch_minutes: float
    """At the speed of the GPUs."""
    loader_cores: float
    """Cores of each machine that decoding keeps busy then."""
    index_order_megabytes_per_second: float
    """Read by each machine, only the frames that are needed."""
    block_order_megabytes_per_second: float
    """Read by each machine, clips whole."""
    block_order_requests_per_second: float
    """All machines together, at 16 MB."""
    index_gigabytes: float
    """Memory of the index in each process."""


def constants() -> Constants:
    """Read the results of the other benchmarks."""
    ingest = json.loads((RESULTS / "ingest-kinetics400.json").read_text())["extraction"]["actcli"]
    frames = ingest["frames_per_second"] * ingest["median_seconds"]
    loader = json.loads((RESULTS / "loader.json").read_text())
    return Constants(
        frames / ingest["median_cpu_seconds"],
        ingest["bytes_per_frame"],
        loader["speed"]["kinetics400"]["clips_per_processor_second"]["actcli, CPU"],
        loader["index"]["added_gigabytes"] * 1e9 / loader["index"]["clips"],
    )


def row(name: str, clips: int, machines: int, known: Constants) -> Row:
    """The arithmetic of one line."""
    num_bytes = clips * FRAMES * known.bytes_per_frame
    speed = GPUS * GPU_CLIPS_PER_SECOND
    return Row(
        name,
        clips,
        machines,
        clips * FRAMES / known.frames_per_cpu_second / CORES / machines / 3600,
        num_bytes / 1e12,
        clips / (speed * machines) / 60,
        speed / known.clips_per_cpu_second,
        speed * SEGMENTS * known.bytes_per_frame / 1e6,
        speed * FRAMES * known.bytes_per_frame / 1e6,
        machines * speed * FRAMES * known.bytes_per_frame / 16e6,
        clips * known.index_bytes_per_clip * FRAMES / 45 / 1e9,
    )


def simulate(known: Constants, num_clips: int = 650_000, num_ranks: int = 1000) -> dict[str, object]:
    """An epoch of Kinetics-700 on many ranks: what each reads, in all and after a stop in the middle."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(int(0.3 * FRAMES * known.bytes_per_frame), int(FRAMES * known.bytes_per_frame), num_clips)
    per_tar = 60
    shards = np.arange(num_clips) // per_tar
    ends = np.cumsum(sizes + 1536)
    ends -= np.r_[0, ends[per_tar - 1 :: per_tar]][shards]
    extent = Extent(shards, ends - sizes, ends)
    began = time.process_time()
    order = block_order(extent, Mixing.of(BATCH * num_ranks), seed=0, epoch=0)
    planning = time.process_time() - began
    whole, rest, clips = [], [], []
    half = num_clips // num_ranks // BATCH // 2 * BATCH * num_ranks
    for rank in range(num_ranks):
        mine = np.arange(rank, num_clips, num_ranks)
        whole.append(_bytes(Parts.of(extent, order, mine)))
        rest.append(_bytes(Parts.of(extent, order, mine[mine >= half])))
        clips.append(len(mine))
    return {
        "ranks": num_ranks,
        "clips": num_clips,
        "planning_cpu_seconds": round(planning, 2),
        "clips_of_a_rank": [min(clips), max(clips)],
        "bytes_read_of_bytes_stored": round(sum(whole) / int(sizes.sum()), 4),
        "share_of_a_rank": [
            round(min(whole) * num_ranks / sum(whole), 3),
            round(max(whole) * num_ranks / sum(whole), 3),
        ],
        "read_after_a_stop_in_the_middle": round(sum(rest) / sum(whole), 3),
    }


def _bytes(parts: Parts) -> int:
    return int((parts.ends - parts.begins).sum())


def tables(rows: list[Row], simulated: dict[str, object]) -> str:
    """In Markdown."""
    lines = [
        "| set | machines | extract, h | JPEG, TB | epoch, min | loader cores | index order, MB/s | block order, MB/s "
        "| requests/s in all | index, GB a process |",
        "|" + "---|" * 10,
    ]
    for one in rows:
        numbers = (
            f"{one.extract_hours:,.1f}",
            f"{one.terabytes:,.1f}",
            f"{one.epoch_minutes:,.1f}",
            f"{one.loader_cores:.1f}",
            f"{one.index_order_megabytes_per_second:,.0f}",
            f"{one.block_order_megabytes_per_second:,.0f}",
            f"{one.block_order_requests_per_second:,.0f}",
            f"{one.index_gigabytes:,.1f}",
        )
        lines.append(f"| {one.name} | {one.machines} | {' | '.join(numbers)} |")
    return "\n".join([*lines, "", *(f"- {name.replace('_', ' ')}: {value}" for name, value in simulated.items())])


def main() -> None:
    """Compute, print, and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    known = constants()
    sets = (("Kinetics-700", 650_000), ("100 million clips", 100_000_000))
    rows = [row(name, clips, machines, known) for name, clips in sets for machines in (1, 8, 64)]
    simulated = simulate(known)
    text = tables(rows, simulated)
    print(text)
    if parser.parse_args().write:
        value = {"constants": asdict(known), "rows": [asdict(one) for one in rows], "simulated": simulated}
        (RESULTS / "scaling.json").write_text(json.dumps(value, indent=1) + "\n")
        before, _, rest = PAGE.read_text().partition("<!-- tables of scaling.py -->\n")
        _, _, after = rest.partition("<!-- end of tables -->\n")
        PAGE.write_text(f"{before}<!-- tables of scaling.py -->\n{text}\n<!-- end of tables -->\n{after}")


if __name__ == "__main__":
    main()
