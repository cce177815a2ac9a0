"""GSM: a gate that learns which part of each position moves to a neighbouring frame.

Paper: Sudhakaran, Escalera, Lanz, "Gate-Shift Networks for Video Action Recognition", CVPR 2020,
https://arxiv.org/abs/1912.00381; equations in :mod:`actcli.models.temporal.gate_shift`. One gated shift in one branch
of each Inception block, between a convolution and its batch norm.
"""

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from actcli.models.backbones import INCEPTIONS, bninception, build_backbone
from actcli.models.base import SegmentModel
from actcli.models.registry import register, upstream
from actcli.models.temporal.gate_shift import GateShift
from actcli.models.upstream import convert_segment_model, gated_name

_PLACES = {
    "bninception": bninception.DIRECT_UNITS,
    "inceptionv3": (
        *(f"mixed{block}.branches.direct" for block in ("", "_1", "_2")),
        "mixed_3.branches.tower.0",
        *(f"mixed_{block}.branches.direct" for block in (4, 5, 7)),
        "mixed_8.branches.tower.0",
        *(f"mixed_{block}.branches.direct" for block in (9, 10)),
    ),
}
"""Units whose convolution a gated shift follows; ``mixed_6`` has none."""


def add_gates(network: nn.Module, units: Iterable[str], make_gate: Callable[[int], nn.Module]) -> None:
    """Put ``make_gate(channels)`` between the convolution and the batch norm of each unit."""
    for name in units:
        unit = network.get_submodule(name)
        assert isinstance(unit.conv, nn.Conv2d)
        unit.before_bn = make_gate(unit.conv.out_channels)


class GSM(SegmentModel):
    """TSN's frame; the original builds its parameter groups but trains with one rate."""

    policy_switches = ("partial_bn",)
    applies_multipliers = False


@upstream("gsm")
def convert_gsm(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the GSM repository → ours."""
    return convert_segment_model(state_dict, gated_name)


@register(backbones=INCEPTIONS, source="gsm")
def gsm(
    *, num_classes: int, num_frames: int = 8, backbone: str = "bninception", modality: str = "rgb", dropout: float = 0.5
) -> GSM:
    """Gate-Shift Module: a learned gate decides what moves to the neighbouring frames."""
    network, input_spec = build_backbone(backbone, modality)
    add_gates(network, _PLACES[backbone], lambda channels: GateShift(channels, num_frames))
    return GSM(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)
