"""How fast shards are packed from frames behind a URL: read ahead, one file after the other, and from a folder.

    python benchmarks/packing_afar.py [--clips 200] [--milliseconds 30] [--rounds 3] [--write]

The frames (clips of Something-Something's length) lie in the memory of this process, behind a file system of fsspec
whose every request takes ``--milliseconds``; no bandwidth is lost. All three pack the same bytes to the same disk in
turn. ``--write`` keeps the numbers in ``results/packing_afar.json``.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from writing import make_frames

from actcli.ingest.card import DatasetCard, Extraction
from actcli.shards import ShardOptions, write_shards, writer

RESULTS = Path(__file__).parent / "results" / "packing_afar.json"
CLIP_BYTES = 300 * 15_000
"""Bytes of a clip of ``writing.make_frames``."""
URL = "memory://afar"


def put_afar(frames: Path, folder: Path) -> None:
    """A folder whose card says that the frames of another one lie in memory, and these there."""
    for path in frames.glob("*/*.mjpeg"):
        fsspec.filesystem("memory").pipe_file(f"{URL}/{path.relative_to(frames)}", path.read_bytes())
    folder.mkdir()
    for path in frames.glob("manifest*"):
        shutil.copy(path, folder)
    card = DatasetCard.read(frames)
    made = Extraction({**card.extraction["rgb"].settings, "frames_url": URL}, {})
    replace(card, extraction={"rgb": made}).write(folder / "dataset.json")


def seconds_of(frames: Path, target: Path, *, ahead: bool) -> float:
    """Seconds that packing takes."""
    shutil.rmtree(target, ignore_errors=True)
    one_by_one = mock.patch.object(writer, "fetched_ahead", nullcontext)
    begin = time.monotonic()
    with nullcontext() if ahead else one_by_one:
        write_shards(ShardOptions(frames, target, workers=2))
    return time.monotonic() - begin


def main() -> None:
    """Pack in turn, and print or keep the rates."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--milliseconds", type=float, default=30.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        here, afar, target = (Path(place) / name for name in ("here", "afar", "shards"))
        here.mkdir()
        num_bytes = make_frames(here, wanted.clips * CLIP_BYTES)
        put_afar(here, afar)
        plain = MemoryFileSystem.cat_ranges

        def late(*given: object, **named: object) -> object:
            time.sleep(wanted.milliseconds / 1000)
            return plain(*given, **named)

        took: dict[str, list[float]] = {"folder": [], "ahead": [], "one by one": []}
        with mock.patch.object(MemoryFileSystem, "cat_ranges", late):
            for _ in range(wanted.rounds):
                for name, times in took.items():
                    source = here if name == "folder" else afar
                    times.append(seconds_of(source, target, ahead=name != "one by one"))
    rates = {name: wanted.clips / statistics.median(times) for name, times in took.items()}
    result = {
        "clips": wanted.clips,
        "megabytes": round(num_bytes / 1e6),
        "milliseconds": wanted.milliseconds,
        "clips_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "of_folder": {name: round(rate / rates["folder"], 2) for name, rate in rates.items()},
    }
    print(json.dumps(result, indent=1))
    if wanted.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
