"""TSM: TSN whose residual branches see part of their channels from the neighbouring frames.

Paper: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019,
https://arxiv.org/abs/1811.08383; equations in :mod:`actcli.models.temporal.shift`.

Departures from the original code: non-local blocks do not shorten ResNet-101, and count the frames that temporal
pooling leaves; Inception-v3 is new, shifted like BNInception.
"""

import re

from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models.backbones import FRAME_BACKBONES, INCEPTIONS, RESNETS, build_tsn_backbone
from actcli.models.backbones.bninception import BNInception
from actcli.models.backbones.inceptionv3 import InceptionV3
from actcli.models.backbones.mobilenet import expanding_residuals
from actcli.models.backbones.resnet import FrameBasicBlock, FrameBottleneck, stages
from actcli.models.base import SegmentModel
from actcli.models.registry import Published, register, upstream
from actcli.models.temporal.non_local import NonLocal
from actcli.models.temporal.pool import TemporalMaxPool
from actcli.models.temporal.shift import ShiftedConv2d, TemporalShift
from actcli.models.upstream import convert_segment_model, frame_name

_NON_LOCAL_BLOCKS = {1: (0, 2), 2: (0, 2, 4)}
"""Stage of a ResNet → blocks that a non-local block follows, both from 0."""


def shift_resnet(network: nn.Module, stage_frames: list[int], shift_div: int, place: str) -> None:
    """Shift the input of every block of a ResNet (``"block"``), or of its residual branch only (``"blockres"``).

    A network with a third stage of 23 blocks or more (ResNet-101) has ``"blockres"`` in every other block only.
    """
    every = 2 if place == "blockres" and len(stages(network)[2]) >= 23 else 1
    for stage, num_frames in zip(stages(network), stage_frames, strict=True):
        for block in list(stage)[::every]:
            assert isinstance(block, FrameBasicBlock | FrameBottleneck)
            if place == "block":
                block.entry = TemporalShift(num_frames, shift_div)
            else:
                block.conv1 = ShiftedConv2d.from_conv(block.conv1, num_frames, shift_div)


def shift_inception(network: BNInception | InceptionV3, num_frames: int, shift_div: int) -> None:
    """Shift the input of every stage but the first."""
    for block in network.blocks():
        block.entry = TemporalShift(num_frames, shift_div)
    if isinstance(network, BNInception):
        unit = network.get_submodule("stem_2.0")
        unit.conv = ShiftedConv2d.from_conv(unit.conv, num_frames, shift_div)  # type: ignore[arg-type]


def shift_mobilenet(network: nn.Module, num_frames: int, shift_div: int) -> None:
    """Shift the input of the expanding convolution where there is a shortcut around it."""
    for block in expanding_residuals(network):
        block.conv[0][0] = ShiftedConv2d.from_conv(block.conv[0][0], num_frames, shift_div)


def add_non_local(network: nn.Module, stage_frames: list[int]) -> None:
    """Put the five non-local blocks behind blocks of the second and third stage of a ResNet."""
    for stage, blocks in _NON_LOCAL_BLOCKS.items():
        for index in blocks:
            block = stages(network)[stage][index]
            assert isinstance(block, FrameBottleneck)
            block.exit = NonLocal(block.conv3.out_channels, stage_frames[stage])


def add_temporal_pool(network: nn.Module, num_frames: int) -> None:
    """Halve the frames at the input of the second stage of a ResNet."""
    block = stages(network)[1][0]
    block.entry = nn.Sequential(TemporalMaxPool(num_frames), block.entry)  # type: ignore[arg-type]


@upstream("tsm")
def convert_tsm(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the TSM repository (TSN and TSM) → ours."""
    converted = convert_segment_model(state_dict, _backbone_name)
    return {key: value.squeeze(2) if value.ndim == 5 else value for key, value in converted.items()}


_NON_LOCAL_PARTS = {"theta": "theta", "phi.0": "phi", "g.0": "g", "W.0": "project", "W.1": "bn"}


def _backbone_name(key: str) -> str:
    # shifted convolutions and blocks and a pooled stage are wrapped as ``net``, blocks before a non-local as ``block``
    key = re.sub(r"\.(net|block)(?=\.)", "", key)
    key = re.sub(r"\.nl\.(theta|phi\.0|g\.0|W\.[01])", lambda part: f".exit.{_NON_LOCAL_PARTS[part[1]]}", key)
    return frame_name(key)


_PUBLISHED = [
    Published(
        "kinetics400",
        "ResNet-50, 8 frames, 1 clip, centre crop",
        71.2,
        "TSM repository, scripts/test_tsm_kinetics_rgb_8f.sh",
    ),
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
    shift_place: str | None = None,
    non_local: bool = False,
    temporal_pool: bool = False,
) -> SegmentModel:
    """Temporal Shift Module: an eighth of the channels comes from each neighbouring frame.

    ``shift_place`` is ``"blockres"`` (only the residual branch sees the shift) or ``"block"``; Inception networks have
    only ``"block"``, MobileNet-v2 only ``"blockres"``.
    """
    place = _shift_place(backbone, shift_place)
    if shift_div < 2:
        raise ActcliError(f"shift_div is {shift_div}; a shift both ways needs at least 2.")
    _check_resnet_options(backbone, num_frames, non_local, temporal_pool)
    network, input_spec = build_tsn_backbone(backbone, modality)
    if backbone in RESNETS:
        later_frames = num_frames // 2 if temporal_pool else num_frames
        stage_frames = [num_frames] + [later_frames] * 3
        shift_resnet(network, stage_frames, shift_div, place)
        if non_local:
            add_non_local(network, stage_frames)
        if temporal_pool:
            add_temporal_pool(network, num_frames)
    elif isinstance(network, BNInception | InceptionV3):
        shift_inception(network, num_frames, shift_div)
    else:
        shift_mobilenet(network, num_frames, shift_div)
    return SegmentModel(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)


def _shift_place(backbone: str, place: str | None) -> str:
    allowed = ("block",) if backbone in INCEPTIONS else ("blockres", "block") if backbone in RESNETS else ("blockres",)
    if place is not None and place not in allowed:
        raise ActcliError(f"shift_place is {place!r}; on {backbone} it has to be one of {', '.join(allowed)}.")
    return place or allowed[0]


def _check_resnet_options(backbone: str, num_frames: int, non_local: bool, temporal_pool: bool) -> None:
    if non_local and backbone not in ("resnet50", "resnet101"):
        raise ActcliError(f"non_local is placed in resnet50 and resnet101, not in {backbone}.")
    if temporal_pool and backbone not in RESNETS:
        raise ActcliError(f"temporal_pool is placed in ResNets ({', '.join(RESNETS)}), not in {backbone}.")
    if temporal_pool and num_frames % 2:
        raise ActcliError(f"temporal_pool halves the frames; num_frames is {num_frames}, give an even number.")
