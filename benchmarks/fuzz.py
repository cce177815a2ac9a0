"""Feed mutated files to every reader of files that others may have written, guided by coverage (atheris).

    pip install atheris                                   # for Linux, Python 3.11 to 3.13
    python benchmarks/fuzz.py --seconds 60 --write        # every target in a process of its own; results/fuzz.json
    python benchmarks/fuzz.py --target card --seconds 600

A reader may return or refuse with ``ActcliError``; anything else is a finding, and its input is kept in ``--keep``.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from actcli.errors import ActcliError

RESULTS = Path(__file__).with_name("results") / "fuzz.json"
Reader = Callable[[bytes], object]


def make_readers(folder: Path) -> dict[str, tuple[Reader, list[bytes]]]:
    """Target → (what reads the bytes, sound examples to start from)."""
    import numpy as np

    from actcli.engine.checkpoints import load_checkpoint, save_checkpoint
    from actcli.engine.metrics import Scores
    from actcli.engine.recipes import load_recipe
    from actcli.engine.results import read_scores, write_scores
    from actcli.engine.runs import RunConfig, read_state
    from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic, read_manifest
    from actcli.ingest.card import DatasetCard
    from actcli.ingest.datasets.something_v2 import read_listing
    from actcli.ingest.ledger import Ledger
    from actcli.loaders.backends.jpeg import check_header
    from actcli.models import create_model, load_weights, save_weights
    from actcli.shards import ShardOptions, ShardSet, write_shards
    from actcli.shards.card import ShardCard
    from actcli.shards.stream import stream_clips

    make_synthetic(folder / "raw", num_clips=12, size=(64, 48), num_frames=3)
    frames, shards = folder / "frames", folder / "shards"
    extract_dataset(ExtractOptions("tiny", folder / "raw", frames, short_side=0, executor="serial"))
    write_shards(ShardOptions(frames, shards, workers=1))
    card = (shards / "dataset.json").read_bytes()
    opened = ShardSet.open(str(shards))
    tar = shards / opened.card.shards[0].name
    jpeg = next(frames.rglob("*.mjpeg")).read_bytes()

    official = folder / "official"
    (official / "20bn-something-something-v2").mkdir(parents=True)
    labels = {"Moving something": "0"}
    rows = [{"id": str(n), "template": "Moving [something]", "label": "moving a cup"} for n in range(3)]
    for name, content in (("labels", labels), ("train", rows), ("validation", rows[:1])):
        (official / f"something-something-v2-{name}.json").write_text(json.dumps(content))

    save_weights(create_model("vit", num_classes=2, num_frames=1, backbone="vit_ti16", image_size=16), folder / "w")
    save_checkpoint(folder / "c", {"progress": {"epoch": 1}})
    write_scores(
        folder / "s.parquet", Scores(np.arange(3), np.zeros(3, int), np.eye(3, dtype=np.float32)), ["a", "b", "c"]
    )
    run = folder / "run"
    RunConfig(load_recipe("tsm-something-r50-8f"), "tiny", str(shards)).write(run)

    def through(path: Path, read: Callable[[], object]) -> Reader:
        sound = path.read_bytes()

        def reader(data: bytes) -> object:
            path.write_bytes(data)
            try:
                return read()
            finally:
                path.write_bytes(sound)

        return reader

    def header(data: bytes) -> None:
        try:
            check_header(data, None)
        except ValueError as error:  # what it promises for any other JPEG
            raise ActcliError(str(error)) from error

    def ledger() -> None:
        with Ledger(frames / "extract.jsonl"):
            pass

    recipe = folder / "mine.yaml"
    recipe.write_text("model: tsm\nschedule: {kind: step, milestones: [20, 40]}\n")
    train = official / "something-something-v2-train.json"
    readers: dict[str, tuple[Reader, list[bytes]]] = {
        "card of shards": (lambda data: ShardCard.from_json(data, "card"), [card]),
        "jpeg header": (header, [jpeg[:2000]]),
    }
    for name, path, read in (
        ("card of frames", frames / "dataset.json", lambda: DatasetCard.read(frames)),
        ("ledger", frames / "extract.jsonl", ledger),
        ("manifest", frames / "manifest.parquet", lambda: read_manifest(frames)),
        ("annotations", train, lambda: read_listing(official)),
        ("tar", tar, lambda: list(stream_clips(opened, [tar.name]))),
        ("recipe", recipe, lambda: load_recipe(str(recipe))),
        ("run", run / "config.yaml", lambda: read_state(run)),
        ("weights", folder / "w", lambda: load_weights(folder / "w")),
        ("checkpoint", folder / "c", lambda: load_checkpoint(folder / "c")),
        ("scores", folder / "s.parquet", lambda: read_scores(folder / "s.parquet")),
    ):
        readers[name] = (through(path, read), [path.read_bytes()])
    return readers


def fuzz(target: str, seconds: int, keep: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["actcli"]):
        folder = Path(tempfile.mkdtemp())
        reader, seeds = make_readers(folder)[target]
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def one(data: bytes) -> None:
        with contextlib.suppress(ActcliError):
            reader(data)

    keep.mkdir(parents=True, exist_ok=True)
    flags = [f"-max_total_time={seconds}", f"-artifact_prefix={keep}/", "-print_final_stats=1", "-rss_limit_mb=4096"]
    atheris.Setup([sys.argv[0], *flags, "-timeout=60", "-max_len=200000", str(corpus)], one)
    atheris.Fuzz()


TARGETS = (
    "card of shards", "jpeg header", "card of frames", "ledger", "manifest", "annotations", "tar", "recipe", "run",
    "weights", "checkpoint", "scores",
)  # fmt: skip


def main() -> None:
    """Fuzz one target, or each in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.target:
        fuzz(given.target, given.seconds, given.keep)
        return
    rows = []
    for target in TARGETS:
        began = time.monotonic()
        command = [sys.executable, __file__, "--target", target, "--seconds", str(given.seconds), "--keep", given.keep]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        executed = re.search(r"number_of_executed_units: (\d+)", done.stderr)
        said = [line for line in done.stderr.splitlines() if re.match(r"\w*(Error|Exception)|=+ Uncaught|==\d", line)]
        finding = "" if done.returncode == 0 else (said or ["died"])[-1]
        row = {
            "target": target,
            "executions": int(executed[1]) if executed else 0,
            "seconds": round(time.monotonic() - began),
            "finding": finding,
        }
        rows.append(row)
        print(row, flush=True)
        if finding:
            print(done.stderr[-1500:], flush=True)
    if given.write:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
