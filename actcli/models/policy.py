"""Parameter groups: which parameter learns how fast, and which decays."""

from dataclasses import dataclass

from torch import nn

from actcli.errors import ActcliError

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True)
class ParameterRule:
    """How one parameter is trained."""

    name: str
    """Name in ``model.named_parameters()``."""
    lr_mult: float
    """Factor on the base learning rate."""
    decay_mult: float
    """Factor on the base weight decay."""
    group: str
    """Name of the group in the original code."""


def single_group(model: nn.Module) -> list[ParameterRule]:
    """Every trained parameter at the base learning rate and the base weight decay."""
    return [ParameterRule(name, 1, 1, "all") for name, p in model.named_parameters() if p.requires_grad]


def tsn_groups(
    model: nn.Module, *, fc_lr5: bool, fast_first_conv: bool, linear_group: str = "normal"
) -> list[ParameterRule]:
    """The groups of TSN and its descendants.

    Biases learn twice as fast and do not decay; nor do batch norms. The first convolution has a group of its own, which
    ``fast_first_conv`` (flow input) speeds up 5 times. Frozen parameters get no rule.
    """
    rules: list[ParameterRule] = []
    seen_convolution = False
    for prefix, module in model.named_modules():
        if isinstance(module, _CONVOLUTIONS):
            speed = 1 if seen_convolution or not fast_first_conv else 5
            rules += _weight_and_bias(prefix, module, "normal" if seen_convolution else "first_conv", speed)
            seen_convolution = True
        elif isinstance(module, nn.Linear):
            rules += _fast_linear(prefix, module) if fc_lr5 else _weight_and_bias(prefix, module, linear_group, 1)
        elif isinstance(module, _NORMS):
            rules += [
                ParameterRule(f"{prefix}.{name}", 1, 0, "BN scale/shift")
                for name, p in module.named_parameters()
                if p.requires_grad
            ]
        elif own := [name for name, _ in module.named_parameters(recurse=False)]:
            raise ActcliError(
                f"no parameter group for {prefix}.{own[0]} of {type(module).__name__}: "
                "give this module a rule in actcli.models.policy."
            )
    return rules


def _weight_and_bias(prefix: str, module: nn.Module, group: str, speed: int) -> list[ParameterRule]:
    rules = [ParameterRule(f"{prefix}.weight", speed, 1, f"{group}_weight")]
    if module.bias is not None:
        rules.append(ParameterRule(f"{prefix}.bias", 2 * speed, 0, f"{group}_bias"))
    return rules


def _fast_linear(prefix: str, module: nn.Linear) -> list[ParameterRule]:
    return [
        ParameterRule(f"{prefix}.weight", 5, 1, "lr5_weight"),
        ParameterRule(f"{prefix}.bias", 10, 0, "lr10_bias"),
    ]
