"""Everything that needs a GPU, in one go of 25 minutes; keeps results/gpu.json and the table in the README.

    python benchmarks/gpu_all.py                   # on a machine with a CUDA device and DALI
    python benchmarks/gpu_all.py --device cpu      # a rehearsal: the same commands on a CPU, tiny, nothing is kept

Each step is a command of its own with a limit of time; one that fails or runs out of time is a row that says so, and
the others go on. Goals: TSM ResNet-50, 8 x 224, bf16 at 98 % of the speed on batches kept
on the device, waiting below 2 %; R3D-18, 16 x 112, at 342 clips/s.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from _shards import SHAPES, make_shards

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "gpu.json"
README = HERE.parent / "README.md"
START, END = "<!-- table of gpu_all.py -->\n", "<!-- end of table -->\n"
ACTCLI = str(Path(sys.executable).with_name("actcli"))


@dataclass(frozen=True)
class Step:
    """One measurement."""

    name: str
    """In the table."""
    command: tuple[str, ...]
    """What is run."""
    minutes: float
    """Limit."""


@dataclass(frozen=True)
class Outcome:
    """What a step came to."""

    name: str
    """Of the step."""
    command: str
    """What was run."""
    seconds: float
    """It took."""
    code: int | None
    """Exit code; None: out of time."""
    lines: tuple[str, ...]
    """The end of what it said."""

    @property
    def ok(self) -> bool:
        """Whether it did what it is for."""
        return self.code == 0


def steps(scratch: Path, device: str) -> list[Step]:
    """All measurements, on made shards in ``scratch``; small ones on a CPU."""
    gpu = device == "cuda"
    python, loader = sys.executable, str(scratch / "gpu_loader.json")
    small = () if gpu else ("--size", "32", "--batch-size", "2")
    short = ("--seconds", "6", "--workers", "8", "14") if gpu else ("--seconds", "1", "--workers", "1", "--clips", "16")
    train = (ACTCLI, "bench", "train", "--shards-dir", str(scratch / "shards"), "--device", device)
    precision = ("--precision", "bf16-mixed") if gpu else ()
    tsm = ("--recipe", "tsm-something-r50-8f", "--set", "pretrained=null", *precision)
    batch = ("--batch-size", "64", "--steps", "60") if gpu else ("--size", "32", "--batch-size", "2", "--steps", "2")
    one_step = (python, str(HERE / "train_step.py"), "--device", device)
    loaders = (python, str(HERE / "gpu_loader.py"), "--device", device, *short, "--results", loader)
    volume = ("--network", "r3d18", "--frames", "16", "--size", "112") if gpu else ("--network", "r3d18", *small)
    tests = (python, "-m", "pytest", "-q", "-m", "gpu" if gpu else "gpu and not gpu", str(HERE.parent))
    return [
        Step("gpu tests", tests, 6),
        Step("TSM ResNet-50, DALI", (*train, *tsm, *batch, *(("--loader", "dali") if gpu else ())), 3),
        Step("TSM ResNet-50, CPU loader", (*train, *tsm, *batch, "--loader", "cpu"), 3),
        Step("TSM ResNet-50, DALI, compiled", (*train, *tsm, *batch, *(("--set", "compile=true") if gpu else ())), 4),
        Step("step beside the plain loop", (*one_step, *precision, *(small or ("--batch-size", "32"))), 2),
        Step("loaders, ResNet-50", (*loaders, *small), 4),
        Step("loaders, R3D-18, 16 x 112", (*loaders, *volume), 3),
    ]


def run(step: Step) -> Outcome:
    """Run a step within its limit."""
    print(f"$ {' '.join(step.command)}", flush=True)
    began = time.monotonic()
    try:
        done = subprocess.run(
            step.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60 * step.minutes
        )
        code, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as error:
        code, text = None, error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else ""
    if "gpu and not gpu" in step.command and code == 5:  # pytest: no test was chosen, as wanted in a rehearsal
        code = 0
    lines = tuple(re.sub(r"\s+", " ", line).strip() for line in text.splitlines() if line.strip())[-12:]
    print("\n".join(lines), flush=True)
    return Outcome(step.name, " ".join(step.command), round(time.monotonic() - began, 1), code, lines)


def table(outcomes: Sequence[Outcome], machine: str) -> str:
    """For the README."""
    rows = [f"On {machine}, by `benchmarks/gpu_all.py`:", "", "| | |", "|---|---|"]
    for one in outcomes:
        told = [
            line for line in one.lines if re.search(r"passed|deselected|% of what|relative_to_plain|training", line)
        ]
        said = told[-1] if one.ok and told else " ".join(one.lines[-1:])
        verdict = said if one.ok else "out of time" if one.code is None else f"failed: {said}"
        rows.append(f"| {one.name} | {verdict.replace('|', ' ')} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Run all steps; exit code 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no CUDA device here; see: actcli doctor. For a rehearsal: --device cpu")
    with tempfile.TemporaryDirectory() as scratch:
        shape = replace(SHAPES["sthv2"], num_clips=1024 if device == "cuda" else 16)
        make_shards(Path(scratch) / "shards", shape)
        outcomes = [run(step) for step in steps(Path(scratch), device)]
    machine = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "a CPU"
    print(table(outcomes, machine))
    if device == "cuda":
        value = {"machine": machine, "torch": torch.__version__, "steps": [asdict(one) for one in outcomes]}
        RESULTS.write_text(json.dumps(value, indent=1) + "\n")
        before, _, rest = README.read_text().partition(START)
        README.write_text(f"{before}{START}{table(outcomes, machine)}{END}{rest.partition(END)[2]}")
    raise SystemExit(not all(one.ok for one in outcomes))


if __name__ == "__main__":
    main()
