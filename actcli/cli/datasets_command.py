"""``actcli datasets``: what each dataset expects on disk."""

from textwrap import fill
from typing import Annotated

import typer

from actcli.cli._console import console, table


def datasets_command(
    name: Annotated[str | None, typer.Argument(help="Show one dataset in full.")] = None,
) -> None:
    """List the datasets: class and clip counts, and which official files go where."""
    from actcli.ingest import describe_dataset, list_datasets

    if name is not None:
        adapter = describe_dataset(name)
        name = "NAME" if adapter.is_own else adapter.name
        console.print(f"{adapter.title} (--dataset {name}), under raw/{name}:\n", markup=False)
        console.print("\n".join(map(_fitted, adapter.expects.splitlines())), markup=False)
        return
    listing = table("name", "dataset", "comes as", "mirror", "published counts")
    for adapter in list_datasets():
        counts = ", ".join(f"{key} {value}" for key, value in adapter.published_counts.items())
        listing.add_row(adapter.name, adapter.title, adapter.storage, adapter.flip, counts)
    console.print(listing)
    console.print("which files go where: actcli datasets NAME. Own data in raw/<name>: actcli datasets folder")


def _fitted(line: str) -> str:
    """A line that is cut between words where the terminal ends, and goes on below its first word, two further in."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return fill(line, console.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
