"""``actcli recipes``: the published trainings."""

from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from actcli.cli._completion import complete_recipes
from actcli.cli._console import console, table
from actcli.cli._help import ActcliCommand
from actcli.errors import ActcliError


class RecipesGroup(TyperGroup):
    """Answers the name of a recipe, which is no command, with the command that shows it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command."""
        from actcli.engine.recipes import load_recipe

        if args[0] not in self.commands and not args[0].startswith("-"):
            name = load_recipe(args[0]).name
            raise ActcliError(f"{name} is a recipe; all its numbers are shown by: actcli recipes show {quote(args[0])}")
        return super().resolve_command(ctx, args)


group = typer.Typer(
    cls=RecipesGroup, invoke_without_command=True, help="List the recipes, show one, or copy one to edit."
)

NameArgument = Annotated[str, typer.Argument(help="Name of a recipe.", autocompletion=complete_recipes)]


@group.callback()
def recipes(ctx: typer.Context) -> None:
    """List the recipes; each holds every number of a published training."""
    from actcli.engine.recipes import list_recipes

    if ctx.invoked_subcommand is not None:
        return
    listing = table("recipe", "default for", "#epochs", "#batch", "#rate", "#views")
    for recipe in list_recipes():
        listing.add_row(
            recipe.name,
            " ".join(recipe.datasets),
            str(recipe.epochs),
            f"{recipe.batch_size}" + (f" x {recipe.accumulate}" if recipe.accumulate > 1 else ""),
            f"{recipe.learning_rate:g}",
            f"{recipe.test.clips}x{recipe.test.crops}",
        )
    console.print(listing)
    console.print("all numbers of one: actcli recipes show NAME. To edit: actcli recipes copy NAME FILE.yaml")


@group.command("show", cls=ActcliCommand)
def show_command(name: NameArgument) -> None:
    """Show every number of a recipe, as YAML, and its source."""
    from actcli.engine.recipes import load_recipe, recipe_text

    console.print(recipe_text(load_recipe(name)), markup=False, end="", soft_wrap=True)  # as YAML it is one line


@group.command("copy", cls=ActcliCommand)
def copy_command(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="New file; its name ends with .yaml")],
) -> None:
    """Copy a recipe to a file, to be edited and used with: actcli train --recipe FILE."""
    from actcli.engine.recipes import copy_recipe

    copy_recipe(name, file)
    console.print(f"{file} holds every number of {name}. next: actcli train --recipe {quote(str(file))}", markup=False)
