"""Options that several commands share."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from actcli.cli._completion import complete_datasets, complete_models, complete_runs
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from actcli.shards import Subset

DATA, MODEL, SCHEDULE, HARDWARE, RUN, TEST = (
    "Data",
    "Model",
    "Schedule and optimiser",
    "Hardware",
    "Run",
    "Test",
)
"""Groups of options in ``--help``."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
Device = Literal["auto", "cpu", "cuda"]
LoaderName = Literal["auto", "cpu", "dali"]

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", envvar="ACTCLI_WORKSPACE", help="Folder with raw/, frames/, shards/ and runs/.", show_default="."
    ),
]
DatasetOption = Annotated[
    str | None,
    typer.Option(
        help="Name of the dataset; see: actcli datasets", autocompletion=complete_datasets, rich_help_panel=DATA
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=0, help="Worker processes.", show_default="number of cores, 8 at most", rich_help_panel=HARDWARE),
]
ShardsOption = Annotated[
    str | None,
    typer.Option(help="Folder or URL of the dataset's shards.", show_default="shards/<dataset>", rich_help_panel=DATA),
]
DeviceOption = Annotated[Device, typer.Option(help="Where the model runs.", rich_help_panel=HARDWARE)]
LoaderOption = Annotated[
    LoaderName, typer.Option(help="What decodes; auto: dali on a GPU, otherwise cpu.", rich_help_panel=HARDWARE)
]
CacheDirOption = Annotated[
    Path | None,
    typer.Option(help="Keep what is read of shards behind a URL in this folder.", rich_help_panel=HARDWARE),
]
CacheBytesOption = Annotated[
    int,
    typer.Option(
        min=1, help="Size of --cache-dir; what was not used for longest goes first.", rich_help_panel=HARDWARE
    ),
]
ShardsOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--shards-dir",
        help="Folder or URL of the dataset's shards; several folders are joined, their classes by name.",
        show_default="shards/<dataset>",
        rich_help_panel=DATA,
    ),
]
ClassesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--classes",
        help="Only this class (give it again for more), or a file with a class a line.",
        metavar="NAME|FILE",
        show_default="all",
        rich_help_panel=DATA,
    ),
]
FractionOption = Annotated[
    float,
    typer.Option(help="Share of the clips of each class; in training, of the training split.", rich_help_panel=DATA),
]
MaxClipsOption = Annotated[
    int | None,
    typer.Option(min=1, help="At most so many clips of each class.", show_default="all", rich_help_panel=DATA),
]
ExcludeOption = Annotated[
    Path | None,
    typer.Option(
        "--exclude-keys", help="File with a key or clip name a line; these are left out.", rich_help_panel=DATA
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(help="Model; see: actcli models", autocompletion=complete_models, rich_help_panel=MODEL),
]
BackboneOption = Annotated[
    str | None, typer.Option(help="Backbone of the model.", show_default="the recipe's", rich_help_panel=MODEL)
]
SplitIdOption = Annotated[str, typer.Option(help="Split set, for UCF101 and HMDB51: 1, 2 or 3.", rich_help_panel=DATA)]

RunOption = Annotated[
    str | None,
    typer.Option(
        help="Name or folder of a run.", show_default="the newest", autocompletion=complete_runs, rich_help_panel=RUN
    ),
]
CheckpointOption = Annotated[
    Literal["best", "last"], typer.Option(help="Which weights of the run.", rich_help_panel=RUN)
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Weights of no run, such as imported ones.", rich_help_panel=RUN)
]

HERE = Path()
TYPED = "actcli.typed"
"""Where click's context keeps the words of the command line."""


def make_subset(classes: list[str] | None, fraction: float, most: int | None, exclude: Path | None) -> "Subset":
    """What the four options leave of a dataset."""
    from actcli.shards import Subset, read_keys

    return Subset(named_classes(classes), fraction, most, read_keys(exclude) if exclude else ())


def named_classes(words: list[str] | None) -> tuple[str, ...]:
    """The classes that ``--classes`` names, itself or in files."""
    if not words:
        return ()
    from actcli.shards import read_keys

    names = [name for word in words for name in (read_keys(Path(word)) if Path(word).is_file() else (word,))]
    return tuple(dict.fromkeys(names))


def typed_command(ctx: typer.Context) -> str:
    """The command as it was typed, quoted for a shell."""
    return shlex.join(["actcli", *ctx.meta.get(TYPED, ())])


def given(ctx: typer.Context) -> set[str]:
    """Names of the parameters that were typed."""
    return {name for name in ctx.params if str(ctx.get_parameter_source(name)).endswith("COMMANDLINE")}


def refuse_beside(ctx: typer.Context, flag: str, *names: str) -> None:
    """Refuse flags that ``flag`` makes superfluous, and that would not be used."""
    others = sorted(given(ctx) & set(names))
    if others:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in others)
        raise typer.BadParameter(f"{flag} says already which one is meant; leave out {listed}.")


def check_choice(flag: str, value: str, *allowed: str) -> None:
    """Refuse a word that ``flag`` does not take."""
    if value not in allowed:
        raise ActcliError(f"{flag} {value} is unknown; allowed are: {', '.join(allowed)}.")


def num_workers(workers: int | None) -> int:
    """The workers asked for, else one a core, 8 at most."""
    import os

    return workers if workers is not None else min(8, os.cpu_count() or 1)
