"""2-D networks that see one frame at a time, with named places for temporal modules.

A backbone maps ``[N, C, H, W]`` to ``[N, num_features]``. Temporal models fill its places; an empty place is an
identity without parameters, so the names of the weights are those of the plain network.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models.backbones.bninception import BNInception
from actcli.models.backbones.inceptionv3 import InceptionV3
from actcli.models.backbones.mobilenet import mobilenetv2
from actcli.models.backbones.resnet import resnet18, resnet34, resnet50, resnet101
from actcli.models.base import InputSpec

FLOW_STACK = 5
"""Consecutive x, y fields per segment of a flow model."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
INCEPTIONS = ("bninception", "inceptionv3")
FRAME_BACKBONES = (*RESNETS, *INCEPTIONS, "mobilenetv2")
"""Backbones of TSN and TSM."""

_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "resnet101": resnet101,
    "bninception": BNInception,
    "inceptionv3": InceptionV3,
    "mobilenetv2": mobilenetv2,
}


def build_backbone(name: str, modality: str, bn_momentum: float = 0.1) -> tuple[nn.Module, InputSpec]:
    """A freshly initialised backbone for ``"rgb"`` or ``"flow"``, and the input it was published with."""
    if modality not in ("rgb", "flow"):
        raise ActcliError(f"modality is {modality!r}; it has to be 'rgb' or 'flow'.")
    network = _BUILDERS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = bn_momentum
    if modality == "flow":
        widen_first_conv(network, 2 * FLOW_STACK)
    return network, _input_spec(name, modality)


def _input_spec(name: str, modality: str) -> InputSpec:
    rgb = _CAFFE if name in INCEPTIONS else _TORCHVISION
    if name == "inceptionv3":
        rgb = replace(rgb, size=229, scale_size=261)
    if modality == "rgb":
        return rgb
    mean, std = (128.0, 1.0) if name in INCEPTIONS else (0.5, sum(rgb.std) / 3)
    channels = 2 * FLOW_STACK
    return replace(
        rgb, modality="flow", mean=(mean,) * channels, std=(std,) * channels, channel_order="rgb", flow_stack=FLOW_STACK
    )


_TORCHVISION = InputSpec("rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_CAFFE = InputSpec("rgb", mean=(104.0, 117.0, 128.0), std=(1.0,) * 3, channel_order="bgr", value_range=255.0)


def build_tsn_backbone(name: str, modality: str) -> tuple[nn.Module, InputSpec]:
    """:func:`build_backbone` with the batch-norm momentum of the TSM repository: 0.9 on BNInception, else 0.1."""
    return build_backbone(name, modality, bn_momentum=0.9 if name == "bninception" else 0.1)


def plain_names(name: str) -> set[str]:
    """Names of the tensors of a backbone without temporal modules."""
    with torch.device("meta"):
        return set(_BUILDERS[name]().state_dict())


def widen_first_conv(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution ``in_channels`` inputs, each a copy of the mean of its old kernel."""
    conv = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    conv.weight = nn.Parameter(inflate(conv.weight.detach(), in_channels))
    conv.in_channels = in_channels


def inflate(weight_OIHW: Tensor, in_channels: int) -> Tensor:
    """Repeat the mean over the input channels ``in_channels`` times."""
    return weight_OIHW.mean(1, keepdim=True).repeat(1, in_channels, 1, 1).to(memory_format=torch.contiguous_format)
