"""What a shard may hold of a clip, side by side in one run: JPEGs, re-encoded video, or the video as it was downloaded.

    python benchmarks/payloads.py                      all of it; writes results/payloads.json
    python benchmarks/payloads.py --only exact         whether every frame of ../shared/clips is the extraction's
    python benchmarks/payloads.py --only small --raw raw/sthv2     what is stored of small clips beside their bytes

Clips have the shape of Kinetics-400: real ones of ../shared/clips where that is there, made ones otherwise. Contenders
take 8 segments of 224 pixels in batches of 8 with two processes, training augmentation included; the peer, torchcodec
with exact seeks on the original files, decodes the same segments and neither crops nor resizes. They take turns for
some rounds; speeds are medians over the rounds, ratios medians of the ratios within each round. Processor time is that
of the process and its workers. torchcodec (`pip install torchcodec`) brings no FFmpeg; PyAV's is shown to it.
"""

import argparse
import json
import os
import platform
import re
import resource
import shutil
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import psutil
import pyarrow.parquet as pq
import torch
from _shards import SHAPES, endless, frames
from torch.utils.data import DataLoader, Dataset

from actcli.ingest import ExtractOptions, extract_dataset
from actcli.ingest.decode import VideoClip
from actcli.ingest.failure import ClipFailure
from actcli.ingest.manifest import read_manifest
from actcli.ingest.packets import read_planes
from actcli.ingest.sizing import DecodeSettings
from actcli.ingest.source import DecodedFrames, index_video
from actcli.loaders import open_loader
from actcli.shards import ShardOptions, write_shards
from actcli.shards.plan import BLOCK

RESULTS = Path(__file__).parent / "results" / "payloads.json"
CLIPS = Path(__file__).resolve().parents[2] / "shared" / "clips"
KINETICS = ("arm_wrestling_h264.mp4", "mma_test_h264.mp4", "kinetics_flipping_pancake.mkv")
"""Clips of Kinetics-400 in the sizes in which the dataset is handed around: 340 x 256 and 426 x 240, ten seconds."""
SEGMENTS, SIZE, BATCH, WORKERS = 8, 224, 8, 2
PAYLOADS = ("mjpeg", "video", "source")
SMALL_BYTES = 88_000
"""A clip of Something-Something v2."""


# --- Clips, frames, shards --------------------------------------------------------------------------------------------


def make_raw(root: Path, num_clips: int) -> str:
    """Write a dataset of two classes; says what the clips are."""
    found = [CLIPS / name for name in KINETICS if (CLIPS / name).is_file()]
    made = [] if found else [_made(root / f"{number}.mp4") for number in range(3)]
    for number in range(num_clips):
        source = (found or made)[number % 3]
        target = root / "raw" / "clips" / "train" / ("a", "b")[number % 2] / f"{number:05d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    return "real clips of Kinetics-400, each many times" if found else "made clips"


def _made(path: Path) -> Path:
    shape = SHAPES["kinetics400"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
        for picture in frames(shape, shape.num_frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def processor_seconds() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return own.ru_utime + own.ru_stime + sum(times.user + times.system for times in children)


def extract(root: Path, payload: str) -> dict[str, float]:
    begin = processor_seconds()
    summary = extract_dataset(
        ExtractOptions("clips", root / "raw" / "clips", root / payload, payload=payload, executor="serial")
    )
    assert not summary.failed, summary.failed
    return {"cpu_ms_per_frame": (processor_seconds() - begin) / summary.frames * 1e3, "frames": summary.frames}


def folder_bytes(root: Path) -> int:
    return sum(path.stat(follow_symlinks=False).st_size for path in root.rglob("*") if path.is_file())


# --- Contenders -------------------------------------------------------------------------------------------------------


def ours(shards: Path) -> Iterator[int]:
    yield from map(len, endless(open_loader(shards, "train", SEGMENTS, SIZE, BATCH, WORKERS, "cpu")))


class ExactSeeks(Dataset):
    """A random frame of each segment of the original files, by torchcodec."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted(str(path) for path in (root / "raw").rglob("*.m*") if path.suffix in (".mp4", ".mkv"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> int:
        from torchcodec.decoders import VideoDecoder

        decoder = VideoDecoder(self.paths[number], seek_mode="exact", num_ffmpeg_threads=1)
        length = len(decoder) // SEGMENTS
        chosen = np.arange(SEGMENTS) * length + np.random.randint(0, length, SEGMENTS)
        return len(decoder.get_frames_at(chosen.tolist()).data)


def torchcodec_exact(root: Path) -> Iterator[int]:
    loader = DataLoader(ExactSeeks(root), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
    while True:
        for counts in loader:
            yield len(counts)


def measure(make: Callable[[], Iterator[int]], seconds: float) -> dict[str, float]:
    batches = make()
    next(batches)
    clips, begin, begin_cpu = 0, time.perf_counter(), processor_seconds()
    while time.perf_counter() - begin < seconds or not clips:
        clips += next(batches)
    found = {
        "clips_per_second": clips / (time.perf_counter() - begin),
        "cpu_ms_per_clip": (processor_seconds() - begin_cpu) / clips * 1e3,
    }
    batches.close()
    return found


# --- torchcodec and FFmpeg --------------------------------------------------------------------------------------------


def show_ffmpeg_to_torchcodec() -> None:
    """Start this script again where the libraries of PyAV have the names that torchcodec asks for."""
    libraries = Path(av.__file__).parents[1] / "av.libs"
    if "ACTCLI_FFMPEG" in os.environ or not libraries.is_dir():
        return
    folder = Path(tempfile.mkdtemp())
    for path in libraries.glob("lib*.so.*"):
        if name := re.fullmatch(r"(lib(?:av|sw)\w+)-[0-9a-f]+\.so\.(\d+)\..*", path.name):
            (folder / f"{name[1]}.so.{name[2]}").symlink_to(path)
    paths = [str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    environment = os.environ | {"LD_LIBRARY_PATH": ":".join(filter(None, paths)), "ACTCLI_FFMPEG": str(folder)}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def torchcodec_problem() -> str | None:
    try:
        import torchcodec  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        return str(error).strip().splitlines()[0]
    return None


# --- The runs ---------------------------------------------------------------------------------------------------------


def check_exact() -> Iterator[dict[str, str]]:
    """Every frame of every sound file of ../shared/clips, read stretch by stretch, against the extraction's.

    Yields what is known after each file, the smallest first.
    """
    found: dict[str, str] = {}
    for path in sorted(CLIPS.iterdir(), key=lambda path: path.stat().st_size):
        try:
            found[path.name] = _exact_frames(path)
        except ClipFailure as failure:
            found[path.name] = f"not sound: {failure.error}"
        print(path.name, found[path.name], flush=True)
        yield found


def _exact_frames(path: Path) -> str:
    decoded, data = DecodedFrames(), path.read_bytes()
    with VideoClip(path, DecodeSettings()) as clip:
        decoded.read(clip)
    video, sizes = index_video(path, clip, decoded)
    count, equal = len(decoded.seconds), 0
    with VideoClip(path, DecodeSettings()) as clip:
        again = read_planes(video, sizes, range(count), decoded.size, lambda at, size: data[at : at + size])
        for ours, theirs in zip(again, clip, strict=True):
            equal += all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert equal == count, f"{path.name}: {equal} of {count} frames are equal"
    return f"{count} frames equal, {len(video.key_packets)} key packets"


def compare(root: Path, num_clips: int, rounds: int, seconds: float) -> dict[str, object]:
    found: dict[str, object] = {"clips": make_raw(root, num_clips), "num_clips": num_clips}
    original = folder_bytes(root / "raw")
    found["extraction"] = {payload: extract(root, payload) for payload in ("mjpeg", "source")}
    contenders: dict[str, Callable[[], Iterator[int]]] = {}
    disk: dict[str, object] = {"original_bytes": original}
    for payload in PAYLOADS:
        shards = root / f"{payload}-shards"
        write_shards(ShardOptions(root / ("source" if payload == "source" else "mjpeg"), shards, payload=payload))
        disk[payload] = {"bytes": folder_bytes(shards), "of_original": folder_bytes(shards) / original}
        contenders[payload] = lambda shards=shards: ours(shards)
    found["disk"] = disk
    print(json.dumps(found, indent=1), flush=True)
    if problem := torchcodec_problem():
        found["torchcodec"] = f"could not be run: {problem}"
    else:
        contenders["torchcodec, exact seeks on the original files"] = lambda: torchcodec_exact(root)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, make in contenders.items():
            runs[name].append(measure(make, seconds))
            print(number, name, runs[name][-1], flush=True)
    found["loading"] = {name: _summary(runs, name) for name in runs}
    return found


# --- Small clips ------------------------------------------------------------------------------------------------------


def weigh_small(raw: Path, root: Path) -> dict[str, object]:
    """Bytes a clip that shards of ``source`` take beside those of the videos, by what they are for."""
    extract_dataset(ExtractOptions(raw.name, raw, root / "frames", payload="source"))
    card = write_shards(ShardOptions(root / "frames", root / "shards")).card
    sizes: dict[str, list[int]] = {"json": [], "video": []}
    for tar in card.shards:
        with tarfile.open(root / "shards" / tar.name, "r:") as members:
            for member in members:
                sizes["json" if member.name.endswith(".json") else "video"].append(member.size)
    count, original = len(sizes["video"]), sum(sizes["video"])
    indexes = [pq.read_metadata(path) for path in (root / "shards").glob("*.parquet")]
    groups = [index.row_group(number) for index in indexes for number in range(index.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    beside = {
        "headers": 2 * BLOCK,
        "note": sum(sizes["json"]) / count,
        "filling up blocks": sum(-size % BLOCK for size in (*sizes["json"], *sizes["video"])) / count,
        "index": sum(column.total_compressed_size for column in columns) / count,
        "DALI's index": sum(path.stat().st_size for path in (root / "shards").glob("*.idx")) / count,
    }
    return {
        "num_clips": count,
        "bytes_a_clip": original / count,
        "frames_a_clip": sum(row["num_frames"] for row in read_manifest(root / "frames").to_pylist()) / count,
        "bytes_beside_a_clip": beside,
        "of_original": 1 + sum(beside.values()) / (original / count),
        f"of_original_at_{SMALL_BYTES}_bytes": 1 + sum(beside.values()) / SMALL_BYTES,
        # two members need two headers, one block of JSON, and half a block behind the video on average
        f"floor_of_two_members_at_{SMALL_BYTES}_bytes": 1 + (3.5 * BLOCK) / SMALL_BYTES,
        "of_original_with_all_files": folder_bytes(root / "shards") / original,
    }


def _summary(runs: dict[str, list[dict[str, float]]], name: str) -> dict[str, float]:
    def median_ratio(other: str, measure: str) -> float:
        return statistics.median(a[measure] / b[measure] for a, b in zip(runs[name], runs[other], strict=True))

    summary = {key: statistics.median(run[key] for run in runs[name]) for key in runs[name][0]}
    for other in runs:
        if other != name:
            summary[f"speed_of_{other.split(',')[0]}"] = median_ratio(other, "clips_per_second")
            summary[f"cpu_of_{other.split(',')[0]}"] = median_ratio(other, "cpu_ms_per_clip")
    return summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=("exact", "compare", "small"), default=["exact", "compare"])
    parser.add_argument("--raw", type=Path, help="with --only small: a dataset as downloaded")
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    asked = parser.parse_args()
    show_ffmpeg_to_torchcodec()
    with tempfile.TemporaryDirectory() as folder:
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        results["machine"] = f"{len(os.sched_getaffinity(0))} of {os.cpu_count()} cores, {platform.machine()}"
        results["versions"] = {"av": av.__version__, "torch": torch.__version__, "python": platform.python_version()}
        if "compare" in asked.only:
            results["compare"] = compare(Path(folder), asked.clips, asked.rounds, asked.seconds)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        if "small" in asked.only:
            results["small"] = weigh_small(asked.raw, Path(folder))
            print(json.dumps(results["small"], indent=1))
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        for results["exact"] in check_exact() if "exact" in asked.only and CLIPS.is_dir() else ():
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    shutil.rmtree(os.environ.get("ACTCLI_FFMPEG", ""), ignore_errors=True)


if __name__ == "__main__":
    main()
