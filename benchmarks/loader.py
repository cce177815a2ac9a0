"""Loader speed, side by side in one run: peers, ours, and the floor of decoding alone.

    python benchmarks/loader.py                     all of it; writes results/loader.json
    python benchmarks/loader.py --only speed        clips per second and bytes per clip
    python benchmarks/loader.py --only index memory

Every contender takes the same 8 segments of 224 pixels in batches of 8 with two processes (DALI: two threads), training
augmentation included. They take turns for several rounds; a speed is the median of the rounds, and a ratio the median
of the ratios within each round, since a shared machine is faster in one minute than in the next. Only the ratios mean
anything elsewhere.
"""

import argparse
import json
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import simplejpeg
import torch
import webdataset
from _shards import LISTED, SHAPES, endless, make_shards, seal
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from actcli.loaders import open_loader
from actcli.shards import ShardReader, ShardSet
from actcli.shards.index_file import INDEX_SCHEMA

RESULTS = Path(__file__).parent / "results" / "loader.json"
SEGMENTS, SIZE, BATCH, WORKERS = 8, 224, 8, 2
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


# --- The transforms of the TSN family, in PIL and Python --------------------------------------------------------------


def random_segments(num_frames: int) -> list[int]:
    length = num_frames // SEGMENTS
    return [i * length + random.randrange(length) for i in range(SEGMENTS)]


def multi_scale_crop(images: list[Image.Image]) -> list[Image.Image]:
    width, height = images[0].size
    sides = [int(min(width, height) * scale) for scale in (1, 0.875, 0.75, 0.66)]
    pairs = [(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    w, h = random.choice(pairs)
    x, y = random.choice((0, 2, 4)) * ((width - w) // 4), random.choice((0, 2, 4)) * ((height - h) // 4)
    return [im.crop((x, y, x + w, y + h)).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for im in images]


def to_normalised_tensor(images: list[Image.Image]) -> torch.Tensor:
    if random.random() < 0.5:
        images = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images]
    stacked = torch.from_numpy(np.concatenate([np.array(image) for image in images], axis=2))
    tensor = stacked.permute(2, 0, 1).contiguous().float().div(255)
    for channel, mean, std in zip(tensor, MEAN * SEGMENTS, STD * SEGMENTS, strict=True):
        channel.sub_(mean).div_(std)
    return tensor


class FolderOfFrames(Dataset):
    """One JPEG file per frame, opened and transformed with PIL."""

    def __init__(self, root: Path) -> None:
        self.folders = sorted(root.iterdir())
        self.num_frames = len(list(self.folders[0].iterdir()))

    def __len__(self) -> int:
        return LISTED

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        folder = self.folders[number % len(self.folders)]
        images = [
            Image.open(folder / f"img_{frame + 1:05d}.jpg").convert("RGB") for frame in random_segments(self.num_frames)
        ]
        return to_normalised_tensor(multi_scale_crop(images)), number % 2


def pil_folders(shards: Path, folders: Path) -> Iterator[int]:
    loader = DataLoader(FolderOfFrames(folders), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    while True:
        for clips, _ in loader:
            yield len(clips)


# --- Stock WebDataset -------------------------------------------------------------------------------------------------


def decode_sample(sample: dict[str, bytes]) -> tuple[torch.Tensor, int]:
    note = json.loads(sample["json"])
    begins = np.cumsum([0, *note["frame_sizes"]])
    chosen = [sample["mjpeg"][begins[frame] : begins[frame + 1]] for frame in random_segments(note["num_frames"])]
    images = [Image.fromarray(simplejpeg.decode_jpeg(data)) for data in chosen]
    return to_normalised_tensor(multi_scale_crop(images)), note["label"]


def stock_webdataset(shards: Path, folders: Path) -> Iterator[int]:
    tars = sorted(str(path) for path in shards.glob("*.tar"))
    dataset = webdataset.WebDataset(tars, shardshuffle=False, resampled=True).shuffle(100).map(decode_sample)
    loader = DataLoader(dataset.batched(BATCH, partial=False), batch_size=None, num_workers=WORKERS)
    for clips, _ in loader:
        yield len(clips)


# --- Ours -------------------------------------------------------------------------------------------------------------


def ours(backend: str) -> Callable[[Path, Path], Iterator[int]]:
    def run(shards: Path, folders: Path) -> Iterator[int]:
        yield from map(len, endless(open_loader(shards, "train", SEGMENTS, SIZE, BATCH, WORKERS, backend)))

    return run


# --- The floor --------------------------------------------------------------------------------------------------------


def decode_floor(shards: Path, folders: Path) -> Iterator[int]:
    """Two processes that only decode JPEGs that lie in memory; the numbers are those of decoded clips."""
    jpegs = first_pictures(shards)
    context = multiprocessing.get_context("fork")
    counts = context.Queue(4)
    workers = [context.Process(target=_decode_forever, args=(jpegs, counts), daemon=True) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    try:
        while True:
            yield counts.get()
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def first_pictures(shards: Path, num_clips: int = 32) -> list[bytes]:
    index, reader = ShardSet.open(shards).index("train"), ShardReader(shards)
    pictures = []
    for row in range(num_clips):
        places = index.frame_extents(row, range(SEGMENTS))
        for offset, size in zip(places.offsets.tolist(), places.sizes.tolist(), strict=True):
            pictures.append(bytes(reader.read(index.shard_name(row), offset, size)))
    return pictures


def _decode_forever(jpegs: list[bytes], counts: multiprocessing.Queue) -> None:
    while True:
        for begin in range(0, len(jpegs), BATCH * SEGMENTS):
            for data in jpegs[begin : begin + BATCH * SEGMENTS]:
                simplejpeg.decode_jpeg(data)
            counts.put(BATCH)


PIL, DALI, OURS = "PIL, a JPEG file per frame", "actcli, DALI on the CPU", "actcli, CPU"
FLOOR = "floor: decoding alone"
CONTENDERS = {
    PIL: pil_folders,
    "stock WebDataset": stock_webdataset,
    DALI: ours("dali"),
    OURS: ours("cpu"),
    FLOOR: decode_floor,
}


def in_own_process(contender: str, shards: Path, folders: Path, seconds: float) -> tuple[float, float]:
    """``clips_per_second`` of one contender in a process of its own, so that nothing of the others lives on."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()

    def measure() -> None:
        batches = CONTENDERS[contender](shards, folders)
        clips_per_second(batches, min(seconds, 1.0))  # warm up: start workers, fill queues
        theirs.send(clips_per_second(batches, seconds))
        batches.close()

    process = context.Process(target=measure)
    process.start()
    theirs.close()
    by_clock, by_processor = ours.recv()
    process.join()
    return by_clock, by_processor


def clips_per_second(batches: Iterator[int], seconds: float) -> tuple[float, float]:
    """Clips per second of the clock, and per second of processor time of this process and its children."""
    begin, begin_busy, clips = time.perf_counter(), processor_seconds(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        clips += next(batches)
    return clips / passed, clips / (processor_seconds() - begin_busy)


def processor_seconds() -> float:
    """Processor time of this process, its threads and its children so far."""
    children = [child.pid for child in multiprocessing.active_children()]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (os.getpid(), *children)]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


def measure_speed(folder: Path, rounds: int, seconds: float) -> dict[str, object]:
    """The contenders take turns, each alone on the machine."""
    results: dict[str, object] = {}
    for name, shape in SHAPES.items():
        shards, folders = folder / name, folder / f"{name}-frames"
        make_shards(shards, shape, folders)
        speeds: dict[str, list[tuple[float, float]]] = {contender: [] for contender in CONTENDERS}
        for _ in range(rounds):
            for contender in CONTENDERS:
                speeds[contender].append(in_own_process(contender, shards, folders, seconds))
        by_clock, by_processor = (
            {key: round(statistics.median(pair[at] for pair in pairs), 1) for key, pairs in speeds.items()}
            for at in (0, 1)
        )
        results[name] = {
            "jpeg_kilobytes": _mean_jpeg(shards),
            "clips_per_second": by_clock,
            "clips_per_processor_second": by_processor,
            "rounds": speeds,
            "by_pil": {contender: _ratio(speeds, contender, PIL) for contender in CONTENDERS},
            "ours_by_floor": _ratio(speeds, OURS, FLOOR),
            "ours_by_dali": _ratio(speeds, OURS, DALI),
            "bytes_read_by_bytes_used": bytes_ratio(shards),
        }
    return results


def _ratio(speeds: dict[str, list[tuple[float, float]]], one: str, other: str) -> dict[str, float]:
    """How many times as fast ``one`` is: the median over the rounds, by the clock and by processor time."""
    ratios = np.array(speeds[one]) / np.array(speeds[other])
    by_clock, by_processor = np.median(ratios, axis=0).round(2).tolist()
    return {"by_clock": by_clock, "by_processor": by_processor}


def _mean_jpeg(shards: Path) -> float:
    sizes = ShardSet.open(shards).index("train").rgb.sizes
    return round(float(sizes.mean()) / 1000, 1)


def bytes_ratio(shards: Path) -> dict[str, float]:
    """Bytes read per clip by bytes of the frames that end up in it; stock WebDataset reads whole clips."""
    index = ShardSet.open(shards).index("train")
    with open_loader(shards, "train", SEGMENTS, SIZE, BATCH, 0) as loader:
        used = sum(
            int(index.rgb.sizes[index.rgb.starts[clip.key] + clip.rgb.frames].sum())
            for plan in loader._epochs.epoch(loader.order, 0, 0)
            for clip in plan.clips
        )
        clips = sum(len(batch) for batch in loader)
        read = loader.num_bytes_read
    whole = float(index.payload_bytes.mean()) * clips
    return {"actcli": round(read / used, 3), "stock WebDataset": round(whole / used, 2)}


# --- Size of the index, memory over time ------------------------------------------------------------------------------


def write_large_index(root: Path, num_clips: int, num_frames: int = 60) -> None:
    """An index of clips that do not exist, a part at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(root / "train.index.parquet", INDEX_SCHEMA, compression="zstd") as writer:
        for begin in range(0, num_clips, 50_000):
            count = min(50_000, num_clips - begin)
            sizes = rng.integers(12_000, 22_000, count * num_frames).astype(np.uint32)
            crcs = rng.integers(0, 1 << 32, count * num_frames).astype(np.uint32)
            starts = pa.array(np.arange(count + 1, dtype=np.int32) * num_frames)
            payloads = sizes.reshape(count, num_frames).sum(1).astype(np.int64)
            names = pa.array([f"train-{begin // 50_000:06d}.tar"])
            columns = [
                pa.array([f"{key:09d}" for key in range(begin, begin + count)]),
                pa.array([f"clip_{key * 7919:012d}.webm" for key in range(begin, begin + count)]),
                pa.array(rng.integers(0, 2, count).astype(np.int32)),
                pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), names),
                pa.array(512 + np.cumsum(payloads) - payloads),
                pa.array(payloads),
                pa.array(np.full(count, num_frames, np.int32)),
                pa.array(np.full(count, 340, np.int32)),
                pa.array(np.full(count, 256, np.int32)),
                pa.array(np.full(count, 25, np.float32)),
                pa.ListArray.from_arrays(starts, pa.array(sizes)),
                pa.ListArray.from_arrays(starts, pa.array(crcs)),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=INDEX_SCHEMA))
    seal(root, {"train": num_clips}, [f"train-{number:06d}.tar" for number in range(-(-num_clips // 50_000))])


_OPEN = """
import re, sys, time
from actcli.shards import ShardSet
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1e6
before, begin = peak(), time.perf_counter()
index = ShardSet.open(sys.argv[1]).index("train")
print(len(index), time.perf_counter() - begin, peak(), peak() - before)
"""


def measure_index(folder: Path) -> dict[str, object]:
    """A million clips of 60 frames: seconds to open and peak memory of a fresh process."""
    write_large_index(folder / "million", 1_000_000)
    output = subprocess.run(
        [sys.executable, "-c", _OPEN, str(folder / "million")], check=True, capture_output=True, text=True
    ).stdout.split()
    clips, seconds, peak, added = int(output[0]), *map(float, output[1:])
    return {
        "clips": clips,
        "seconds_to_open": round(seconds, 2),
        "peak_gigabytes": round(peak, 2),
        "added_gigabytes": round(added, 2),
    }


def measure_start(folder: Path) -> dict[str, object]:
    """Seconds from ``open_loader`` to the first batch with an index of 200,000 clips: a few, listed many times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    small = folder / "sthv2"
    if not small.exists():
        make_shards(small, SHAPES["sthv2"])
    table = pq.read_table(small / "train.index.parquet")
    keys = pa.array([f"{key:09d}" for key in range(200_000)])
    rows = table.take(np.arange(200_000) % table.num_rows).set_column(0, "key", keys)
    pq.write_table(rows, small / "many.index.parquet")
    seal(small, {"train": LISTED, "many": 200_000})
    many = ShardSet.open(small)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        with open_loader(many, "many", SEGMENTS, SIZE, BATCH, WORKERS, training=True) as loader:
            next(iter(loader))
            seconds.append(time.perf_counter() - begin)
    return {"clips": 200_000, "seconds_to_first_batch": round(statistics.median(seconds), 2)}


def measure_memory(folder: Path, num_batches: int = 10_000) -> dict[str, object]:
    """Memory of this process and its workers while batches pass; small pictures, so that it does not take hours."""
    small = folder / "sthv2"
    if not small.exists():
        make_shards(small, SHAPES["sthv2"])
    megabytes: list[tuple[int, float]] = []
    with open_loader(small, "train", 1, 64, 4, WORKERS) as loader:
        done = 0
        for epoch in range(num_batches):
            loader.set_epoch(epoch)
            for _ in loader:
                done += 1
                if done % (num_batches // 10) == 0:
                    megabytes.append((done, round(_resident_megabytes(), 1)))
            if done >= num_batches:
                break
    return {"megabytes_after_batches": megabytes, "growth_megabytes": round(megabytes[-1][1] - megabytes[0][1], 1)}


def _resident_megabytes() -> float:
    """Memory of this process and its children, apart from files, which the system can drop at any time."""
    pids = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
    lines = [line for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))) / 1e3


def speed_table(speed: dict[str, dict]) -> str:
    """The speeds as text: by the clock, by processor time, and both as multiples of the first contender."""
    lines = []
    for name, row in speed.items():
        lines.append(f"\n{name}: JPEGs of {row['jpeg_kilobytes']} kB{'clips/s':>23}{'per CPU second':>17}{'x PIL':>14}")
        for contender in CONTENDERS:
            values = [row[key][contender] for key in ("clips_per_second", "clips_per_processor_second")]
            multiples = row["by_pil"][contender].values()
            lines.append("  {:<40}{:>9}{:>17}{:>9.2f}{:>6.2f}".format(contender, *values, *multiples))
        lines.append(f"  of the floor: {row['ours_by_floor']}; of DALI: {row['ours_by_dali']}")
        lines.append(f"  bytes read by bytes used: {row['bytes_read_by_bytes_used']}")
    return "\n".join(lines)


PARTS = ("speed", "start", "index", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        measures = {
            "speed": lambda: measure_speed(folder, options.rounds, options.seconds),
            "start": lambda: measure_start(folder),
            "index": lambda: measure_index(folder),
            "memory": lambda: measure_memory(folder),
        }
        for part in options.only:
            results[part] = measures[part]()
            print(speed_table(results[part]) if part == "speed" else f"{part}: {json.dumps(results[part])}")
    results["machine"] = {
        "cores": os.cpu_count(),
        "processor": platform.processor(),
        "python": platform.python_version(),
    }
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
