"""How large the pages of large datasets are, and how long they take.

    python benchmarks/pages.py [--listed 650000] [--present 20000] [--scored 20000] [--classes 400] [--write]

``--write`` keeps the numbers in ``results/pages.json``. The clips are all the same made one under other keys; of those
listed that many are present, the others are missing.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from actcli.engine.metrics import Scores, details, summarise
from actcli.engine.report import write_report
from actcli.ingest import DatasetCard, ExtractOptions, extract_dataset, make_synthetic, payload_path, read_manifest
from actcli.ingest.failure import ClipFailure
from actcli.ingest.inspect import inspect_dataset
from actcli.ingest.manifest import manifest_rows, write_manifest
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.records import ClipRecord
from actcli.shards import ShardIndex, ShardOptions, ShardSet, write_shards

RESULTS = Path(__file__).parent / "results" / "pages.json"


class Repeated(ShardSet):
    """The clips of a small dataset again and again, under other keys."""

    num_clips = 0

    def index(self, split: str, split_id: str = "1") -> ShardIndex:
        """The rows of the small index, repeated."""
        whole = super().index(split, split_id)
        rows = np.arange(self.num_clips) % len(whole)
        return replace(whole.take(rows), keys=np.arange(self.num_clips))

    def clip_names(self, split: str, split_id: str = "1") -> tuple[str, ...]:
        """A name for each key."""
        return tuple(f"clip {key}" for key in range(self.num_clips))


def report(shards_dir: Path, num_clips: int, classes: tuple[str, ...], folder: Path) -> dict[str, float]:
    """Seconds and megabytes of ``report.html``; a quarter of the guesses is right."""
    opened = ShardSet.open(shards_dir)
    Repeated.num_clips = num_clips
    shards = Repeated(opened.root, replace(opened.card, classes=classes))
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), num_clips)
    logits = rng.normal(size=(num_clips, len(classes))).astype(np.float32)
    logits[np.arange(num_clips), labels] += 2
    scores = Scores(np.arange(num_clips), labels, logits)
    metrics = {
        **summarise(scores),
        **details(scores, classes),
        "model": "tsm",
        "dataset": "large",
        "split": "val",
        "split_id": "1",
    }
    begin = time.monotonic()
    write_report(folder / "report.html", scores, metrics, shards, "val", "1")
    return measured("report", begin, folder / "report.html")


def inspect(frames: Path, listed: int, present: int, classes: tuple[str, ...]) -> dict[str, float]:
    """Seconds and megabytes of ``inspect.html``."""
    row = next(row for row in manifest_rows(read_manifest(frames)) if row.is_ok)
    outcome = ClipOutcome(**{name: getattr(row, name) for name in ClipOutcome.__dataclass_fields__})
    source = payload_path(frames, row.key).read_bytes()
    records, outcomes = [], {}
    for number in range(listed):
        key, label, is_there = f"{number:09d}", number % len(classes), number % (listed // present) == 0
        records.append(
            ClipRecord(key, f"{key}.mp4", label, classes[label], {"1": "val" if number % 10 == 0 else "train"})
        )
        lost = ClipFailure("find", "FileNotFoundError", f"there is no {key}.mp4")
        outcomes[key] = (
            replace(outcome, key=key, source_id=key)
            if is_there
            else replace(ClipOutcome.lost(key, key, lost), status="missing")
        )
        if is_there:
            target = payload_path(frames, key)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source)
    write_manifest(frames / "manifest.parquet", records, [outcomes[record.source_id] for record in records])
    replace(DatasetCard.read(frames), classes=classes).write(frames)
    begin = time.monotonic()
    inspect_dataset(frames, frames / "inspect.html")
    return measured("inspect", begin, frames / "inspect.html")


def measured(name: str, begin: float, page: Path) -> dict[str, float]:
    return {
        f"{name}_seconds": round(time.monotonic() - begin, 1),
        f"{name}_megabytes": round(page.stat().st_size / 1e6, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, number in (("listed", 650_000), ("present", 20_000), ("scored", 20_000), ("classes", 400)):
        parser.add_argument(f"--{name}", type=int, default=number)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    classes = tuple(f"a class with a name as long as usual, number {number}" for number in range(arguments.classes))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_synthetic(root / "raw", num_clips=24, size=(340, 256), num_frames=8)
        extract_dataset(ExtractOptions("large", root / "raw", root / "frames", short_side=256))
        write_shards(ShardOptions(root / "frames", root / "shards"))
        result = {name: getattr(arguments, name) for name in ("listed", "present", "scored", "classes")}
        result |= report(root / "shards", arguments.scored, classes, root)
        print(result, flush=True)
        result |= inspect(root / "frames", arguments.listed, arguments.present, classes)
    result |= {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
    print(result)
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
