"""torchvision's MobileNet-v2.

Paper: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
https://arxiv.org/abs/1801.04381.
"""

import re

from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2


def mobilenetv2() -> MobileNetV2:
    """MobileNet-v2 of width 1."""
    network = MobileNetV2()
    network.num_features = network.last_channel
    network.classifier = nn.Identity()
    return network


def expanding_residuals(network: nn.Module) -> list[InvertedResidual]:
    """The blocks with both a shortcut and an expansion (10 of 17)."""
    blocks = (module for module in network.modules() if isinstance(module, InvertedResidual))
    return [block for block in blocks if block.use_res_connect and len(block.conv) == 4]


# Position in the flat layout of before torchvision → ours, for blocks without and with an expansion.
_WITHOUT_EXPANSION = {"0": "0.0", "1": "0.1", "3": "1", "4": "2"}
_WITH_EXPANSION = {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1", "6": "2", "7": "3"}


def our_name(flat_key: str) -> str:
    """Name of a parameter in the flat layout (``features.N.conv.M``) → torchvision's."""
    match = re.fullmatch(r"features\.(\d+)\.conv\.(\d)\.(\w+)", flat_key)
    if match is None:
        return flat_key
    positions = _WITHOUT_EXPANSION if match[1] == "1" else _WITH_EXPANSION
    return f"features.{match[1]}.conv.{positions[match[2]]}.{match[3]}"
