"""Gate-shift (GSM) and gate-shift-fuse (GSF).

Papers: Sudhakaran et al., "Gate-Shift Networks for Video Action Recognition", CVPR 2020,
https://arxiv.org/abs/1912.00381, and "Gate-Shift-Fuse for Video Action Recognition", TPAMI 2023,
https://arxiv.org/abs/2203.08897. For each half h of the channels, with a gate g_h per position::

    g_h      = tanh(conv3x3x3_h(relu(bn(x))))
    moved_h  = shift_h(g_h * x_h)              half 1 from frame t + 1, half 2 from frame t - 1, zeros outside
    rest_h   = x_h - g_h * x_h
    GSM:  y_h = moved_h + rest_h
    GSF:  y_h = w_h * moved_h + (1 - w_h) * rest_h,  w_h = sigmoid(conv3x3_h([mean(moved_h), mean(rest_h)]))

The convolution of w runs over the plane of channels and time. At the end the quarters of each half are interleaved:
channel 2k + j is the half's channel j * C/4 + k. A gate of zero thus permutes the channels and changes nothing else.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from actcli.errors import ActcliError
from actcli.models.temporal import _fast
from actcli.models.temporal.frames import FrameBatchNorm3d, FrameConv3d, time_channel_stack
from actcli.models.temporal.shift import shift_frames

# B clips, T frames, N = B * T, C channels, H W spatial


class GateShift(nn.Module):
    """The gated shift of GSM. Its gate starts at zero, as in the original."""

    def __init__(self, channels: int, num_frames: int) -> None:
        """``channels`` has to be divisible by 4."""
        super().__init__()
        if channels % 4:
            raise ActcliError(f"a gated shift needs a multiple of 4 channels and got {channels}.")
        self.num_frames = num_frames
        self.bn = FrameBatchNorm3d(channels)
        self.gate = FrameConv3d(channels, 2, (3, 3, 3), num_frames, groups=2)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)  # type: ignore[arg-type]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        return move_by_gate(x_NCHW, self.gates(x_NCHW), None, self.num_frames)

    def gates(self, x_NCHW: Tensor) -> Tensor:
        """The gate of each half of the channels, ``[N, 2, H, W]``."""
        return torch.tanh(self.gate(functional.relu(self.bn(x_NCHW)))).to(x_NCHW.dtype)


class GateShiftFuse(GateShift):
    """The gated shift of GSF, which learns how to blend what moved with what stayed."""

    def __init__(self, channels: int, num_frames: int, channel_ratio: float = 1.0) -> None:
        """Only the first ``channel_ratio`` of the channels (rounded up to an even number) takes part."""
        self.active = active_channels(channels, channel_ratio)
        super().__init__(self.active, num_frames)
        self.gate.reset_parameters()
        self.fuse_1 = nn.Conv2d(2, 1, 3, padding=1)
        self.fuse_2 = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        active, passive = x_NCHW[:, : self.active], x_NCHW[:, self.active :]
        gate_N2HW = self.gates(active)
        weight_NC = self.blend_weights(active, gate_N2HW).to(active.dtype)
        fused = move_by_gate(active, gate_N2HW, weight_NC, self.num_frames)
        return torch.cat([fused, passive], dim=1) if passive.shape[1] else fused

    def blend_weights(self, x_NCHW: Tensor, gate_N2HW: Tensor) -> Tensor:
        """Share of the moved part, ``[N, C]``; the means of both parts follow from that of the gated one."""
        gated_NC = (_halves(x_NCHW) * gate_N2HW.unsqueeze(2)).mean((3, 4)).flatten(1)
        moved_NC = shift_frames(gated_NC, self.num_frames, shift_div=2)
        pooled_B2CT = time_channel_stack(moved_NC, x_NCHW.mean((2, 3)) - gated_NC, num_frames=self.num_frames)
        first, second = pooled_B2CT.chunk(2, dim=2)
        weight_BCT = torch.cat([self.fuse_1(first), self.fuse_2(second)], dim=2).sigmoid().squeeze(1)
        return weight_BCT.transpose(1, 2).flatten(0, 1)


def active_channels(channels: int, channel_ratio: float) -> int:
    """How many of ``channels`` a ratio takes: rounded down, then up to an even number; divisible by 4 or refused."""
    active = int(channels * channel_ratio)
    active += active % 2
    if not 0 < channel_ratio <= 1 or active % 4 or active == 0:
        raise ActcliError(
            f"channel_ratio {channel_ratio:g} takes {active} of {channels} channels, which has to be a positive "
            "multiple of 4. Ratios that fit every backbone: 1, 0.75, 0.5, 0.25, 0.125."
        )
    return active


def move_by_gate(x_NCHW: Tensor, gate_N2HW: Tensor, weight_NC: Tensor | None, num_frames: int) -> Tensor:
    """``y`` of the equations above, from the gates and, for GSF, the weights ``w``; shape in = shape out."""
    if _fast.use_fast():
        return _fast.move_by_gate(x_NCHW, gate_N2HW, weight_NC, num_frames)
    gated_NCHW = (_halves(x_NCHW) * gate_N2HW.unsqueeze(2)).flatten(1, 2)
    moved_NCHW = shift_frames(gated_NCHW, num_frames, shift_div=2)
    rest_NCHW = x_NCHW - gated_NCHW
    if weight_NC is None:
        return _take_turns(moved_NCHW + rest_NCHW)
    weight = weight_NC[:, :, None, None]
    return _take_turns(weight * moved_NCHW + (1 - weight) * rest_NCHW)


def _take_turns(x_NCHW: Tensor) -> Tensor:
    """Interleave the quarters of each half: channel 2k + j of a half is its channel j * C/4 + k."""
    num_frames, channels, *size = x_NCHW.shape
    quarters = x_NCHW.reshape(num_frames, 2, 2, channels // 4, *size)
    return quarters.transpose(2, 3).flatten(1, 3)


def _halves(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.reshape(x_NCHW.shape[0], 2, -1, *x_NCHW.shape[2:])
