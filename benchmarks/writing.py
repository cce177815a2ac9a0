"""How fast shards are written: ``actcli shard`` against ``cp`` of the same frames, side by side.

    python benchmarks/writing.py [--bytes 2000000000] [--rounds 3] [--folder DIR] [--write]

Both copy the same files of frames to the same disk, in turn, once from the memory of the system (``warm``) and once
from the disk (``cold``: the system is told to forget them). ``actcli shard`` starts anew each time, compares the sha256
of every clip, and ends when the disk has everything; ``cp -r`` is followed by a ``sync`` of its files, or not. What the
program takes to start is in its rate, and told beside it; so is what a processor takes for the passes over the bytes
that the promises of docs/trust.md ask for: the sha256 of each clip and of each tar, the CRC-32 of each frame and clip.
``--write`` keeps the numbers in ``results/writing.json``.
"""

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from actcli.ingest.card import DatasetCard, Extraction
from actcli.ingest.layout import payload_path
from actcli.ingest.manifest import write_manifest
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.records import ClipRecord

RESULTS = Path(__file__).parent / "results" / "writing.json"
NUM_FRAMES, FRAME_BYTES = 300, 15_000
"""A clip of Kinetics."""


def make_frames(folder: Path, num_bytes: int) -> int:
    """Files, manifest and card as an extraction leaves them; the frames are noise, since nothing decodes them."""
    rng = np.random.default_rng(0)
    records, outcomes = [], []
    for number in range(max(1, num_bytes // (NUM_FRAMES * FRAME_BYTES))):
        sizes = rng.integers(FRAME_BYTES // 2, FRAME_BYTES * 3 // 2, NUM_FRAMES).astype(np.uint32)
        data, key = rng.bytes(int(sizes.sum())), f"{number:09d}"
        path = payload_path(folder, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        records.append(ClipRecord(f"{number}.mp4", f"{number}.mp4", 0, "a", {"1": "train"}))
        outcomes.append(
            ClipOutcome(
                key=key,
                source_id=f"{number}.mp4",
                status="ok",
                num_frames=NUM_FRAMES,
                width=340,
                height=256,
                fps=30.0,
                frame_sizes=sizes,
                bytes=len(data),
                checksum=hashlib.sha256(data).hexdigest(),
            )
        )
    write_manifest(folder / "manifest.parquet", records, outcomes)
    made = Extraction({"layout": "mjpeg"}, {})
    DatasetCard("own", ("a",), "allowed", (), {"1": ("train",)}, {"rgb": made}).write(folder / "dataset.json")
    return sum(outcome.bytes for outcome in outcomes)


def forget(folder: Path) -> None:
    """Let the system drop the files from its memory."""
    for path in filter(Path.is_file, folder.rglob("*")):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """Seconds, and seconds of processors, that some commands take one after the other."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def processor_floor(num_bytes: int = 200_000_000) -> float:
    """Seconds of a processor for a GB of the passes that are promised: sha256 twice, CRC-32 twice."""
    data, begin = np.random.default_rng(0).bytes(num_bytes), time.process_time()
    for checksum in (hashlib.sha256, hashlib.sha256, zlib.crc32, zlib.crc32):
        checksum(data)
    return (time.process_time() - begin) / num_bytes * 1e9


def measure(root: Path, num_bytes: int, rounds: int) -> dict[str, object]:
    """Rates of all ways, in turn, as medians of the rounds."""
    load = round(os.getloadavg()[0], 1)
    frames, target = root / "own", root / "target"
    copied = make_frames(frames, num_bytes)
    program = [sys.executable, "-c", "from actcli.cli import main; main()"]
    copy = ["cp", "-r", str(frames), str(target)]
    ways = {
        "shard": [[*program, "shard", "--frames-dir", str(frames), "--shards-dir", str(target)]],
        "cp_and_sync": [copy, ["sync", "-f", str(root)]],
        "cp": [copy],
    }
    start = timed([[sys.executable, "-c", "import actcli.cli, actcli.shards"]])
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for state in ("warm", "cold"):
            for name, commands in ways.items():
                subprocess.run(["sync", "-f", str(root)], check=True)
                if state == "cold":
                    forget(frames)
                found.setdefault(f"{state} {name}", []).append(timed(commands))
                shutil.rmtree(target)
    rates = {name: round(copied / statistics.median(s for s, _ in runs) / 1e6) for name, runs in found.items()}
    return {
        "bytes": copied,
        "rounds": rounds,
        "mb_per_second": rates,
        "cpu_seconds_per_gb": {
            name: round(statistics.median(cpu for _, cpu in runs) / copied * 1e9, 2) for name, runs in found.items()
        },
        "start_of_shard": {"seconds": round(start[0], 2), "cpu_seconds": round(start[1], 2)},
        "cpu_seconds_per_gb_of_promised_passes": round(processor_floor(), 2),
        "shard_of_cp_and_sync": {
            state: round(rates[f"{state} shard"] / rates[f"{state} cp_and_sync"], 2) for state in ("warm", "cold")
        },
        "cores": os.cpu_count(),
        "load_average_before": load,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=2_000_000_000, help="of frames")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where files are made; the system's folder for temporary files by default")
    parser.add_argument("--write", action="store_true", help=f"keep the numbers in {RESULTS.name}")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        result = measure(Path(folder), arguments.bytes, arguments.rounds)
    print(json.dumps(result, indent=1))
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
