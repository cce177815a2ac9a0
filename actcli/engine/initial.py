"""The model that a training starts from."""

from collections.abc import Callable, Sequence

import torch

from actcli.engine.runs import RunConfig
from actcli.errors import ActcliError
from actcli.models import VideoModel, create_from_config, load_weights
from actcli.words import counted

_NUM_NAMED = 3
"""Class names that an error lists."""


def build_model(config: RunConfig, classes: Sequence[str], note: Callable[[str], None]) -> VideoModel:
    """The recipe's model with its starting weights.

    Raises:
        ActcliError: The starting weights are of other classes or another network.
    """
    recipe = config.recipe
    torch.manual_seed(recipe.seed)
    if config.init is None:
        return create_from_config(recipe.model_config(len(classes)), recipe.pretrained)
    source, metadata = load_weights(config.init)
    found = source.num_classes
    if not config.new_head:
        _check_same_classes(config, metadata.get("classes"), found, classes)
    model = create_from_config(recipe.model_config(found))
    missing = set(model.state_dict()) ^ set(source.state_dict())
    if missing:
        raise ActcliError(
            f"checkpoint {config.init} holds a {source.config['name']}, which does not fit the recipe's "
            f"{recipe.model}: {len(missing)} tensors differ, such as {sorted(missing)[0]}."
        )
    model.load_state_dict(source.state_dict())
    if config.new_head:
        model.reset_classifier(len(classes))
    other = [
        f"{name} {source.config[name]!r} there, {value!r} here"
        for name, value in model.config.items()
        if name != "num_classes" and source.config.get(name, value) != value
    ]
    if other:
        note(f"the weights in {config.init} were trained with other options: {', '.join(other)}")
    note(f"starting from {config.init}" + (", with a new classifier" if config.new_head else ""))
    return model


def _check_same_classes(config: RunConfig, own: Sequence[str] | None, found: int, classes: Sequence[str]) -> None:
    """Refuse a classifier whose classes are not, in this order, those of the dataset."""
    remedy = "Start a new classifier with new_head (--new-head), or use a dataset with the same class list."
    if found != len(classes):
        raise ActcliError(
            f"checkpoint {config.init} has {counted(found, 'class')}, dataset {config.dataset} has {len(classes)}. "
            f"{remedy}"
        )
    if own is None:
        return  # imported without names: the number is all there is to compare
    other = [(a, b) for a, b in zip(own, classes, strict=True) if a != b]
    if other:
        named = ", ".join(f"{a!r} where the dataset has {b!r}" for a, b in other[:_NUM_NAMED])
        raise ActcliError(
            f"{len(other)} of the {found} classes of checkpoint {config.init} are not those of dataset "
            f"{config.dataset}: {named}. {remedy}"
        )
