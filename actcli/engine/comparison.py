"""Compare evaluations: which model is better, on which classes, and whether chance alone would explain it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from actcli.engine.metrics import Accuracies, Scores, class_accuracies, confusion_matrix, summarise
from actcli.engine.reporting import EpochReport
from actcli.engine.results import SCORES_NAME, read_metrics, read_scores
from actcli.engine.runs import CONFIG_NAME, find_run, read_state
from actcli.errors import ActcliError

NUM_RESAMPLES = 10_000
"""Bootstrap samples."""


@dataclass(frozen=True)
class Contestant:
    """One evaluation that takes part."""

    name: str
    """What to call it."""
    folder: Path
    """Folder of the evaluation."""
    scores: Scores
    """Scores of every clip, in key order."""
    protocol: str
    """The test in words."""
    left_out: str
    """Clips that were left out, in words."""
    gflops: float | None
    """Cost of all views of a clip."""
    epochs: tuple[EpochReport, ...]
    """The training, where the evaluation is of a run."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """``[N]``: whether each clip was recognised."""
        return np.asarray(self.scores.logits.argmax(1) == self.scores.labels)

    @property
    def accuracies(self) -> Accuracies:
        """Top-1, top-5 and mean class accuracy, 0..1."""
        return summarise(self.scores)


@dataclass(frozen=True)
class PairedTest:
    """Two models on the same clips."""

    first: str
    """Name of the one."""
    second: str
    """Name of the other."""
    difference: float
    """Top-1 of the second minus that of the first, −1..1."""
    low: float
    """Lower end of the 95 % interval of the difference (bootstrap over clips)."""
    high: float
    """Upper end."""
    only_first: int
    """Clips that only the first recognised."""
    only_second: int
    """Clips that only the second recognised."""
    p_value: float
    """McNemar's exact test: how often chance alone gives a difference this large."""

    def verdict(self) -> str:
        """In a sentence."""
        if self.p_value >= 0.05:
            return f"no difference that chance would not explain (p = {self.p_value:.2g})"
        better = self.second if self.difference > 0 else self.first
        return f"{better} is better (p = {self.p_value:.2g})"


@dataclass(frozen=True)
class ClassDifference:
    """How two models differ on a class."""

    label: int
    """The class."""
    count: int
    """Its clips."""
    first: float
    """Share recognised by the first, 0..1."""
    second: float
    """Share recognised by the second, 0..1."""


def contestants(runs: Path, names: Sequence[str]) -> list[Contestant]:
    """The evaluations called ``names``: runs (their newest evaluation) or folders with ``scores.parquet``.

    Raises:
        ActcliError: There are fewer than two, one is named twice or has no evaluation, or they are not of the same
            clips and labels.
    """
    if len(names) < 2:
        raise ActcliError("a comparison needs two evaluations or more: actcli compare RUN RUN")
    found = [_contestant(runs, name) for name in names]
    _check_named_once(found)
    if not (found[0].scores.labels >= 0).any():
        raise ActcliError(
            f"the clips of {found[0].name} have no labels, so that none is recognised or not. Evaluate a split that "
            f"has them: actcli eval --split val"
        )
    for other in found[1:]:
        _check_same_clips(found[0], other)
    return found


def paired_test(first: Contestant, second: Contestant, seed: int = 0) -> PairedTest:
    """McNemar's exact test and a bootstrap interval on the clips that both scored.

    Clips without a label take no part.
    """
    labelled = first.scores.labels >= 0
    a, b = first.right[labelled], second.right[labelled]
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant).pvalue) if discordant else 1.0
    gain = b.astype(np.float64) - a
    low, high = np.quantile(_resampled_means(gain, seed), [0.025, 0.975])
    return PairedTest(
        first.name, second.name, float(gain.mean()), float(low), float(high), only_first, only_second, p_value
    )


def class_differences(first: Contestant, second: Contestant) -> list[ClassDifference]:
    """Every class that has clips, the largest difference first."""
    confusions = [confusion_matrix(part.scores.logits, part.scores.labels) for part in (first, second)]
    accuracies = [class_accuracies(confusion) for confusion in confusions]
    counts = confusions[0].sum(1)
    found = [
        ClassDifference(label, int(counts[label]), float(accuracies[0][label]), float(accuracies[1][label]))
        for label in np.flatnonzero(counts).tolist()
    ]
    return sorted(found, key=lambda row: -abs(row.second - row.first))


def draw_curves(parts: Sequence[Contestant], path: Path) -> bool:
    """Draw the validation curves of the trainings into one picture; whether there was anything to draw.

    Raises:
        ActcliError: The picture cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="validation top-1, %")
    drawn = 0
    for part in parts:
        points = [(epoch.epoch + 1, 100 * epoch.val_top1) for epoch in part.epochs if epoch.val_top1 is not None]
        if points:
            drawn += 1
            axes.plot(*zip(*points, strict=True), marker=".", label=part.name)
    if not drawn:
        return False
    figure.legend(loc="outside upper left")  # where no curve is
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ActcliError(f"the picture {path} cannot be written ({error}).") from error
    return True


def _resampled_means(values: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Means of ``values`` over clips drawn with replacement, ``[NUM_RESAMPLES]``."""
    rng = np.random.default_rng(seed)
    # a clip counts −1, 0 or 1, so that a sample is three numbers of a multinomial and not N draws
    counts = np.array([(values == value).sum() for value in (-1, 0, 1)])
    drawn = rng.multinomial(len(values), counts / len(values), NUM_RESAMPLES)
    return np.asarray((drawn[:, 2] - drawn[:, 0]) / len(values), np.float64)


def _contestant(runs: Path, name: str) -> Contestant:
    folder = find_evaluation(runs, name)
    metrics = read_metrics(folder)
    run, gflops = metrics.get("run"), metrics.get("gflops")
    epochs: tuple[EpochReport, ...] = ()
    run_dir = run.get("folder") if isinstance(run, dict) else None
    if isinstance(run_dir, str) and (Path(run_dir) / CONFIG_NAME).exists():
        epochs = read_state(Path(run_dir)).epochs
    return Contestant(
        name=short_name(Path(name), folder),
        folder=folder,
        scores=read_scores(folder).sorted(),
        protocol=str(metrics.get("protocol", "unknown")),
        left_out=str(metrics.get("left_out") or ""),
        gflops=gflops if isinstance(gflops, int | float) else None,
        epochs=epochs,
    )


def short_name(given: Path, folder: Path) -> str:
    """The run's name; for a folder of a run's several evaluations, both."""
    inside_run = given.name == folder.name and folder.parent.name == "eval"
    return f"{folder.parent.parent.name}/{folder.name}" if inside_run else given.name


def find_evaluation(runs: Path, name: str) -> Path:
    """The folder of an evaluation: itself, or the newest of a run.

    Raises:
        ActcliError: There is none.
    """
    if (Path(name) / SCORES_NAME).exists():
        return Path(name)
    if (runs / name / SCORES_NAME).exists():
        return runs / name
    what, make = f"neither a run nor a folder with {SCORES_NAME}", "actcli eval"
    try:
        run_dir = find_run(runs, name)
        what, make = "a run without an evaluation", f"actcli eval --run {shlex.quote(name)}"
    except ActcliError:
        run_dir = Path(name)
    found = sorted((run_dir / "eval").glob(f"*/{SCORES_NAME}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise ActcliError(f"{name!r} is {what}. Make one with: {make}")
    return found[-1].parent


def _check_named_once(parts: Sequence[Contestant]) -> None:
    folders = [part.folder.resolve() for part in parts]
    for part, folder in zip(parts, folders, strict=True):
        if folders.count(folder) > 1:
            raise ActcliError(f"{part.folder} is named more than once; name each evaluation once.")


def _check_same_clips(first: Contestant, other: Contestant) -> None:
    if not np.array_equal(first.scores.keys, other.scores.keys):
        common = len(np.intersect1d(first.scores.keys, other.scores.keys))
        raise ActcliError(
            f"{first.name} scored {len(first.scores.keys)} clips, {other.name} {len(other.scores.keys)}, and {common} "
            f"are in both. Compare evaluations of the same split of the same shards, joined in the same order."
        )
    if not np.array_equal(first.scores.labels, other.scores.labels):
        raise ActcliError(f"{first.name} and {other.name} have different labels for the same clips.")
    if first.scores.logits.shape[1] != other.scores.logits.shape[1]:
        raise ActcliError(f"{first.name} and {other.name} have different numbers of classes.")
