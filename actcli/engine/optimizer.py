"""What a recipe says about the optimiser and about mixing clips, as objects."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch.nn import Parameter
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from actcli.engine.recipes import Recipe
from actcli.errors import ActcliError
from actcli.loaders import MixUp
from actcli.models import ParameterRule, VideoModel


@dataclass(frozen=True)
class _Multipliers:
    """What parameters of one group have in common."""

    learning_rate: float
    """Factor on the rate of the schedule."""
    weight_decay: float
    """Factor on the recipe's weight decay."""


def build_optimizer(model: VideoModel, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser with its numbers and the model's multipliers.

    Raises:
        ActcliError: The recipe asks for a multiplier that the model lacks, or that it switches off.
    """
    parameters = dict(model.named_parameters())
    groups: dict[_Multipliers, list[Parameter]] = {}
    for rule in _rules(model, recipe):
        groups.setdefault(_Multipliers(rule.lr_mult, rule.decay_mult), []).append(parameters[rule.name])
    described = [
        {
            "params": members,
            "lr": recipe.base_rate * multipliers.learning_rate,
            "weight_decay": recipe.weight_decay * multipliers.weight_decay,
            "lr_mult": multipliers.learning_rate,
            "decay_mult": multipliers.weight_decay,
        }
        for multipliers, members in groups.items()
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(described, lr=recipe.base_rate, betas=recipe.betas)
    return torch.optim.SGD(described, lr=recipe.base_rate, momentum=recipe.momentum)


def _rules(model: VideoModel, recipe: Recipe) -> list[ParameterRule]:
    """The model's policy, after the switches of the recipe."""
    if recipe.fast_classifier and not recipe.multipliers:
        raise ActcliError("fast_classifier is a multiplier, and multipliers are off in this recipe; set one of them.")
    rules = model.parameter_policy(fc_lr5=recipe.fast_classifier, partial_bn=recipe.partial_bn)
    if not (recipe.multipliers and model.applies_multipliers):
        rules = [replace(rule, lr_mult=1.0, decay_mult=1.0) for rule in rules]
    if recipe.optimizer == "adamw":
        vectors = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1} | model.undecayed()
        rules = [replace(rule, decay_mult=0.0) if rule.name in vectors else rule for rule in rules]
    if recipe.layer_decay is not None:
        rules = _decayed_by_layer(model, rules, recipe.layer_decay)
    return rules


def _decayed_by_layer(model: VideoModel, rules: Iterable[ParameterRule], decay: float) -> list[ParameterRule]:
    """Each layer learns ``decay`` times as fast as the one above it; the classifier at the full rate.

    Source: BEiT, ``optim_factory.py`` ``get_num_layer_for_vit``; layers as timm numbers them.
    """
    layers = model.layer_numbers()
    top = max(layers.values())
    return [replace(rule, lr_mult=rule.lr_mult * decay ** (top - layers[rule.name])) for rule in rules]


def build_average(model: VideoModel, recipe: Recipe) -> AveragedModel | None:
    """The moving average of weights and statistics, or None where the recipe has none."""
    if recipe.ema is None:
        return None
    average = get_ema_multi_avg_fn(recipe.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def build_mixup(recipe: Recipe, num_classes: int) -> MixUp | None:
    """Mixup and cutmix, or None where both are off."""
    if not recipe.mixup and not recipe.cutmix:
        return None
    return MixUp(num_classes, recipe.mixup, recipe.cutmix, seed=recipe.seed)
