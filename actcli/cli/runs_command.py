"""``actcli runs``: what was trained, and how far."""

import time

import typer

from actcli.cli._console import cell, console, duration, percent, table
from actcli.cli._options import HERE, WorkspaceOption
from actcli.cli._workspace import Workspace


def runs_command(workspace: WorkspaceOption = HERE) -> None:
    """List the runs of the workspace: state, epochs, best score, age."""
    from actcli.engine.runs import LAST_WEIGHTS
    from actcli.engine.training import list_states
    from actcli.errors import ActcliError

    runs = Workspace(workspace).runs
    states = list_states(runs)
    if not states:
        console.print(f"there is no run in {runs}. Train one: actcli train --model tsm", markup=False)
        raise typer.Exit
    listing = table("run", "state", "#epochs", "#best top-1", "#age")
    for state in states:
        if isinstance(state, ActcliError):
            listing.add_row("(unreadable)", cell(str(state)))
            continue
        touched = max(
            path.stat().st_mtime
            for path in (state.run_dir / LAST_WEIGHTS, state.run_dir / "config.yaml")
            if path.exists()
        )
        listing.add_row(
            cell(state.run_dir.name),
            "finished" if state.finished else "unfinished",
            f"{len(state.epochs)}/{state.config.recipe.epochs}",
            percent(state.best_top1),
            _age(time.time() - touched),
        )
    console.print(listing)


def _age(seconds: float) -> str:
    """How long ago; clocks of several machines may disagree."""
    return duration(seconds) if seconds >= 0 else "in the future"
