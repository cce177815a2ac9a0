"""What a user sees of a training."""

from shlex import quote
from typing import TYPE_CHECKING

from actcli.cli._console import Progress, console, duration, print_note, table
from actcli.words import counted

if TYPE_CHECKING:
    from actcli.engine.clock import TimeTable
    from actcli.engine.hardware import Hardware
    from actcli.engine.reporting import EpochReport, StepReport
    from actcli.engine.training import Run


class TerminalReporter:
    """Shows a training on the terminal."""

    def __init__(self) -> None:
        self._bars: dict[str, Progress] = {}

    def __enter__(self) -> "TerminalReporter":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def note(self, text: str) -> None:
        """A line of its own."""
        print_note(text)

    def foretold(self, epoch_seconds: float, seconds_left: float) -> None:
        """What the training will take, and how to make it less."""
        print_note(
            f"an epoch takes about {duration(epoch_seconds)}, all that is left about {duration(seconds_left)}, "
            f"validation left out. Less: --epochs, --size, --frames, --backbone"
        )

    def step(self, report: "StepReport") -> None:
        """Move the bar of the epoch."""
        bar = self._bar(f"epoch {report.epoch + 1}/{report.num_epochs}")
        detail = f"loss {report.loss:.3f} · {report.clips_per_second:.1f} clips/s"
        if console.width >= 120:
            detail += f" · {report.waiting:.0%} waiting for data"
        bar.update(report.step, report.num_steps, detail, report.seconds_left)

    def validating(self, done: int, total: int) -> None:
        """Move the bar of the validation."""
        self._bar("validate").update(done, total)

    def epoch(self, report: "EpochReport") -> None:
        """A line with the numbers of an epoch."""
        self._close()
        validated = "" if report.val_top1 is None else f", val top-1 {100 * report.val_top1:.2f} %"
        console.print(
            f"epoch {report.epoch + 1}: loss {report.train_loss:.4f}, train top-1 {100 * report.train_top1:.2f} %"
            f"{validated}, learning rate {report.learning_rate:.3g}"
        )

    def finished(self, times: "TimeTable") -> None:
        """Say where the time went, and what to change."""
        print_times(times)

    def _bar(self, title: str) -> Progress:
        if title not in self._bars:
            self._close()
            self._bars[title] = Progress(title, "steps")
        return self._bars[title]

    def _close(self) -> None:
        for bar in self._bars.values():
            bar.__exit__(None, None, None)
        self._bars.clear()


def print_times(times: "TimeTable") -> None:
    """Where the time of a training went, as a table and a sentence."""
    listing = table("where the time went", "#seconds", "#share")
    for name, seconds, share in times.rows():
        listing.add_row(name, f"{seconds:.1f}", f"{share:.1%}")
    console.print(listing)
    console.print(times.advice(), markup=False)


def train_or_tell(run: "Run", hardware: "Hardware", dry_run: bool) -> float | None:
    """Train, or say that nothing is left to do; the best top-1."""
    from actcli.engine.runs import read_state
    from actcli.engine.training import describe_finished

    recipe = run.config.recipe
    if run.resume and (told := describe_finished(run)) is not None:
        console.print(told, markup=False)
        return read_state(run.run_dir).best_top1
    verb = "continuing" if run.resume else "training"
    console.print(
        f"{verb} {recipe.model} on {run.config.shards} with the recipe {recipe.name}: "
        f"{counted(recipe.epochs, 'epoch')}, batches of {recipe.batch_size}, in {run.run_dir}",
        markup=False,
    )
    if left_out := run.config.open_shards().left_out("train", run.config.split_id):
        print_note(f"left out: {left_out}")
    if dry_run:
        _print_plan(run, hardware)
        return None
    with TerminalReporter() as reporter:
        history = run.train(hardware, reporter)
    best = max((report.val_top1 for report in history if report.val_top1 is not None), default=None)
    told = "no epoch was validated" if best is None else f"best top-1 {100 * best:.2f} %"
    console.print(f"{told}, in {run.run_dir}. next: actcli eval --run-dir {quote(str(run.run_dir))}", markup=False)
    return best


def _print_plan(run: "Run", hardware: "Hardware") -> None:
    plan = run.plan(hardware)
    listing = table("what", "value")
    for name, value in plan.rows():
        listing.add_row(name, value)
    console.print(listing)
