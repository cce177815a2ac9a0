"""``actcli compare``: which of several runs is better, and is it more than chance?"""

from pathlib import Path
from typing import Annotated

import typer

from actcli.cli._completion import complete_runs
from actcli.cli._console import cell, console, percent, print_note, table
from actcli.cli._options import HERE, WorkspaceOption, typed_command
from actcli.cli._workspace import Workspace

NUM_CLASSES_SHOWN = 10


def compare_command(
    ctx: typer.Context,
    parts: Annotated[
        list[str],
        typer.Argument(
            help="Runs (their newest evaluation), or folders with scores.parquet.", autocompletion=complete_runs
        ),
    ],
    workspace: WorkspaceOption = HERE,
    picture: Annotated[
        Path | None, typer.Option(help="Where the learning curves go.", show_default="runs/comparison.png")
    ] = None,
    page: Annotated[Path | None, typer.Option(help="Where the page goes.", show_default="runs/comparison.html")] = None,
) -> None:
    """Compare evaluations of the same clips: accuracies, McNemar's test against the first, classes that differ."""
    from actcli.engine.comparison import class_differences, contestants, draw_curves, paired_test
    from actcli.engine.comparison_page import write_comparison
    from actcli.engine.results import class_names

    runs = Workspace(workspace).runs
    found = contestants(runs, parts)
    numbers = table("evaluation", "#clips", "#top-1", "#top-5", "#mean class", "#GFLOPs")
    for part in found:
        shown = map(percent, (part.accuracies["top1"], part.accuracies["top5"], part.accuracies["mean_class_accuracy"]))
        cost = "-" if part.gflops is None else f"{part.gflops:.1f}"
        numbers.add_row(cell(part.name), str(len(part.scores.keys)), *shown, cost)
    console.print(numbers)
    for part in found:
        console.print(f"{part.name}: {part.protocol}", markup=False)
    if len({part.protocol for part in found}) > 1:
        print_note("the tests differ, so this compares models and tests together")
    first, *others = found
    for other in others:
        test = paired_test(first, other)
        console.print(
            f"\n{other.name} against {first.name}: {100 * test.difference:+.2f} % "
            f"(95 % interval {100 * test.low:+.2f} … {100 * test.high:+.2f}); {test.only_second} clips only the former "
            f"recognised, {test.only_first} only the latter. {test.verdict()}",
            markup=False,
        )
        names = class_names(first.folder)
        classes = table("class", "#clips", "#the former, %", "#the latter, %")  # their names can be as long as a line
        for row in class_differences(first, other)[:NUM_CLASSES_SHOWN]:
            name = names.get(row.label, str(row.label))
            classes.add_row(cell(name), str(row.count), f"{100 * row.second:.1f}", f"{100 * row.first:.1f}")
        console.print(classes)
    target = picture or runs / "comparison.png"
    if draw_curves(found, target):
        console.print(f"learning curves: {target}", markup=False)
    write_comparison(page or runs / "comparison.html", found, typed_command(ctx))
    console.print(f"page: {page or runs / 'comparison.html'}", markup=False)
