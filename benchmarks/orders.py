"""Whether a model learns in block order what it learns from the whole shuffle.

    python benchmarks/orders.py SHARDS_DIR [--seeds 3] [--mixed 0.05] [--write] [-- options of actcli train]

Trains the same recipe in both orders with the same seeds and compares the validation of the last epoch. Block order
mixes 256 MB at a time, which is all of a small set; so that it has the share that it has of a large one, its sizes are
made smaller: ``--mixed`` is the share of the training clips' bytes that is mixed at a time (Kinetics-400 as JPEG: about
0.0001; a set of 5 GB: 0.05). ``--write`` keeps the numbers in ``results/orders.json``.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from actcli.shards import ShardSet

RESULTS = Path(__file__).parent / "results" / "orders.json"
ORDERS = ("index", "blocks")
CODE = (
    "import sys; import actcli.loaders.blocks as blocks; mixed = int(sys.argv.pop(1)); "
    "blocks.MIXED_BYTES, blocks.SMALLEST_BLOCK, blocks.LARGEST_BLOCK = mixed, max(mixed // 32, 1), max(mixed // 8, 1); "
    "from actcli.cli import main; main()"
)
"""Runs a command with block order's sizes in proportion to what is mixed."""


def train(
    shards: Path, order: str, seed: int, mixed_bytes: int, options: list[str], run_dir: Path
) -> dict[str, object]:
    """The last line of the history of a training."""
    words = ["train", "--shards-dir", str(shards), "--order", order, "--seed", str(seed), "--run-dir", str(run_dir)]
    subprocess.run([sys.executable, "-c", CODE, str(mixed_bytes), *words, *options], check=True, stdout=sys.stderr)
    last: dict[str, object] = json.loads((run_dir / "history.jsonl").read_text().splitlines()[-1])
    return last


def measure(shards: Path, num_seeds: int, mixed: float, options: list[str]) -> dict[str, object]:
    """Validation accuracy of each order and seed, and the mean difference with its standard error."""
    index = ShardSet.open(shards).index("train")
    mixed_bytes = int(mixed * int(index.payload_bytes.sum()))
    found: dict[str, list[float]] = {order: [] for order in ORDERS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(num_seeds):
            for order in ORDERS:
                last = train(shards, order, seed, mixed_bytes, options, Path(folder) / f"{order}-{seed}")
                found[order].append(float(str(last["val_top1"])))
    differences = [b - a for a, b in zip(*found.values(), strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5 if len(differences) > 1 else None
    return {
        "clips": len(index),
        "bytes": int(index.payload_bytes.sum()),
        "mixed_bytes": mixed_bytes,
        "options": options,
        "val_top1": found,
        "blocks_minus_index": round(statistics.mean(differences), 3),
        "standard_error": None if error is None else round(error, 3),
        "cores": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--mixed", type=float, default=0.05)
    parser.add_argument("--write", action="store_true", help=f"keep the numbers in {RESULTS.name}")
    words = sys.argv[1:]
    place = words.index("--") if "--" in words else len(words)
    arguments = parser.parse_args(words[:place])
    result = measure(arguments.shards, arguments.seeds, arguments.mixed, words[place + 1 :])
    print(json.dumps(result, indent=1))
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
