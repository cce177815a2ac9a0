"""MAS-Net: accumulated motion, selected against appearance, interlaced over time in every bottleneck.

Repository: https://github.com/Henry7Lee/MAS-Net-for-action-recognition; equations in
:mod:`actcli.models.temporal.motion`. The three modules follow the first convolution of each bottleneck. All 2-D
convolutions of the ResNet have a bias.

Departure from the original code: the logits of a clip do not depend on how many clips are in the batch. The original
skips a norm and a ReLU for a batch of exactly one clip; ``batch_of_one=True`` reproduces that, for any batch.
"""

import re

import torch
from torch import Tensor, nn

from actcli.models.backbones import build_backbone
from actcli.models.backbones.resnet import FrameBottleneck
from actcli.models.base import SegmentModel
from actcli.models.registry import Published, register, upstream
from actcli.models.temporal.motion import MotionAccumulationSelection
from actcli.models.upstream import convert_segment_model


def add_conv_biases(network: nn.Module) -> None:
    """Give every 2-D convolution without a bias one of zeros."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            module.bias = nn.Parameter(torch.zeros(module.out_channels))


class MASNet(SegmentModel):
    """TSN's frame; the original's faster classifier cannot be switched on."""

    policy_switches = ("partial_bn",)


@upstream("masnet")
def convert_masnet(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the MAS-Net repository → ours."""
    converted = convert_segment_model(state_dict, _backbone_name)
    return {key: value.squeeze(2) if value.ndim == 5 else value for key, value in converted.items()}


_PARTS = {
    "MAM.conv1": "accumulate.reduce",
    "MAM.bn1": "accumulate.bn",
    "MAM.conv3": "accumulate.expand",
    "MSM.conv_fc1": "select.squeeze",
    "MSM.bn_fc1": "select.bn",
    "MSM.conv_fc2": "select.select",
    "TIM.conv": "interlace",
}


def _backbone_name(key: str) -> str:
    return re.sub(r"(M[AS]M|TIM)\.\w+", lambda part: f"before_conv2.{_PARTS[part[0]]}", key)


_REPOSITORY = "MAS-Net repository, read-me"
_PUBLISHED = [
    Published("sthv1", "ResNet-50, 8 frames", 49.2, _REPOSITORY),
    Published("sthv1", "ResNet-50, 16 frames", 51.9, _REPOSITORY),
    Published("sthv2", "ResNet-50, 8 frames", 61.5, _REPOSITORY),
    Published("sthv2", "ResNet-50, 16 frames", 63.0, _REPOSITORY),
    Published("sthv2", "ResNet-50, 16 frames, 2 clips x 3 crops", 65.1, _REPOSITORY),
    Published("kinetics400", "ResNet-50, 16 frames, 10 clips x 3 crops", 75.7, _REPOSITORY),
]


@register(backbones=("resnet50", "resnet101"), source="masnet", published=_PUBLISHED)
def masnet(
    *,
    num_classes: int,
    num_frames: int = 8,
    backbone: str = "resnet50",
    modality: str = "rgb",
    dropout: float = 0.5,
    batch_of_one: bool = False,
) -> MASNet:
    """Motion Accumulation and Selection Network: accumulated motion weighed against appearance."""
    network, input_spec = build_backbone(backbone, modality)
    add_conv_biases(network)
    for block in network.modules():
        if isinstance(block, FrameBottleneck):
            block.before_conv2 = MotionAccumulationSelection(block.conv1.out_channels, num_frames, batch_of_one)
    return MASNet(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)
