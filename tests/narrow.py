"""The smallest networks under narrow names: an eighth of the channels, so that a training is over in a moment.

What the tests of trainings and commands hold does not depend on the width: blocks, layers and names are those of the
whole network. ``tests/models`` looks at whole networks.
"""

from copy import deepcopy
from functools import cache

import torch
from torch import nn

from actcli.models import backbones, vit
from actcli.models.backbones.resnet import resnet18

FACTOR = 8


@cache
def _plan() -> nn.Module:
    with torch.device("meta"):
        return resnet18()


def narrow_resnet18() -> nn.Module:
    """ResNet-18 with 0.2 in place of 11 million weights."""
    network = deepcopy(_plan())
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d):
            num_inputs = module.in_channels if name == "conv1" else module.in_channels // FACTOR
            shape = (module.kernel_size, module.stride, module.padding)
            network.set_submodule(name, nn.Conv2d(num_inputs, module.out_channels // FACTOR, *shape, bias=False))
        elif isinstance(module, nn.BatchNorm2d):
            network.set_submodule(name, nn.BatchNorm2d(module.num_features // FACTOR))
    network.num_features //= FACTOR
    return network


def use_narrow_networks(patch) -> None:
    """Let ``resnet18`` and ``vit_ti16`` be narrow until the ``pytest.MonkeyPatch`` is undone."""
    patch.setitem(backbones._BUILDERS, "resnet18", narrow_resnet18)
    patch.setitem(vit._SIZES, "vit_ti16", vit._SIZES["vit_ti16"]._replace(width=48))
