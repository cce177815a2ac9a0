"""``actcli models``: what can be trained."""

from typing import Annotated

import typer

from actcli.cli._console import console, status, table

NUM_CLASSES = 174
"""Classes that the costs are counted with (Something-Something)."""


def models_command(
    name: Annotated[str | None, typer.Argument(help="Show one model, with its options.")] = None,
) -> None:
    """List the models: backbones, parameters, GFLOPs per clip (multiply-accumulates), published accuracy."""
    from actcli.errors import ActcliError
    from actcli.models import list_models, profile_model

    infos = [info for info in list_models() if name in (None, info.name)]
    if not infos:
        known = ", ".join(info.name for info in list_models())
        raise ActcliError(f"there is no model {name!r}; there are: {known}.")
    listing = table("model", "backbone", "#frames", "#M params", "#GFLOPs", "#without attention")
    with status("counting"):
        for info in infos:
            for backbone in info.backbones:
                options = {**info.options, "backbone": backbone}
                profile = profile_model(info.name, num_classes=NUM_CLASSES, **options)
                listing.add_row(
                    info.name if backbone == info.backbones[0] else "",
                    backbone,
                    str(info.options["num_frames"]),
                    f"{profile.parameters / 1e6:.1f}",
                    f"{profile.macs / 1e9:.1f}",
                    f"{profile.macs_without_attention / 1e9:.1f}",
                )
    console.print(listing)
    for info in infos:
        console.print(f"{info.name}: {info.summary}", markup=False)
        for result in info.published:
            console.print(
                f"  published {result.top1:g} % on {result.dataset}: {result.setting} ({result.source})", markup=False
            )
        if name is not None:
            for option, default in info.options.items():
                console.print(f"  --set model_options.{option}={default}", markup=False)
