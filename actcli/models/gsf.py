"""GSF: GSM whose moved and resting parts are blended with learned weights.

Paper: Sudhakaran, Escalera, Lanz, "Gate-Shift-Fuse for Video Action Recognition", TPAMI 2023,
https://arxiv.org/abs/2203.08897; equations in :mod:`actcli.models.temporal.gate_shift`. On Inception networks it sits
where GSM's gated shift does, with three differences: ``mixed_6`` has one, ``mixed_3`` has it in its strided 3x3 branch,
and the gate does not start at zero. On ResNets it follows the third convolution of every bottleneck.
"""

from torch import Tensor, nn

from actcli.models.backbones import INCEPTIONS, bninception, build_backbone
from actcli.models.backbones.resnet import FrameBottleneck
from actcli.models.base import SegmentModel
from actcli.models.gsm import add_gates
from actcli.models.policy import ParameterRule, tsn_groups
from actcli.models.registry import Published, register, upstream
from actcli.models.temporal.gate_shift import GateShiftFuse
from actcli.models.upstream import convert_segment_model, gated_name

_PLACES = {
    "bninception": bninception.DIRECT_UNITS,
    "inceptionv3": (
        *(f"mixed{block}.branches.direct" for block in ("", "_1", "_2", "_3", "_4", "_5", "_6", "_7")),
        "mixed_8.branches.tower.0",
        *(f"mixed_{block}.branches.direct" for block in (9, 10)),
    ),
}
"""Units whose convolution a gated shift follows."""


class GSF(SegmentModel):
    """TSN's frame; the original has no partial batch norm and names the classifier's group."""

    policy_switches = ()
    applies_multipliers = False

    def _parameter_rules(self, *, fc_lr5: bool) -> list[ParameterRule]:
        return tsn_groups(self, fc_lr5=fc_lr5, fast_first_conv=False, linear_group="linear")


@upstream("gsf")
def convert_gsf(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the GSF repository → ours."""
    return convert_segment_model(state_dict, gated_name)


_PUBLISHED = [
    Published("sthv1", "BNInception, 16 frames", 50.63, "GSF repository, released models"),
    Published("sthv1", "Inception-v3, 16 frames", 53.13, "GSF repository, released models"),
    Published("sthv1", "ResNet-50, 16 frames", 51.54, "GSF repository, released models"),
]


@register(backbones=(*INCEPTIONS, "resnet50"), source="gsf", published=_PUBLISHED)
def gsf(
    *,
    num_classes: int,
    num_frames: int = 8,
    backbone: str = "bninception",
    modality: str = "rgb",
    dropout: float = 0.5,
    channel_ratio: float = 1.0,
) -> GSF:
    """Gate-Shift-Fuse: gated shift, then a learned blend of what moved and what stayed."""
    network, input_spec = build_backbone(backbone, modality)

    def make_gate(channels: int) -> nn.Module:
        return GateShiftFuse(channels, num_frames, channel_ratio)

    if backbone in _PLACES:
        add_gates(network, _PLACES[backbone], make_gate)
    for block in network.modules():
        if isinstance(block, FrameBottleneck):
            block.before_bn3 = make_gate(block.conv3.out_channels)
    return GSF(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)
