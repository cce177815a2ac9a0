"""The page of a comparison: accuracies, paired tests, classes that differ, learning curves."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from actcli.engine.comparison import Contestant, PairedTest, class_differences, paired_test
from actcli.engine.metrics import calibration
from actcli.engine.results import class_names
from actcli.errors import ActcliError
from actcli.files import write_text_whole
from actcli.pages import charts, render_page

_MAX_CLASSES = 200


@dataclass(frozen=True)
class _Row:
    name: str
    top1: float
    top5: float
    mean_class_accuracy: float
    calibration_error: float
    gflops: float | None


@dataclass(frozen=True)
class _Protocol:
    words: str
    left_out: str
    names: tuple[str, ...]
    """The evaluations that were made so."""


@dataclass(frozen=True)
class _ClassRow:
    name: str
    count: int
    first: float
    second: float


@dataclass(frozen=True)
class _Pair:
    test: PairedTest
    classes: list[_ClassRow]
    num_more: int


@dataclass(frozen=True)
class _Chart:
    title: str
    picture: Markup


def write_comparison(path: Path, parts: Sequence[Contestant], command: str = "") -> None:
    """Write the page; every evaluation is compared with the first.

    Args:
        path: The page.
        parts: Two or more evaluations of the same clips.
        command: What was typed.

    Raises:
        ActcliError: The page cannot be written.
    """
    first, *others = parts
    names = class_names(first.folder)
    page = render_page(
        "compare",
        rows=[
            _Row(part.name, **part.accuracies, calibration_error=calibration(part.scores).error, gflops=part.gflops)
            for part in parts
        ],
        num_clips=len(first.scores.keys),
        protocols=_protocols(parts),
        pairs=[_pair(first, other, names) for other in others],
        curves=_curves(parts),
        command=command,
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(path, page)
    except OSError as error:
        raise ActcliError(f"the page {path} cannot be written ({error.strerror or error}).") from error


def _protocols(parts: Sequence[Contestant]) -> list[_Protocol]:
    made: dict[tuple[str, str], list[str]] = {}
    for part in parts:
        made.setdefault((part.protocol, part.left_out), []).append(part.name)
    return [_Protocol(words, left_out, tuple(names)) for (words, left_out), names in made.items()]


def _pair(first: Contestant, other: Contestant, names: dict[int, str]) -> _Pair:
    differences = class_differences(first, other)
    rows = [
        _ClassRow(names.get(row.label, str(row.label)), row.count, row.first, row.second)
        for row in differences[:_MAX_CLASSES]
    ]
    return _Pair(paired_test(first, other), rows, max(0, len(differences) - _MAX_CLASSES))


def _curves(parts: Sequence[Contestant]) -> list[_Chart]:
    """Validation and loss by epoch from 1, of the evaluations whose training is known."""
    validation = [
        charts.Line(part.name, tuple((e.epoch + 1, 100 * e.val_top1) for e in part.epochs if e.val_top1 is not None))
        for part in parts
    ]
    loss = [charts.Line(part.name, tuple((e.epoch + 1, e.train_loss) for e in part.epochs)) for part in parts]
    found = [("Validation top-1", validation, "top-1, %"), ("Training loss", loss, "loss")]
    return [
        _Chart(title, charts.lines(drawn, "epoch", unit))
        for title, lines, unit in found
        if (drawn := [line for line in lines if line.points])
    ]
