"""Does every model learn what only the order of frames tells?

    python make_corpus.py W/raw/sthv2 --dataset sthv2 --clips 400
    python benchmarks/temporal.py W [--only tsn tsm] [--seeds 3] [--write]

``W`` is a workspace with a dataset under ``raw/sthv2`` whose classes come in pairs that differ in the direction of a
move (``PAIRS``). The script goes the way of a user: ``actcli extract`` (frames and flow), ``shard``, and for each model
and seed ``train`` and ``eval``. What is done is not done again, and a training that was killed goes on, so it can be
stopped at any time. ``--write`` keeps numbers and curves in ``results/temporal.json``, the picture in
``docs/pictures/temporal.svg``, and the table in ``docs/learning.md``; what was kept of other models stays, as long as
their settings are those of ``CASES``.

All models train with the same batch size and kind of schedule, convolution nets from random weights. Sizes, learning
rates and epochs differ (``CASES``). Transformers start from one that has learnt what single frames show
(``_places.py``), as the published ones start from ImageNet.
"""

import argparse
import dataclasses
import json
import re
import resource
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import yaml
from _places import make_places

from actcli.engine.metrics import Scores
from actcli.engine.results import class_names, read_scores
from actcli.shards import ShardSet

PAIRS = (
    ("Pushing something from left to right", "Pushing something from right to left"),
    ("Moving something down", "Moving something up"),
    ("Approaching something with your camera", "Moving away from something with your camera"),
)
"""Classes whose single frames look alike."""

EPOCHS = 24
COMMON = (
    "--batch-size 8 --frames 8 --sampling segments --workers 0 --accumulate 1 "
    "--set schedule.kind=cosine --set schedule.milestones=[] --set schedule.factors=[] --set schedule.warmup_epochs=3 "
    "--set augmentation.crop=center --set augmentation.flip=0.5 --set validate_every=2"
)
"""What all trainings share."""

SCORES = Path("eval/temporal/scores.parquet")
HERE = Path(__file__).parent
RESULTS = HERE / "results" / "temporal.json"
PICTURE = HERE.parent / "docs" / "pictures" / "temporal.svg"
PAGE = HERE.parent / "docs" / "learning.md"


@dataclass(frozen=True)
class Case:
    """How a model is trained."""

    name: str
    """The model, and what is special where there are several cases of it."""
    backbone: str
    """Its backbone."""
    size: int
    """Side of the input in pixels."""
    rate: float
    """Base learning rate."""
    recipe: str
    """The recipe whose other numbers hold."""
    options: str = ""
    """Further flags of ``actcli train``."""
    seeds: int = 1
    """Trainings by default."""
    epochs: int = EPOCHS
    """Passes over the training split."""
    from_places: bool = False
    """Whether it starts from the transformer of ``PLACES``."""

    def command(self) -> str:
        """The flags of ``actcli train``."""
        return (
            f"--recipe {self.recipe} --backbone {self.backbone} --size {self.size} --learning-rate {self.rate} "
            f"--epochs {self.epochs} {COMMON} {self.options}"
        )


FREE = "--dropout 0 --set fast_classifier=false"
UNFLIPPED = f"{FREE} --set augmentation.flip=0"
ADAMW = "--optimizer adamw --weight-decay 0.05"
VIT = f"{ADAMW} --set label_smoothing=0 --set augmentation.colour_jitter=null"
PLACES = Case("places", "vit_ti16", 32, 0.0001, "vit-kinetics-b16-8x32-224", f"{VIT} --frames 2", epochs=36)
"""The image transformer that others start from: 2 frames a clip."""
CASES = (
    Case("tsn", "resnet18", 32, 0.005, "tsn-something-r50-8f", UNFLIPPED, 3),
    Case("tsm", "resnet18", 32, 0.005, "tsm-something-r50-8f", UNFLIPPED, 3),
    Case("gsm", "bninception", 64, 0.005, "gsm-something-bninception-8f", "--dropout 0"),
    Case("tsn-resnet50", "resnet50", 32, 0.005, "tsn-something-r50-8f", FREE),
    Case("gsf", "resnet50", 32, 0.005, "gsf-something-r50-16f", "--dropout 0"),
    Case("masnet", "resnet50", 32, 0.005, "masnet-sthv1-r50-8f", "--dropout 0", epochs=48),
    Case("lsnet", "resnet50", 32, 0.005, "lsnet-something-r50-8f", "--dropout 0 --set augmentation.flip=0"),
    Case("vit", "vit_ti16", 32, 0.0001, "vit-kinetics-b16-8x32-224", VIT, from_places=True),
    Case("tokshift", "vit_ti16", 32, 0.0001, "tokshift-kinetics-b16-8x32-224", VIT, from_places=True),
    Case("stmulnet", "resnet50", 32, 0.0003, "stmulnet-ucf101-r50-11f", ADAMW, epochs=10),
)
AVERAGING = ("tsn", "tsn-resnet50", "vit")
"""Those that average their frames."""


@dataclass(frozen=True)
class Outcome:
    """What one training came to."""

    name: str
    """Of the case."""
    seed: int
    """Of everything random."""
    top1: float
    """0..1, validation split, centre crop of one test clip."""
    within_pair: float
    """Share of clips for which the right class of the pair has the higher score, 0..1; chance is 0.5."""
    left_or_right: float
    """The same for the first of ``PAIRS`` alone."""
    right_pair: float
    """Share of clips whose prediction lies in the right pair, 0..1; chance is 1 / 3."""
    curve: tuple[tuple[int, float], ...]
    """Epochs done and top-1 on the validation split after them."""
    num_clips: int
    """Clips of the training split."""
    steps: int
    """Updates of the weights."""
    cpu_minutes: float
    """Processor time of training and test, over all cores."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES], help="cases")
    parser.add_argument("--seeds", type=int, help="trainings of each model, instead of 3 for TSN and TSM, 1 for others")
    parser.add_argument("--done", action="store_true", help="train nothing, take what is there")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    workspace = arguments.workspace.resolve()
    cases = [case for case in CASES if arguments.only is None or case.name in arguments.only]
    if not arguments.done:
        prepare(workspace)
    if not arguments.done and any(case.from_places for case in cases):
        learn_places(workspace)
    outcomes = []
    for case in cases:
        for seed in range(arguments.seeds or case.seeds):
            if arguments.done and not (workspace / "runs" / f"{case.name}-{seed}" / SCORES).exists():
                continue
            outcomes.append(learn(workspace, case, seed))
            print(outcomes[-1], flush=True)
    outcomes = in_order([*kept(outcomes), *outcomes])
    print(table(outcomes))
    if arguments.write:
        write(outcomes, best_top1(workspace / "runs" / f"{PLACES.name}-0"))


def prepare(workspace: Path) -> None:
    """Extract frames and flow, and pack them, unless that is done."""
    if not (workspace / "shards" / "sthv2" / "dataset.json").exists():
        run(workspace, "extract --dataset sthv2 --short-side 80")
        run(workspace, "extract --dataset sthv2 --short-side 80 --modality flow")
        run(workspace, "shard --dataset sthv2")


def learn_places(workspace: Path) -> None:
    """Train the transformer of ``PLACES``, unless that is done."""
    shards = workspace / "shards" / "places"
    if not (shards / "dataset.json").exists():
        folders = workspace / "folders"
        run(workspace, f"extract --dataset sthv2 --short-side 40 --layout folders --frames-dir {quoted(folders)}")
        if not (workspace / "raw" / "places").exists():
            make_places(folders, workspace / "raw" / "places")
        run(workspace, "extract --dataset places")
        run(workspace, "shard --dataset places")
    train(workspace, PLACES, 0, shards)


def learn(workspace: Path, case: Case, seed: int, shards: Path | None = None) -> Outcome:
    """Train and test a model; what was done before is not done again."""
    shards = shards or workspace / "shards" / "sthv2"
    folder = train(workspace, case, seed, shards)
    if not (folder / SCORES).exists():
        place = f"--out-dir {quoted((folder / SCORES).parent)} --shards-dir {quoted(shards)}"
        run(workspace, f"eval --run {folder.name} --clips 1 --crops 1 {place}", folder)
    return outcome(folder, case, seed)


def train(workspace: Path, case: Case, seed: int, shards: Path) -> Path:
    """The folder of a finished training; one that was killed goes on."""
    folder = workspace / "runs" / f"{case.name}-{seed}"
    if (folder / "finished").exists():
        return folder
    if (folder / "config.yaml").exists():
        run(workspace, f"train --resume --run-dir {quoted(folder)}", folder)
        return folder
    places = workspace / "runs" / f"{PLACES.name}-0" / "checkpoints" / "best.safetensors"
    first = f"--init {quoted(places)} --new-head" if case.from_places else "--pretrained none"
    into = f"--run-dir {quoted(folder)} --shards-dir {quoted(shards)}"
    run(workspace, f"train {case.command()} --seed {seed} {first} {into}", folder)
    return folder


def quoted(path: Path) -> str:
    """For a command line."""
    return shlex.quote(str(path))


def outcome(folder: Path, case: Case, seed: int) -> Outcome:
    """Read a finished run."""
    history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    scores = read_scores(folder / "eval" / "temporal")
    pairs = pair_of(class_names(folder / "eval" / "temporal"))
    predictions, better = scores.logits.argmax(1), better_of_pair(scores, pairs)
    log = (folder / "temporal.log").read_text()
    return Outcome(
        name=case.name,
        seed=seed,
        top1=float((predictions == scores.labels).mean()),
        within_pair=float(better.mean()),
        left_or_right=float(better[pairs[scores.labels] // 2 == 0].mean()),
        right_pair=float((pairs[predictions] // 2 == pairs[scores.labels] // 2).mean()),
        curve=tuple((line["epoch"] + 1, line["val_top1"]) for line in history if line["val_top1"] is not None),
        num_clips=trained_clips(folder),
        steps=len(history) * int(re.findall(r"epoch \d+/\d+: \d+/(\d+) steps", log)[-1]),
        cpu_minutes=round(sum(map(float, re.findall(r"^processor seconds: ([\d.]+)$", log, re.M))) / 60, 1),
    )


def trained_clips(folder: Path) -> int:
    """Clips of the training split of a run's shards."""
    card = ShardSet.open(yaml.safe_load((folder / "config.yaml").read_text())["shards"]).card
    return card.splits("1")["train"]


def pair_of(names: dict[int, str]) -> np.ndarray:
    """``[K]``: the place of each label in ``PAIRS``, read in order; // 2 is its pair."""
    order = [name for pair in PAIRS for name in pair]
    return np.array([order.index(names[label]) for label in range(len(order))])


def better_of_pair(scores: Scores, pairs: np.ndarray) -> np.ndarray:
    """``[N]``: whether each clip's class has a higher score than the other class of its pair."""
    place = np.argsort(pairs)  # label at each place of PAIRS
    partner = place[pairs[scores.labels] ^ 1]
    rows = np.arange(len(scores.labels))
    return np.asarray(scores.logits[rows, scores.labels] > scores.logits[rows, partner])


def run(workspace: Path, command: str, folder: Path | None = None) -> None:
    """Run ``actcli``; its words and its processor time go to ``temporal.log`` in ``folder``."""
    print(f"$ actcli {command}", flush=True)
    began, before = time.time(), processor_seconds()
    process = subprocess.run(
        [Path(sys.executable).with_name("actcli"), *shlex.split(command), "--workspace", str(workspace)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "temporal.log").open("a") as log:
            log.write(f"$ actcli {command}\n{process.stdout}\nprocessor seconds: {processor_seconds() - before:.1f}\n")
    if process.returncode:
        raise SystemExit(f"{process.stdout[-2000:]}\nfailed: actcli {command}")
    print(f"  {time.time() - began:.0f} s", flush=True)


def processor_seconds() -> float:
    """Of all children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def kept(new: Sequence[Outcome]) -> list[Outcome]:
    """Outcomes in the result file that were trained with the settings of ``CASES``, apart from those of new runs."""
    if not RESULTS.exists():
        return []
    value = json.loads(RESULTS.read_text())
    unchanged = {case.name for case in CASES if plain(case) in value["cases"]}
    done = {(one.name, one.seed) for one in new}
    old = [Outcome(**{**one, "curve": tuple(map(tuple, one["curve"]))}) for one in value["outcomes"]]
    return [one for one in old if one.name in unchanged and (one.name, one.seed) not in done]


def plain(case: Case) -> dict[str, object]:
    """A case as it stands in the result file."""
    return {**dataclasses.asdict(case), "command": case.command()}


def in_order(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Sorted as ``CASES`` are."""
    order = [case.name for case in CASES]
    return sorted(outcomes, key=lambda one: (order.index(one.name), one.seed))


def table(outcomes: Sequence[Outcome]) -> str:
    """In Markdown, a row per model; means over the seeds."""
    rows = [
        "| model | backbone | input | rate | clips | epochs | runs | top-1 | within pairs | left or right | pair found "
        "| CPU minutes a run |",
        "|" + "---|" * 12,
    ]
    for case in CASES:
        runs = [one for one in outcomes if one.name == case.name]
        if runs:
            shares = " | ".join(
                spread([getattr(one, name) for one in runs])
                for name in ("top1", "within_pair", "left_or_right", "right_pair")
            )
            minutes = statistics.mean(one.cpu_minutes for one in runs)
            setting = f"{case.backbone} | {case.size} px | {case.rate} | {runs[0].num_clips:,} | {case.epochs}"
            rows.append(f"| {case.name} | {setting} | {len(runs)} | {shares} | {minutes:.0f} |")
    return "\n".join(rows)


def spread(shares: Sequence[float]) -> str:
    """``93.1 % (91.0 to 94.2)``; the range where there are several."""
    mean = f"{100 * statistics.mean(shares):.1f} %"
    return mean if len(shares) == 1 else f"{mean} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def best_top1(folder: Path) -> float | None:
    """Of the epochs of a training, on its validation split; none where there is no such training."""
    if not (folder / "finished").exists():
        return None
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return max(line["val_top1"] for line in lines if line["val_top1"] is not None)


def write(outcomes: Sequence[Outcome], places_top1: float | None) -> None:
    """Keep numbers, picture and table."""
    if places_top1 is None and RESULTS.exists():
        places_top1 = json.loads(RESULTS.read_text()).get("places_top1")
    value = {
        "places": plain(PLACES),
        "places_top1": places_top1,
        "cases": [plain(case) for case in CASES],
        "outcomes": [dataclasses.asdict(one) for one in outcomes],
    }
    RESULTS.write_text(json.dumps(value, indent=1) + "\n")
    PICTURE.parent.mkdir(exist_ok=True)
    draw(outcomes)
    replace_table(PAGE, "temporal.py", table(outcomes))


def replace_table(page: Path, script: str, text: str) -> None:
    """Put a table where the page has that of the script."""
    begin, end = f"<!-- table of {script} -->\n", "<!-- end of table -->\n"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(f"{before}{begin}{text}\n{end}{rest.partition(end)[2]}")


def draw(outcomes: Sequence[Outcome]) -> None:
    """Curves of all trainings; dashed where frames are averaged, whatever their order."""
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "temporal"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    colours = dict(zip((case.name for case in CASES), pyplot.colormaps["tab10"].colors, strict=False))
    longest = max(epochs for one in outcomes for epochs, _ in one.curve)
    for one in outcomes:
        epochs, shares = zip(*one.curve, strict=True)
        label = one.name if one.seed == 0 else None
        style = {"color": colours[one.name], "linestyle": "--" if one.name in AVERAGING else "-", "linewidth": 1.4}
        axes.plot(epochs, [100 * share for share in shares], label=label, **style)
    axes.axhline(50, color="grey", linestyle=":", linewidth=1)
    axes.annotate(
        "every pair found, every direction guessed", (longest, 50), ha="right", va="bottom", color="grey", fontsize=8
    )
    axes.set(xlabel="epochs", ylabel="top-1 on the validation split, %", ylim=(0, 100), xlim=(0, longest))
    figure.legend(loc="outside right upper", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, metadata={"Date": None})


if __name__ == "__main__":
    main()
