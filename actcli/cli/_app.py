"""The ``actcli`` command: its group, its errors, and the list of commands."""

import errno
import os
import signal
import sys
from contextlib import suppress
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from actcli import __version__
from actcli.cli._console import print_error
from actcli.cli._help import ActcliCommand
from actcli.cli._options import TYPED
from actcli.engine.signals import Interrupted
from actcli.errors import ActcliError

COMMANDS = (
    "demo",
    "extract",
    "shard",
    "train",
    "eval",
    "predict",
    "cam",
    "runs",
    "datasets",
    "models",
    "recipes",
    "inspect",
    "verify",
    "compare",
    "ensemble",
    "push",
    "pull",
    "import",
    "export",
    "export-list",
    "bench",
    "doctor",
)
"""Each command is the module ``actcli.cli.<name>_command``, which has a function of that name (``-`` is ``_``)."""


_NO_ROOM = "failed to map segment"
"""What the system says of a library that does not fit into the memory that is left."""


class ActcliGroup(TyperGroup):
    """Turns errors meant for users into one sentence and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except ActcliError as error:
            if ctx.params.get("debug"):
                raise
            print_error(str(error))
            raise typer.Exit(1) from error
        except ModuleNotFoundError as error:
            if ctx.params.get("debug") or error.name is None or error.name.startswith("actcli"):
                raise
            print_error(f"this command needs the package {error.name}, which is not installed. See: actcli doctor")
            raise typer.Exit(1) from error
        except (MemoryError, ImportError) as error:
            if ctx.params.get("debug") or (isinstance(error, ImportError) and _NO_ROOM not in str(error)):
                raise
            print_error(f"there is not enough memory for this command ({error or 'an allocation failed'}).")
            raise typer.Exit(1) from error
        except KeyboardInterrupt as stopped:
            print_error(str(stopped) or f"stopped. {_after_stopping(ctx.invoked_subcommand)}")
            raise typer.Exit(128 + getattr(stopped, "signal_number", signal.SIGINT)) from None

    def main(self, *args: Any, **settings: Any) -> Any:
        """Run the program; what it says is written when it ends, or it did not do what was asked."""
        try:
            try:
                return super().main(*args, **settings)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if "--debug" in sys.argv:
                raise
            sys.exit(_after_os_error(error))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep what was typed, for results that say how they were made."""
        ctx.meta[TYPED] = list(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Commands in the order in which they are used."""
        return list(COMMANDS)


def _after_os_error(error: OSError) -> int:
    """Say what the system refused, where that is not a reader that has read enough; the exit code."""
    if error.errno != errno.EPIPE:
        what = error.filename or "what this command writes"
        print_error(f"{what} cannot be written or read ({error.strerror or error}). Make room or choose another place.")
    with suppress(OSError, ValueError):  # what is left in the buffer has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _after_stopping(command: str | None) -> str:
    """What is left of the work, as far as it is certain."""
    if command in ("extract", "shard"):
        return "What is done is kept; the same command continues."
    if command == "train":
        return "What its last checkpoint holds is kept, if it wrote one; see: actcli runs"
    return "Nothing was kept of the unfinished work."


app = typer.Typer(
    cls=ActcliGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a downloaded action-recognition dataset to a trained and evaluated temporal model.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"actcli {__version__}")
        raise typer.Exit


@app.callback()
def actcli(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """From a downloaded action-recognition dataset to a trained and evaluated temporal model."""


for name in COMMANDS:
    function = f"{name.replace('-', '_')}_command"
    module = import_module(f"actcli.cli.{function}")
    if hasattr(module, "group"):
        app.add_typer(module.group, name=name)
    else:
        app.command(name, cls=ActcliCommand)(getattr(module, function))


def _end(number: int, frame: object) -> None:
    """SIGTERM ends the work as Ctrl-C does: without what it put into the folder for temporary files."""
    del frame
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    stopped = Interrupted()
    stopped.signal_number = number
    raise stopped


def main() -> None:
    """Run the program, and end the process with its exit code."""
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)
    sys.exit(app(prog_name="actcli"))
