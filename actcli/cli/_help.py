"""How ``--help`` reads on a narrow terminal, and what is said of a word that an option does not take."""

import re
from difflib import get_close_matches
from textwrap import fill
from typing import Any

import typer
from typer.core import TyperCommand, TyperOption

TYPE_COLUMNS = 22
"""Columns that the values of an option take, so that its help keeps more than half of 80."""


class ActcliCommand(TyperCommand):
    """A command whose help cuts no word at 80 columns, and which names the word that was meant."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the words of the command line."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            error.message = with_hint(error.message)
            raise

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


def with_hint(message: str) -> str:
    """What typer says of a word that is none of an option's choices, as our other errors say it."""
    found = re.fullmatch(r"(?:Value error, )?'(.*)' is not one of ('.*')\.", message)
    if not found:
        return message
    word, choices = found[1], re.findall(r"'([^']*)'", found[2])
    begun = [choice for choice in choices if word and choice.startswith(word.lower())]
    meant = (begun or get_close_matches(word.lower(), choices, 1, cutoff=0.75))[:1]
    hint = f"; did you mean {meant[0]}?" if meant else "."
    return f"{word!r} is unknown. Allowed are: {', '.join(choices)}{hint}"


def paragraphs(text: str) -> str:
    """The text without the line breaks inside its paragraphs."""
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
