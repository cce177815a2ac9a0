"""What does lossy storage cost in accuracy? The same training on frames of several qualities, and on video payload.

    python make_corpus.py W/raw/sthv2 --dataset sthv2 --clips 400
    python benchmarks/jpeg_quality.py W [--seeds 3] [--only jpeg-90 video] [--write]

The TSM of ``temporal.py`` is trained on frames that were stored a little larger than its input, so that what it sees is
what the codec left and not the mean of many stored pixels. Runs of one seed start from the same weights and see the
same clips, frames and boxes in the same order: they differ in the stored pixels alone. What is done is not done again.
``--write`` keeps numbers in ``results/jpeg_quality.json`` and the table in ``docs/learning.md``.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from temporal import CASES, PAGE, SCORES, Case, Outcome, learn, quoted, replace_table, run, spread

from actcli.shards import ShardSet

STORED = 40
"""Short side of the stored frames in pixels, of which the network sees 32: the proportion of 256 to 224, nearly."""
EPOCHS = 16
DEFAULT = "jpeg-90"
"""What ``actcli extract`` writes unless told otherwise."""
RESULTS = Path(__file__).parent / "results" / "jpeg_quality.json"


@dataclass(frozen=True)
class Storage:
    """A way to store frames."""

    name: str
    """In the table and as the name of a folder."""
    quality: int
    """JPEG quality of the extracted frames."""
    shard_options: str = ""
    """Further flags of ``actcli shard``."""


STORAGES = (
    Storage("jpeg-75", 75),
    Storage("jpeg-85", 85),
    Storage("jpeg-90", 90),
    Storage("jpeg-95", 95),
    Storage("video", 95, "--payload video"),
)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--only", nargs="+", choices=[storage.name for storage in STORAGES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--done", action="store_true", help="train nothing, take what is there")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()
    storages = [storage for storage in STORAGES if arguments.only is None or storage.name in arguments.only]
    sizes = {storage.name: prepare(workspace, storage) for storage in storages}
    outcomes: dict[str, list[Outcome]] = {storage.name: [] for storage in storages}
    for seed in range(arguments.seeds):
        for storage in storages:
            scored = workspace / "runs" / f"{case(storage).name}-{seed}" / SCORES
            if arguments.done and not scored.exists():
                continue
            outcomes[storage.name].append(learn(workspace, case(storage), seed, shards(workspace, storage)))
            print(storage.name, outcomes[storage.name][-1], flush=True)
    print(table(sizes, outcomes))
    if arguments.write:
        write(sizes, outcomes)


def case(storage: Storage) -> Case:
    """The TSM of ``temporal.py``."""
    tsm = next(case for case in CASES if case.name == "tsm")
    return dataclasses.replace(tsm, name=f"tsm-{storage.name}", epochs=EPOCHS)


def shards(workspace: Path, storage: Storage) -> Path:
    """The folder of its shards."""
    return workspace / "stored" / storage.name / "shards"


def prepare(workspace: Path, storage: Storage) -> float:
    """Extract and pack unless that is done; kilobytes of a frame in the tars."""
    target = shards(workspace, storage)
    if not (target / "dataset.json").exists():
        frames = target.with_name("frames")
        run(
            workspace,
            f"extract --dataset sthv2 --short-side {STORED} --quality {storage.quality} --frames-dir {quoted(frames)}",
        )
        run(workspace, f"shard --frames-dir {quoted(frames)} --shards-dir {quoted(target)} {storage.shard_options}")
    stored = ShardSet.open(target)
    indexes = [stored.index(split) for split in stored.card.splits("1")]
    num_bytes = sum(int(index.payload_bytes.sum()) for index in indexes)
    return num_bytes / 1000 / sum(int(index.num_frames.sum()) for index in indexes)


def table(sizes: dict[str, float], outcomes: dict[str, list[Outcome]]) -> str:
    """In Markdown, a row a storage; means and ranges over the seeds, and the paired difference from the default."""
    rows = [
        f"| stored as ({STORED} px) | kB a frame | runs | top-1 | within pairs | top-1 minus {DEFAULT}, seed by seed |",
        "|" + "---|" * 6,
    ]
    for name, runs in outcomes.items():
        if not runs:
            continue
        shares = " | ".join(spread([getattr(one, field) for one in runs]) for field in ("top1", "within_pair"))
        rows.append(f"| {name} | {sizes[name]:.2f} | {len(runs)} | {shares} | {differences(runs, outcomes)} |")
    return "\n".join(rows)


def differences(runs: Sequence[Outcome], outcomes: dict[str, list[Outcome]]) -> str:
    """``+0.4 (-1.1, 0.0, +2.3)`` points, or a dash where there is no default of the same seed to compare with."""
    default = {other.seed: other.top1 for other in outcomes.get(DEFAULT, ())}
    points = [100 * (one.top1 - default[one.seed]) for one in runs if one.seed in default]
    if not points:
        return "–"
    mean, *each = (f"{round(point, 1) + 0.0:+.1f}" for point in (statistics.mean(points), *points))  # no -0.0
    return f"{mean} ({', '.join(each)})"


def write(sizes: dict[str, float], outcomes: dict[str, list[Outcome]]) -> None:
    """Keep numbers and table."""
    value = {
        "stored_short_side": STORED,
        "epochs": EPOCHS,
        "kilobytes_a_frame": sizes,
        "outcomes": {name: [dataclasses.asdict(one) for one in runs] for name, runs in outcomes.items()},
    }
    RESULTS.write_text(json.dumps(value, indent=1) + "\n")
    replace_table(PAGE, "jpeg_quality.py", table(sizes, outcomes))


if __name__ == "__main__":
    main()
