"""``actcli recipes``: the published trainings."""

from typing import Annotated

import typer

from actcli.cli._completion import complete_recipes
from actcli.cli._console import console, table


def recipes_command(
    name: Annotated[
        str | None, typer.Argument(help="Show one recipe in full, as YAML.", autocompletion=complete_recipes)
    ] = None,
) -> None:
    """List the recipes; each holds every number of a published training. Name one to see them, and their source."""
    import yaml

    from actcli.engine.recipes import list_recipes, load_recipe

    if name is not None:
        console.print(yaml.safe_dump(load_recipe(name).to_dict(), sort_keys=False), markup=False)
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
