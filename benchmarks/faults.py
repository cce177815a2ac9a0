"""Kills of whole runs at random moments; the same command must then give, byte for byte, what an undisturbed run gives.

    python benchmarks/faults.py [extract shard train eval] [--kills 50] [--seed 0] [--write]

Each command runs once undisturbed, and then on copies of the same workspace until it was killed ``--kills`` times:
SIGKILL after a time drawn evenly from the length of the undisturbed run (its workers end with it), then the command
again (``train`` with ``--resume`` where the run had begun), which has to succeed. Clips are made, the network is small
and on the CPU. Each command starts in a process that has imported its libraries, so that kills meet its work.
``--write`` keeps the counts in ``results/faults.json``, command by command.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from actcli.cli import app
from actcli.ingest import make_synthetic

RESULTS = Path(__file__).parent / "results" / "faults.json"
_SMALL = "--backbone resnet18 --pretrained none --size 32 --frames 2 --batch-size 4 --epochs 2 --workers 0 --device cpu"
COMMANDS = {
    "extract": "extract --dataset tiny --workers 2",
    "shard": "shard --shard-bytes 60000",
    "train": f"train --model tsm {_SMALL} --run-dir run --checkpoint-minutes 0.01",
    "eval": "eval --run run --crops 3 --clips 2 --workers 0 --device cpu",
}
FORKSERVER = multiprocessing.get_context("forkserver")
LIBRARIES = ["actcli.cli", "actcli.engine.training", "actcli.engine.evaluator", "actcli.ingest", "actcli.shards.video"]
RESUME = "train --run-dir run --resume --workers 0 --device cpu --checkpoint-minutes 0.01"
RESULT_OF = {
    "extract": ("frames", ("extract.jsonl", ".actcli-lock")),
    "shard": ("shards", (".actcli-lock",)),
    "train": ("run/checkpoints", ()),
    "eval": ("run/eval", ("report.html", "metrics.json")),
}
"""Folder that a command writes, and its files that hold times or the order in which workers ended."""


@dataclass(frozen=True)
class Outcome:
    """What came of the kills of one command."""

    kills: int
    """Runs that were killed before they ended."""
    too_late: int
    """Runs that ended before their kill."""
    equal: int
    """Of all these, results equal to the undisturbed one after the command was given again."""
    undisturbed_seconds: float
    """Length of the undisturbed run."""


def started(command: str, workspace: Path) -> multiprocessing.process.BaseProcess:
    """A command that runs, in a session of its own."""
    process = FORKSERVER.Process(target=obey, args=(command, workspace))
    process.start()
    return process


def obey(command: str, workspace: Path) -> None:
    """What the process of a command does."""
    os.setsid()
    os.chdir(workspace)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    app(command.split(), prog_name="actcli")


def finished(command: str, workspace: Path) -> None:
    """Give a command that has to succeed."""
    process = started(command, workspace)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{command} failed in {workspace}:\n{(workspace / 'log').read_text()[-2000:]}")


def result(name: str, workspace: Path) -> dict[str, str]:
    """Digest of each file that counts."""
    folder, ignored = RESULT_OF[name]
    files = [path for path in (workspace / folder).rglob("*") if path.is_file() and path.name not in ignored]
    return {str(path.relative_to(workspace)): hashlib.sha256(content(path)).hexdigest() for path in files}


def content(path: Path) -> bytes:
    """The bytes of a file; of safetensors with the header in order, which that library writes in a random one."""
    data = path.read_bytes()
    if path.suffix != ".safetensors":
        return data
    end = 8 + int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8:end]), sort_keys=True).encode() + data[end:]


def continued(name: str, workspace: Path) -> None:
    command = COMMANDS[name]
    if name == "train" and (workspace / "run" / "config.yaml").exists():
        command = RESUME
    finished(command, workspace)


def kill_session(process: multiprocessing.process.BaseProcess) -> None:
    """SIGKILL to a process and, where it has its own session by now, to its workers."""
    assert process.pid is not None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def kills_of(name: str, template: Path, whole: Path, num_kills: int, seed: int) -> Outcome:
    """Kill one command many times; ``template`` is the workspace before it, ``whole`` one to run it undisturbed in."""
    begin = time.monotonic()
    finished(COMMANDS[name], whole)
    seconds = time.monotonic() - begin
    expected = result(name, whole)
    rng = random.Random(seed)
    killed = equal = number = 0
    while killed < num_kills:
        workspace = template.with_name(f"{name}-{number}")
        shutil.copytree(template, workspace, symlinks=True)
        process = started(COMMANDS[name], workspace)
        process.join(rng.uniform(0, seconds))
        if process.exitcode is None:
            killed += 1
            kill_session(process)
        if process.exitcode:
            continued(name, workspace)
        is_equal = result(name, workspace) == expected
        equal += is_equal
        number += 1
        print(f"{name} {killed}/{num_kills}: {'equal' if is_equal else 'DIFFERENT'}", flush=True)
        if is_equal:
            shutil.rmtree(workspace)
    return Outcome(killed, number - killed, equal, round(seconds, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), metavar="command")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    FORKSERVER.set_forkserver_preload(LIBRARIES)
    root = Path(tempfile.mkdtemp(prefix="actcli-faults-"))
    template = root / "before-extract"
    make_synthetic(template / "raw" / "tiny", num_clips=48, size=(64, 48), num_frames=8)
    finished("--version", template)  # by now the server of processes has imported the libraries
    outcomes: dict[str, Outcome] = {}
    for name in COMMANDS:
        whole = root / f"after-{name}"
        shutil.copytree(template, whole)
        if name in arguments.commands:
            outcomes[name] = kills_of(name, template, whole, arguments.kills, arguments.seed)
            print(name, outcomes[name], flush=True)
        else:
            finished(COMMANDS[name], whole)
        template = whole
    if arguments.write:
        known = json.loads(RESULTS.read_text())["commands"] if RESULTS.exists() else {}
        machine = {"python": platform.python_version(), "cores": os.cpu_count(), "seed": arguments.seed}
        known |= {name: asdict(outcome) for name, outcome in outcomes.items()}
        RESULTS.write_text(json.dumps({"machine": machine, "commands": known}, indent=1) + "\n")
    different = [name for name, outcome in outcomes.items() if outcome.equal < outcome.kills + outcome.too_late]
    if different:
        raise SystemExit(f"different results are left in {root}: {', '.join(different)}")
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
