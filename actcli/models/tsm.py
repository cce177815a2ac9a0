"""TSM: TSN whose residual branches see part of their channels from the neighbouring frames.

Paper: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019,
https://arxiv.org/abs/1811.08383; equations in :mod:`actcli.models.temporal.shift`.
"""

import re

from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models.backbones import FRAME_BACKBONES, build_backbone
from actcli.models.backbones.resnet import FrameBasicBlock, FrameBottleneck, stages
from actcli.models.base import SegmentModel
from actcli.models.registry import Published, register, upstream
from actcli.models.temporal.shift import ShiftedConv2d, TemporalShift

SHIFT_PLACES = ("blockres", "block")


def add_shift(network: nn.Module, num_frames: int, shift_div: int, place: str) -> None:
    """Shift the input of every block of a ResNet, or of every residual branch (``"blockres"``).

    A network with a third stage of 23 blocks or more (ResNet-101) has ``"blockres"`` in every other block only.
    """
    every = 2 if place == "blockres" and len(stages(network)[2]) >= 23 else 1
    for stage in stages(network):
        for block in list(stage)[::every]:
            assert isinstance(block, FrameBasicBlock | FrameBottleneck)
            if place == "block":
                block.entry = TemporalShift(num_frames, shift_div)
            else:
                block.conv1 = ShiftedConv2d.from_conv(block.conv1, num_frames, shift_div)


@upstream("tsm")
def convert_tsm(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the TSM repository (TSN and TSM) → ours."""
    return {_our_name(key): value for key, value in state_dict.items()}


def _our_name(key: str) -> str:
    key = re.sub(r"\.net(?=\.)", "", key)
    key = re.sub(r"^(new_fc|base_model\.fc)\.", "classifier.", key)
    return key.replace("base_model.", "backbone.", 1)


_PUBLISHED = [
    Published("kinetics400", "ResNet-50, 8 frames, 10 clips x 3 crops", 74.1, "TSM repository, model zoo"),
]


@register(backbones=FRAME_BACKBONES, source="tsm", published=_PUBLISHED)
def tsm(
    *,
    num_classes: int,
    num_frames: int = 8,
    backbone: str = "resnet50",
    modality: str = "rgb",
    dropout: float = 0.5,
    shift_div: int = 8,
    shift_place: str = "blockres",
) -> SegmentModel:
    """Temporal Shift Module: an eighth of the channels comes from each neighbouring frame."""
    if shift_place not in SHIFT_PLACES:
        raise ActcliError(f"shift_place is {shift_place!r}; it has to be one of {', '.join(SHIFT_PLACES)}.")
    network, input_spec = build_backbone(backbone, modality)
    add_shift(network, num_frames, shift_div, shift_place)
    return SegmentModel(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)
