"""Whether extraction and loading cost more than in another checkout of this project.

    git worktree add ../before REVISION
    python benchmarks/revisions.py W ../before [--rounds 3] [--write]

``W`` is a workspace with a dataset under ``raw/sthv2``. Both checkouts extract it, pack it, and read batches as for
training, each with its own code and its own shards, in turns. The figure to read is processor seconds, after over
before: other work on the machine changes them little.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "revisions.json"
READ = """
import sys
from actcli.loaders import open_loader
loader = open_loader(sys.argv[1], num_frames=8, size=224, batch_size=8, workers=int(sys.argv[2]))
for epoch in range(int(sys.argv[3])):
    loader.set_epoch(epoch)
    for batch in loader:
        pass
"""


def main() -> None:
    """Measure in turns, and print the medians of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    checkouts = {"before": arguments.before.resolve(), "after": HERE.parent}
    rounds = [
        {name: measure(path, arguments.workspace.resolve(), arguments.epochs) for name, path in checkouts.items()}
        for _ in range(arguments.rounds)
    ]
    ratios = {
        what: statistics.median(one["after"][what] / one["before"][what] for one in rounds)
        for what in rounds[0]["after"]
    }
    print(json.dumps(ratios, indent=1))
    if arguments.write:
        revision = subprocess.run(
            ["git", "-C", arguments.before, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        value = {"before": revision, "processor_seconds": rounds, "after_over_before": ratios}
        RESULTS.write_text(json.dumps(value, indent=1) + "\n")


def measure(checkout: Path, workspace: Path, epochs: int) -> dict[str, float]:
    """Processor seconds of each piece of work, program start included."""
    with tempfile.TemporaryDirectory() as folder:
        frames, shards = f"{folder}/frames", f"{folder}/shards"
        actcli = ["-c", "from actcli.cli import main; main()"]
        extract = ["extract", "--dataset", "sthv2", "--workspace", str(workspace), "--frames-dir", frames]
        return {
            "extract": seconds(checkout, [*actcli, *extract]),
            "shard": seconds(checkout, [*actcli, "shard", "--frames-dir", frames, "--shards-dir", shards]),
            "load in the process": seconds(checkout, ["-c", READ, shards, "0", str(epochs)]),
            "load in two workers": seconds(checkout, ["-c", READ, shards, "2", str(epochs)]),
        }


def seconds(checkout: Path, arguments: list[str]) -> float:
    """Processor seconds of a Python with the code of a checkout, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL, cwd=checkout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)


if __name__ == "__main__":
    main()
