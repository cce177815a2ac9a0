"""Charts as inline SVG, drawn by matplotlib: they need no script, and take their colours from the page.

Every chart is drawn with placeholder colours, which become CSS variables: so one picture serves light and dark.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

_SIZE = (4.8, 3.0)  # inches; small, so that the words can be read on a phone
_INK, _GRID = "#010203", "#040506"
_SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005", "#0a0006")
_VARIABLES = {_INK: "var(--soft)", _GRID: "var(--line)"} | {
    colour: f"var(--s{number})" for number, colour in enumerate(_SERIES, 1)
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "actcli",
    "text.parse_math": False,  # a $ in a name is a $
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
_SHADES = LinearSegmentedColormap.from_list("shades", [(0.18, 0.44, 0.87, 0.05), (0.18, 0.44, 0.87, 1.0)])
_FEW = 8  # values that get a bar each
_MAX_LEGEND = 32  # characters of a name


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    """What the legend calls it."""
    points: tuple[tuple[float, float], ...]
    """x and y."""


@dataclass(frozen=True)
class Bar:
    """A bar with a label, and how far chance may have moved it."""

    name: str
    """Label below the bar."""
    value: float
    """Height."""
    low: float | None = None
    """Lower end of an interval, where there is one."""
    high: float | None = None
    """Upper end."""


def _short(name: str) -> str:
    """A name cut to fit, in its middle: classes and runs often differ in their last words only."""
    half = (_MAX_LEGEND - 1) // 2
    return name if len(name) <= _MAX_LEGEND else f"{name[:half]}…{name[-half:]}"


def lines(curves: Sequence[Line], x_label: str, y_label: str) -> Markup:
    """Curves over a common axis, with a legend where there are several."""
    with _chart(x_label, y_label) as (figure, axes):
        for number, curve in enumerate(curves):
            colour = _SERIES[number % len(_SERIES)]
            axes.plot(*zip(*curve.points, strict=True), marker=".", color=colour, label=_short(curve.name))
        if len(curves) > 1:
            is_short = sum(len(_short(curve.name)) for curve in curves) < _MAX_LEGEND
            figure.legend(loc="outside upper left", ncols=len(curves) if is_short else 1)  # where no curve is
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return _svg(figure, f"{y_label} over {x_label}")


def bars(values: Sequence[Bar], x_label: str, y_label: str) -> Markup:
    """A bar for each of a few groups."""
    with _chart(x_label, y_label) as (figure, axes):
        places = np.arange(len(values))
        axes.bar(places, [bar.value for bar in values], color=_SERIES[0], width=0.75)
        axes.set_xlim(-0.6, max(len(values), 3) - 0.4)
        for place, bar in zip(places, values, strict=True):
            if bar.low is not None and bar.high is not None:
                axes.vlines(place, bar.low, bar.high, color=_INK, linewidth=1.2)
        turned = sum(len(bar.name) for bar in values) > 42
        axes.set_xticks(
            places, [bar.name for bar in values], rotation=35 if turned else 0, ha="right" if turned else "center"
        )
        axes.grid(visible=False, axis="x")
        return _svg(figure, f"{y_label} by {x_label}")


def histogram(values: NDArray[np.float64] | Sequence[float], x_label: str, y_label: str = "clips") -> Markup:
    """How often which values come: a bar each for a few, else about 40 bins.

    Numbers that lie far out are gathered in the last bin.
    """
    numbers = np.asarray(values, np.float64)
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) <= _FEW:
        named = zip(distinct.tolist(), counts.tolist(), strict=True)
        return bars([Bar(f"{value:.4g}", count) for value, count in named], x_label, y_label)
    with _chart(x_label, y_label) as (figure, axes):
        low, high = numbers.min(), np.quantile(numbers, 0.995)
        whole = bool((numbers == np.round(numbers)).all())
        step = max((high - low + 1) / 40, 1.0) if whole else max((high - low) / 40, 1e-3)
        step = float(np.ceil(step)) if whole else float(step)
        edges = np.arange(low - (0.5 if whole else 0), high + 1.5 * step, step)
        counts, edges = np.histogram(np.minimum(numbers, edges[-1] - step / 2), edges)
        axes.bar(edges[:-1], counts, width=step * 0.92, align="edge", color=_SERIES[0])
        axes.grid(visible=False, axis="x")
        return _svg(figure, f"{y_label} by {x_label}")


def reliability(confidence: Sequence[float], accuracy: Sequence[float], counts: Sequence[int]) -> Markup:
    """Accuracy over confidence, each point as large as its share of the clips; the diagonal is perfect calibration."""
    with _chart("confidence", "accuracy") as (figure, axes):
        axes.plot([0, 1], [0, 1], color=_INK, linestyle="--", linewidth=1)
        axes.plot(confidence, accuracy, color=_SERIES[0])
        axes.scatter(confidence, accuracy, s=12 + 240 * np.array(counts) / max(sum(counts), 1), color=_SERIES[0])
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
        return _svg(figure, "accuracy over confidence")


def matrix(shares: NDArray[np.float64], names: Sequence[str] | None) -> Markup:
    """A square of shares of rows; names beside it where they are given."""
    with rc_context(_STYLE | {"axes.grid": False}):
        figure = Figure(figsize=(6, 5), layout="constrained")
        axes = figure.add_subplot(xlabel="guess", ylabel="class")
        axes.imshow(shares, cmap=_SHADES, vmin=0, vmax=1, interpolation="nearest")
        if names is not None:
            short = list(map(_short, names))
            axes.set_xticks(range(len(names)), short, rotation=45, ha="right")
            axes.set_yticks(range(len(names)), short)
        return _svg(figure, "confusion matrix")


@contextmanager
def _chart(x_label: str, y_label: str) -> Iterator[tuple[Figure, Axes]]:
    with rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        yield figure, figure.add_subplot(xlabel=x_label, ylabel=y_label)


def _svg(figure: Figure, description: str) -> Markup:
    """The picture for a page: without XML header and metadata, with colours of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, variable)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{Markup.escape(description)}" ', 1)
    return Markup(text)
