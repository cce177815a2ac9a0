"""LSNet, the long short temporal network: our reading, for its equations and code are not public.

What is public is its description (TSM's code base, ResNet-50, 8 frames, trained on Something-Something v1 and Jester)
and the two ideas in its name. Everything below is ours. TSM's residual shift stays. With P the mean over space, d the
difference to the next frame (0 at the last), and R, Q, K, V reducing the channels by 16, E bringing them back::

    short, in every bottleneck after its first convolution:
        x[t] * (1 + tanh(E P|d(bn(R x))[t]|))

    long, after every stage, with p = P x:
        x[t] * (1 + tanh(E a[t])) + w * x                    w: depth-wise convolution over 3 frames
        a[t] = sum over u of softmax_u(Q p[t] . K p[u] / sqrt(width)) V p[u]

All E and w start at zero, so that a new LSNet gives the logits of TSM, from which training departs.
"""

from torch import nn

from actcli.models.backbones import build_backbone
from actcli.models.backbones.resnet import FrameBottleneck, stages
from actcli.models.base import SegmentModel
from actcli.models.registry import register
from actcli.models.temporal.long_short import LongAttention, ShortAttention
from actcli.models.tsm import shift_resnet


def add_long_short(network: nn.Module, num_frames: int) -> None:
    """A short module in every bottleneck of a ResNet, a long one after every stage."""
    for stage in stages(network):
        blocks = [block for block in stage if isinstance(block, FrameBottleneck)]
        for block in blocks:
            block.before_conv2 = ShortAttention(block.conv1.out_channels, num_frames)
        blocks[-1].exit = LongAttention(blocks[-1].conv3.out_channels, num_frames)


@register(backbones=("resnet50",), source=None)
def lsnet(
    *,
    num_classes: int,
    num_frames: int = 8,
    backbone: str = "resnet50",
    modality: str = "rgb",
    dropout: float = 0.5,
    shift_div: int = 8,
) -> SegmentModel:
    """Long Short Temporal Network (our reading): TSM with attention to change and to the whole clip."""
    network, input_spec = build_backbone(backbone, modality)
    shift_resnet(network, [num_frames] * 4, shift_div, "blockres")
    add_long_short(network, num_frames)
    return SegmentModel(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)
