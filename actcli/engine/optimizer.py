"""What a recipe says about the optimiser and about mixing clips, as objects."""

from typing import Any

import torch

from actcli.engine.recipes import Recipe
from actcli.errors import ActcliError
from actcli.loaders import MixUp
from actcli.models import VideoModel


def build_optimizer(model: VideoModel, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD with the recipe's numbers and the model's multipliers.

    Raises:
        ActcliError: The recipe asks for a multiplier and switches multipliers off.
    """
    groups = _parameter_groups(model, recipe)
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum)


def _parameter_groups(model: VideoModel, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameter groups, each with its multiplier."""
    if recipe.multipliers:
        switches = {"fc_lr5": recipe.fast_classifier, "partial_bn": recipe.partial_bn}
        wanted = {name: value for name, value in switches.items() if value}
        return model.parameter_groups(recipe.learning_rate, recipe.weight_decay, **wanted)
    if recipe.fast_classifier:
        raise ActcliError("fast_classifier is a multiplier, and multipliers are off in this recipe; set one of them.")
    trained = {rule.name for rule in model.parameter_policy(partial_bn=recipe.partial_bn)}
    parameters = [parameter for name, parameter in model.named_parameters() if name in trained]
    return [{"params": parameters, "weight_decay": recipe.weight_decay, "lr_mult": 1.0}]


def build_mixup(recipe: Recipe, num_classes: int) -> MixUp | None:
    """Mixup and cutmix, or None where both are off."""
    if not recipe.mixup and not recipe.cutmix:
        return None
    return MixUp(num_classes, recipe.mixup, recipe.cutmix, seed=recipe.seed)
