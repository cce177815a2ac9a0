"""What users see: tables, errors, and progress with rate and time left."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from unicodedata import category

from rich.console import Console
from rich.table import Table
from rich.text import Text

LINE_SECONDS = 5.0
"""Seconds between progress lines where the output is no terminal."""
SETTLED_SECONDS = 0.3
"""Seconds before a rate means anything."""

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, directions, halves of characters, breaks of lines
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")

console = Console(
    highlight=False,
    soft_wrap=True,
    quiet=any(os.environ.get(name, "0") != "0" for name in _RANK_VARIABLES),  # of several processes, the first speaks
)
error_console = Console(stderr=True, highlight=False, soft_wrap=True)


def plain(text: str) -> str:
    """The text with what steers a terminal, or cannot be printed, as escapes: names of files may hold anything."""
    return "".join(c if c in "\n\t" or category(c) not in _STEERING else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def cell(text: str) -> Text:
    """A name for a table, without mark-up."""
    return Text(plain(text))


def print_error(message: str) -> None:
    """One error, as plain text."""
    error_console.print("[bold red]error:[/]", end=" ")
    error_console.print(plain(message), markup=False)


def print_note(message: str) -> None:
    """Something the user should know."""
    console.print("[yellow]note:[/]", end=" ")
    console.print(plain(message), markup=False)


def table(*columns: str, title: str | None = None) -> Table:
    """A table; columns whose name begins with ``#`` are numbers."""
    made = Table(title=title, title_justify="left", header_style="bold", title_style="bold")
    for column in columns:
        made.add_column(column.lstrip("#"), justify="right" if column.startswith("#") else "left")
    return made


class Progress:
    """A bar on a terminal, plain lines elsewhere; both with rate and time left."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._started = self._told = time.monotonic()
        self._first: int | None = None
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, detail: str = "") -> None:
        """``done`` of ``total`` units are finished; ``detail`` follows in grey."""
        if self._first is None:
            self._first = max(0, done - 1)
        elapsed = time.monotonic() - self._started
        rate = (done - self._first) / elapsed if elapsed >= SETTLED_SECONDS else 0.0
        if console.is_terminal:
            self._draw(done, total, rate, detail)
        elif time.monotonic() - self._told >= LINE_SECONDS or done == total:
            self._told = time.monotonic()
            speed = f", {rate:.1f}/s" if rate else ""
            left = f", {_clock((total - done) / rate)} left" if rate and done < total else ""
            suffix = f", {detail}" if detail else ""
            print(f"{self._title}: {done}/{total} {self._unit}{speed}{left}{suffix}", flush=True)

    def _draw(self, done: int, total: int, rate: float, detail: str) -> None:
        if self._bar is None:
            from rich import progress as bars

            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TextColumn("{task.fields[rate]}"),
                bars.TimeRemainingColumn(compact=True),
                bars.TextColumn("[dim]{task.fields[detail]}"),
                console=console,
                transient=False,
            )
            self._task = self._bar.add_task(self._title, total=total, rate="", detail="")
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, rate=f"{rate:.1f} {self._unit}/s", detail=detail)


@contextmanager
def status(text: str) -> Iterator[None]:
    """Say what is being done while it takes a moment."""
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        print(text, file=sys.stderr, flush=True)
        yield


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
