"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from actcli.errors import ActcliError

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", envvar="ACTCLI_WORKSPACE", help="Folder with raw/, frames/, shards/ and runs/.", show_default="."
    ),
]
DatasetOption = Annotated[str | None, typer.Option(help="Name of the dataset; see: actcli datasets")]
WorkersOption = Annotated[int | None, typer.Option(min=0, help="Worker processes.", show_default="number of cores")]
ShardsOption = Annotated[
    str | None, typer.Option(help="Folder or URL of the dataset's shards.", show_default="shards/<dataset>")
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or auto.")]
LoaderOption = Annotated[str, typer.Option(help="cpu, dali, or auto: dali on a GPU, otherwise cpu.")]
SplitIdOption = Annotated[str, typer.Option(help="Split set, for UCF101 and HMDB51: 1, 2 or 3.")]

HERE = Path()


def check_choice(flag: str, value: str, *allowed: str) -> None:
    """Refuse a word that ``flag`` does not take."""
    if value not in allowed:
        raise ActcliError(f"{flag} {value} is unknown; allowed are: {', '.join(allowed)}.")
