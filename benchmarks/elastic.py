"""One training, killed at random moments and continued on other numbers of processes, beside an undisturbed one.

    python benchmarks/elastic.py [--kills 20] [--seed 0] [--write]

A small transformer (no batch norm) trains on made clips on one process. The same training is then killed with SIGKILL
after a random number of steps, all processes at once, and continued on 1, 2 or 4 processes (gloo), drawn anew each
time, and on another number of loader workers. Every step's clips and learning rate have to be those of the undisturbed
run, and its weights equal to rounding.
Processes are forked, so that torch is imported once. ``--write`` keeps the outcome in ``results/elastic.json``.
"""

import argparse
import json
import os
import random
import signal
import socket
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from actcli.engine.clock import TimeTable
from actcli.engine.hardware import Hardware
from actcli.engine.recipes import Recipe
from actcli.engine.reporting import Silent, StepReport
from actcli.engine.runs import LAST_WEIGHTS, RunConfig
from actcli.engine.schedules import Schedule, StepPlace
from actcli.engine.step import StepOutcome, TrainingStep
from actcli.engine.trainer import train
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.loaders import Batch
from actcli.shards import ShardOptions, write_shards

RESULTS = Path(__file__).parent / "results" / "elastic.json"
NUM_CLIPS, BATCH_SIZE, EPOCHS = 40, 8, 6
RECIPE = Recipe(
    "elastic",
    "vit",
    model_options={"backbone": "vit_ti16", "image_size": 32},
    num_frames=2,
    size=32,
    pretrained=None,
    epochs=EPOCHS,
    batch_size=BATCH_SIZE,
    learning_rate=0.01,
    schedule=Schedule("cosine", per="step", warmup_epochs=1),
    validate_every=EPOCHS,
)


@dataclass(frozen=True)
class Outcome:
    """What came of the kills."""

    kills: int
    """Times that all processes of the training were killed."""
    processes: list[int]
    """Of each part of the training between kills."""
    steps: int
    """Of the whole training."""
    steps_with_other_clips: int
    """Whose clips, or their order, differ from the undisturbed run."""
    steps_with_other_rates: int
    """Whose learning rate differs."""
    largest_difference: float
    """Of any weight from the undisturbed run, relative to the largest weight of its tensor."""


class Killer(Silent):
    """Kills the processes of its group after so many steps."""

    def __init__(self, num_steps: int | None) -> None:
        self.left = num_steps

    def step(self, report: StepReport) -> None:
        """Count a step; the last one is the end."""
        if self.left is not None:
            self.left -= 1
            if self.left == 0:
                os.killpg(0, signal.SIGKILL)

    def finished(self, times: TimeTable) -> None:
        """Nothing to tell."""


def record_steps(folder: Path, rank: int) -> None:
    """Let each step leave a line: its number, learning rate and clips."""
    learn = TrainingStep.run

    def recorded(self: TrainingStep, batch: Batch, place: StepPlace, *others: object) -> StepOutcome:
        line = {"step": place.number, "rate": self.recipe.learning_rate_at(place), "keys": batch.keys.tolist()}
        with (folder / f"steps-{rank}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return learn(self, batch, place, *others)  # type: ignore[arg-type]

    TrainingStep.run = recorded  # type: ignore[method-assign,assignment]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def one_process(run_dir: Path, rank: int, num_processes: int, port: int, workers: int, num_steps: int | None) -> None:
    """Train as process ``rank`` until the end, or until a kill."""
    if num_processes > 1:
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
        place = {"GROUP_WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "x"}
        os.environ |= {name: str(value) for name, value in (own | place).items()}
    record_steps(run_dir, rank)
    hardware = Hardware("cpu", workers=workers, loader="cpu", checkpoint_minutes=0)
    train(RunConfig.read(run_dir), run_dir, hardware, Killer(num_steps), resume=True)


def part(run_dir: Path, num_processes: int, workers: int, num_steps: int | None) -> None:
    """A part of the training, in forked processes of a group of their own; all are gone afterwards."""
    port, leader = free_port(), os.fork()
    if leader == 0:
        os.setpgrp()
        ranks = [fork_rank(run_dir, rank, num_processes, port, workers, num_steps) for rank in range(num_processes)]
        os._exit(max(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) != 0 for rank in ranks))
    code = os.waitstatus_to_exitcode(os.waitpid(leader, 0)[1])
    if code != (0 if num_steps is None else -signal.SIGKILL):
        raise SystemExit(f"a part of {num_processes} processes ended with {code}; see {run_dir}")


def fork_rank(run_dir: Path, rank: int, num_processes: int, port: int, workers: int, num_steps: int | None) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        one_process(run_dir, rank, num_processes, port, workers, num_steps)
        code = 0
    finally:
        os._exit(code)


def steps_of(run_dir: Path, processes: list[int]) -> dict[int, tuple[float, list[int]]]:
    """Learning rate and clips of each step, in the order of the whole batch, as it was done last."""
    lines: dict[int, dict[int, tuple[int, float, list[int]]]] = {}
    for rank in range(max(processes)):
        path = run_dir / f"steps-{rank}.jsonl"
        for line in path.read_text().splitlines() if path.exists() else []:
            value = json.loads(line)
            lines.setdefault(value["step"], {})[rank] = (len(value["keys"]), value["rate"], value["keys"])
    found = {}
    for step, ranks in lines.items():
        share = ranks[0][0]  # the first process takes part in every step; so do as many as fill the batch
        keys = [ranks[rank][2] for rank in range(BATCH_SIZE // share)]
        found[step] = (ranks[0][1], [one[position] for position in range(share) for one in keys])
    return found


def difference(first: Path, second: Path) -> float:
    """Of the weights of two runs, relative to the largest of each tensor."""
    one, other = load_file(first / LAST_WEIGHTS), load_file(second / LAST_WEIGHTS)
    return max(
        float((other[name] - value).abs().max() / value.abs().max().clamp(min=1e-6)) for name, value in one.items()
    )


def killed(config: RunConfig, whole: Path, run_dir: Path, num_kills: int, rng: random.Random) -> Outcome:
    """Train with kills, and compare with the run in ``whole``."""
    config.write(run_dir)
    processes: list[int] = []
    for number in range(num_kills + 1):
        processes.append(rng.choice((1, 2, 4)))
        last = number == num_kills
        part(run_dir, processes[-1], rng.choice((0, 1)), None if last else rng.randint(1, 3))
        print(f"part {number + 1}: {processes[-1]} processes", flush=True)
        if (run_dir / "finished").exists():
            break
    expected, found = steps_of(whole, [1]), steps_of(run_dir, processes)
    return Outcome(
        kills=len(processes) - 1,
        processes=processes,
        steps=len(expected),
        steps_with_other_clips=sum(found[step][1] != keys for step, (_, keys) in expected.items()),
        steps_with_other_rates=sum(found[step][0] != rate for step, (rate, _) in expected.items()),
        largest_difference=difference(whole, run_dir),
    )


def make_shards(root: Path) -> str:
    """Shards of made clips: three quarters of them are for training."""
    make_synthetic(root / "raw", num_clips=4 * NUM_CLIPS // 3, size=(64, 48), num_frames=8)
    extract_dataset(ExtractOptions("tiny", root / "raw", root / "frames", short_side=0, executor="serial"))
    write_shards(ShardOptions(root / "frames", root / "shards"))
    return str(root / "shards")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="actcli-elastic-") as folder:
        root = Path(folder)
        recipe = replace(RECIPE, epochs=arguments.epochs, validate_every=arguments.epochs)
        config = RunConfig(recipe, "tiny", make_shards(root))
        config.write(root / "whole")
        part(root / "whole", 1, 0, None)
        rng = random.Random(arguments.seed)
        outcome = killed(config, root / "whole", root / "killed", arguments.kills, rng)
    print(json.dumps(asdict(outcome), indent=1))
    if arguments.write:
        RESULTS.write_text(json.dumps({"seed": arguments.seed, **asdict(outcome)}, indent=1) + "\n")
    if outcome.steps_with_other_clips or outcome.steps_with_other_rates or outcome.largest_difference > 1e-3:
        raise SystemExit("the killed training is not the undisturbed one")


if __name__ == "__main__":
    main()
