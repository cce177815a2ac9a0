"""2-D networks that see one frame at a time, with named places for temporal modules.

A backbone maps ``[N, C, H, W]`` to ``[N, num_features]``. Temporal models fill its places; an empty place is an
identity without parameters, so the names of the weights are those of the plain network.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models.backbones.resnet import resnet18, resnet34, resnet50, resnet101
from actcli.models.base import InputSpec

FLOW_STACK = 5
"""Consecutive x, y fields per segment of a flow model."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
FRAME_BACKBONES = RESNETS
"""Backbones of TSN and TSM."""


@dataclass(frozen=True)
class _Backbone:
    build: Callable[[], nn.Module]
    rgb: InputSpec
    flow: InputSpec


def _imagenet_specs() -> tuple[InputSpec, InputSpec]:
    std = (0.229, 0.224, 0.225)
    channels = 2 * FLOW_STACK
    return (
        InputSpec("rgb", (0.485, 0.456, 0.406), std),
        InputSpec("flow", (0.5,) * channels, (sum(std) / 3,) * channels, flow_stack=FLOW_STACK),
    )


_BACKBONES = {
    name: _Backbone(build, *_imagenet_specs())
    for name, build in [
        ("resnet18", resnet18),
        ("resnet34", resnet34),
        ("resnet50", resnet50),
        ("resnet101", resnet101),
    ]
}


def build_backbone(name: str, modality: str) -> tuple[nn.Module, InputSpec]:
    """A freshly initialised backbone for ``"rgb"`` or ``"flow"``, and the input it was published with."""
    if modality not in ("rgb", "flow"):
        raise ActcliError(f"modality is {modality!r}; it has to be 'rgb' or 'flow'.")
    backbone = _BACKBONES[name]
    network = backbone.build()
    if modality == "flow":
        widen_first_conv(network, 2 * FLOW_STACK)
        return network, backbone.flow
    return network, backbone.rgb


def widen_first_conv(network: nn.Module, in_channels: int) -> None:
    """Give the first convolution ``in_channels`` inputs, each a copy of the mean of its old kernel."""
    conv = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    conv.weight = nn.Parameter(inflate(conv.weight.detach(), in_channels))
    conv.in_channels = in_channels


def inflate(weight_OIHW: Tensor, in_channels: int) -> Tensor:
    """Repeat the mean over the input channels ``in_channels`` times."""
    return weight_OIHW.mean(1, keepdim=True).repeat(1, in_channels, 1, 1).to(memory_format=torch.contiguous_format)
