"""``actcli models``: what can be trained."""

from typing import Annotated

import typer

from actcli.cli._completion import complete_models
from actcli.cli._console import console, table


def models_command(
    name: Annotated[
        str | None, typer.Argument(help="Show one model, with its options.", autocompletion=complete_models)
    ] = None,
) -> None:
    """List the models: backbones, parameters, GFLOPs per clip (multiply-accumulates), published accuracy."""
    from actcli.errors import ActcliError
    from actcli.models import list_models
    from actcli.models.costs import list_costs

    infos = [info for info in list_models() if name in (None, info.name)]
    if not infos:
        known = ", ".join(info.name for info in list_models())
        raise ActcliError(f"there is no model {name!r}; there are: {known}.")
    listing = table("model", "backbone", "#frames", "#M params", "#GFLOPs", "#without attention")
    before = ""
    for cost in list_costs():
        if name in (None, cost.model):
            listing.add_row(
                "" if cost.model == before else cost.model,
                cost.backbone,
                str(cost.num_frames),
                f"{cost.parameters / 1e6:.1f}",
                f"{cost.macs / 1e9:.1f}",
                f"{cost.macs_without_attention / 1e9:.1f}",
            )
            before = cost.model
    console.print(listing)
    for info in infos:
        console.print(f"{info.name}: {info.summary}", markup=False)
        for result in info.published:
            console.print(
                f"  published {result.top1:g} % on {result.dataset}: {result.setting} ({result.source})", markup=False
            )
        if name is not None:
            for option, default in info.options.items():
                console.print(f"  --set {option}={default}", markup=False)
