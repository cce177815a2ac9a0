"""What users see: tables, errors, and progress with rate and time left."""

import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING
from unicodedata import category

from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich import progress as bars

LINE_SECONDS = 5.0
"""Seconds between progress lines where the output is no terminal."""
SETTLED_SECONDS = 0.3
"""Seconds before a rate means anything."""
RECENT_SECONDS = 10.0
"""Rates are those of so many seconds."""
PIPE_COLUMNS = 400
"""Width where the output is no terminal: nothing is cut for a pipe."""
NARROW_COLUMNS = 100
"""Below this width a bar is short, so that numbers have room."""

NAME_COLUMNS = 44
"""Longer names may go on in the next line where there is no room."""

_STEERING = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, directions, halves of characters, breaks of lines
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")

console = Console(
    highlight=False,
    soft_wrap=not sys.stdout.isatty(),  # a terminal breaks lines between words, a pipe not at all
    width=None if sys.stdout.isatty() else PIPE_COLUMNS,
    quiet=any(os.environ.get(name, "0") != "0" for name in _RANK_VARIABLES),  # of several processes, the first speaks
)
error_console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def plain(text: str, kept: str = "\n\t") -> str:
    """The text with what steers a terminal, or cannot be printed, as escapes: names of files may hold anything."""
    return "".join(c if c in kept or category(c) not in _STEERING else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")


def cell(text: str) -> Text:
    """A name for a table, without mark-up, in one line."""
    return Text(plain(text, kept=""))


def print_error(message: str) -> None:
    """One error, as plain text."""
    error_console.print(Text.assemble(("error:", "bold red"), " ", plain(message)))


def print_note(message: str) -> None:
    """Something the user should know."""
    console.print(Text.assemble(("note:", "yellow"), " ", plain(message)))


class _Listing(Table):
    """A table that cuts no name on a narrow terminal: a very long one goes on in the next line."""

    def add_row(self, *cells: RenderableType | None, style: StyleType | None = None, end_section: bool = False) -> None:
        """Add a row."""
        super().add_row(*cells, style=style, end_section=end_section)
        if isinstance(cells[0], str | Text) and cell_len(str(cells[0])) > NAME_COLUMNS:
            self.columns[0].no_wrap = False


def percent(share: float | None, decimals: int = 2) -> str:
    """A share 0..1 in per cent; ``-`` where there is none."""
    return "-" if share is None else f"{100 * share:.{decimals}f}"


def table(*columns: str, title: str | None = None) -> Table:
    """A table; columns whose name begins with ``#`` are numbers. They and the first column are never cut."""
    made = _Listing(
        title=title,
        title_justify="left",
        header_style="bold",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, column in enumerate(columns):
        is_number = column.startswith("#")
        justify: JustifyMethod = "right" if is_number else "left"
        made.add_column(column.lstrip("#"), justify=justify, no_wrap=is_number or number == 0, overflow="fold")
    return made


def print_split_sets(top1: Mapping[str, float | None], what: str) -> None:
    """A number of each split set, and their mean where all have one."""
    summary = table("split set", f"#{what}")
    for split_id, share in top1.items():
        summary.add_row(split_id, percent(share))
    known = [share for share in top1.values() if share is not None]
    if known and len(known) == len(top1):
        summary.add_row("mean", percent(sum(known) / len(known)))
    console.print(summary)


class Progress:
    """A bar on a terminal, plain lines elsewhere; both with the rate of the last seconds and the time left."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._told = time.monotonic()
        self._marks: deque[tuple[float, int]] = deque()
        self._bar: bars.Progress | None = None
        self._task: bars.TaskID | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int, detail: str = "", seconds_left: float | None = None) -> None:
        """``done`` of ``total`` units are finished.

        ``detail`` follows the rate, and on a narrow terminal replaces it. ``seconds_left`` is the time left of the
        whole work, where this bar is a part of it.
        """
        rate = self._rate(done)
        left = (total - done) / rate if rate and done < total else None
        speed = f"{rate:.3g} {self._unit}/s" if rate and not (detail and _is_narrow()) else ""
        times = f"{duration(left)} left" if left is not None else ""
        if seconds_left is not None:
            times = f"{duration(seconds_left)} left in all"
        told = " · ".join(word for word in (speed, detail, times) if word)
        if console.is_terminal:
            self._draw(done, total, told)
        elif time.monotonic() - self._told >= LINE_SECONDS or done == total:
            self._told = time.monotonic()
            print(f"{self._title}: {done}/{total} {self._unit}{' · ' if told else ''}{told}", flush=True)

    def update_bytes(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes are finished; told in MB, of which the last is done when every byte is."""
        megabytes = max(1, -(-total // 10**6))
        self.update(megabytes if done == total else done // 10**6, megabytes)

    def _rate(self, done: int) -> float:
        """Units a second over the last seconds; 0 until that means anything."""
        now, marks = time.monotonic(), self._marks
        marks.append((now, done))
        while len(marks) > 2 and now - marks[1][0] > RECENT_SECONDS:
            marks.popleft()
        seconds = now - marks[0][0]
        return (done - marks[0][1]) / seconds if seconds >= SETTLED_SECONDS else 0.0

    def _draw(self, done: int, total: int, told: str) -> None:
        if self._bar is None or self._task is None:
            from rich import progress as bars

            self._bar = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(bar_width=8 if _is_narrow() else 30),
                bars.MofNCompleteColumn(),
                bars.TextColumn("[dim]{task.fields[told]}"),
                console=console,
                transient=False,
            )
            self._task = self._bar.add_task(self._title, total=total, told="")
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, told=told)


@contextmanager
def status(text: str) -> Iterator[None]:
    """Say what is being done while it takes a moment."""
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        print(text, file=sys.stderr, flush=True)
        yield


def _is_narrow() -> bool:
    return console.is_terminal and console.width < NARROW_COLUMNS


def duration(seconds: float) -> str:
    """``4 min 20 s``, ``3 h 5 min``, ``2 d 4 h``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
