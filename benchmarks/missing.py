"""What clips cost that are listed and not there: a Kinetics-700 list of 650,000 clips, of which four are on disk.

    python benchmarks/missing.py [--clips 650000] [--write]

``--write`` keeps the numbers in ``results/missing.json``. The lists and the four clips are made in a temporary folder.
"""

import argparse
import json
import os
import platform
import resource
import tempfile
import time
from pathlib import Path

from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic

PRESENT = 4
NUM_CLASSES = 700
RESULTS = Path(__file__).parent / "results" / "missing.json"


def make_raw(folder: Path, num_clips: int) -> Path:
    """Lists of ``num_clips`` clips in a Kinetics folder, with the videos of the first ``PRESENT`` ones."""
    raw = folder / "kinetics700"
    (raw / "annotations").mkdir(parents=True)
    videos = sorted(make_synthetic(folder / "made", num_clips=PRESENT, size=(64, 48), num_frames=8).rglob("*.mp4"))
    num_val = num_clips // 20
    for split, first, last in (("train", 0, num_clips - num_val), ("val", num_clips - num_val, num_clips)):
        rows = (f"class {i % NUM_CLASSES},id{i:09d},0,10,{split}\n" for i in range(first, last))
        header = "label,youtube_id,time_start,time_end,split\n"
        (raw / "annotations" / f"{split}.csv").write_text(header + "".join(rows))
    (raw / "train").mkdir()
    for number, video in enumerate(videos):
        video.rename(raw / "train" / f"id{number:09d}_000000_000010.mp4")
    return raw


def measure(num_clips: int) -> dict[str, object]:
    """Seconds of a first and of a second extraction of the list."""
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory() as folder:
        raw = make_raw(Path(folder), num_clips)
        options = ExtractOptions("kinetics700", raw, Path(folder) / "frames", workers=2)
        seconds, cpu_seconds = [], []
        for _ in range(2):
            begin, begin_cpu = time.monotonic(), time.process_time()
            summary = extract_dataset(options)
            seconds.append(round(time.monotonic() - begin, 2))
            cpu_seconds.append(round(time.process_time() - begin_cpu, 2))
        assert summary.counts["ok"] == PRESENT and summary.counts["missing"] == num_clips - PRESENT
    return {
        "listed": num_clips,
        "present": PRESENT,
        "seconds": seconds[0],
        "cpu_seconds": cpu_seconds[0],
        "seconds_again": seconds[1],
        "cpu_seconds_again": cpu_seconds[1],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cores": os.cpu_count(),
        "load_average_before": load,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=650_000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.clips)
    print(json.dumps(result, indent=1))
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
