"""How ``--help`` reads on a narrow terminal: choices are broken between words, and paragraphs where the line ends."""

import re
from textwrap import fill
from typing import Any

from typer.core import TyperCommand, TyperOption

TYPE_COLUMNS = 22
"""Columns that the values of an option take, so that its help keeps more than half of 80."""


class ActcliCommand(TyperCommand):
    """A command whose help cuts no word at 80 columns."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        for parameter in self.params:
            if isinstance(parameter, TyperOption) and parameter.metavar is None:
                parameter.metavar = values(parameter.display_type(ctx))
        self.help = paragraphs(self.help or "")
        super().format_help(ctx, formatter)


def values(shown: str) -> str:
    """``<a|b>`` in lines that break between choices; ``<list[Path]>`` and ``<int range>`` in short."""
    short = re.sub(r"^<list\[(.*)\]>$", r"<\1>", shown).replace(" range>", ">").replace("<Path>", "<path>")
    return fill(short.replace("|", " | "), TYPE_COLUMNS, break_long_words=False, break_on_hyphens=False)


def paragraphs(text: str) -> str:
    """The text without the line breaks inside its paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
