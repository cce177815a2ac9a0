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

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actcli.errors import ActcliError
from actcli.models.temporal.frames import FrameBatchNorm3d, FrameConv3d, split_clips, time_channel_stack
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
        y: Tensor = _MoveByGate.apply(x_NCHW, self.gates(x_NCHW), None, self.num_frames)
        return y

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
        fused: Tensor = _MoveByGate.apply(active, gate_N2HW, weight_NC, self.num_frames)
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


def _halves(x_NCHW: Tensor) -> Tensor:
    return x_NCHW.view(len(x_NCHW), 2, -1, *x_NCHW.shape[2:])


class _MoveByGate(torch.autograd.Function):
    """Gate, shift, blend and interleave in as few passes over memory as operators allow.

    At full width these steps read and write far more than the convolution around them; as single operators they made a
    ResNet-50 twice as slow and kept several tensors of full size for the backward pass, which needs none but ``x``.
    """

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, gate_N2HW: Tensor, weight_NC: Tensor | None, num_frames: int) -> Tensor:
        ctx.save_for_backward(x_NCHW, gate_N2HW, weight_NC)
        ctx.num_frames = num_frames
        x, gate, weight = _parts(x_NCHW, gate_N2HW, weight_NC, num_frames)
        out_NCHW = torch.empty_like(x_NCHW)
        out = _interleaved(out_NCHW, num_frames)
        gated = x * gate
        if weight is None:
            torch.sub(x, gated, out=out)
            out[:, :-1, 0] += gated[:, 1:, 0]
            out[:, 1:, 1] += gated[:, :-1, 1]
        else:
            torch.mul(x - gated, 1 - weight, out=out)
            out[:, :-1, 0].addcmul_(gated[:, 1:, 0], weight[:, :-1, 0])
            out[:, 1:, 1].addcmul_(gated[:, :-1, 1], weight[:, 1:, 1])
        return out_NCHW

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        x_NCHW, gate_N2HW, weight_NC = ctx.saved_tensors
        x, gate, weight = _parts(x_NCHW, gate_N2HW, weight_NC, ctx.num_frames)
        grad = _interleaved(grads[0], ctx.num_frames)
        grad_rest = grad if weight is None else grad * (1 - weight)
        # what a frame gave to its neighbour comes back from there
        grad_gated = -grad_rest
        grad_moved = grad if weight is None else grad * weight
        grad_gated[:, 1:, 0] += grad_moved[:, :-1, 0]
        grad_gated[:, :-1, 1] += grad_moved[:, 1:, 1]
        grad_gate = (grad_gated * x).sum((3, 4)).view(gate_N2HW.shape)
        grad_weight = None if weight is None else _weight_gradient(grad, x, x * gate).view(weight_NC.shape)
        grad_x_NCHW = torch.empty_like(x_NCHW)
        torch.addcmul(grad_rest, grad_gated, gate, out=_quarters(grad_x_NCHW, ctx.num_frames))
        return grad_x_NCHW, grad_gate, grad_weight, None


def _parts(
    x_NCHW: Tensor, gate_N2HW: Tensor, weight_NC: Tensor | None, num_frames: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """All as ``[B, T, half, quarter, C / 4, H, W]``, by broadcasting."""
    gate = split_clips(gate_N2HW, num_frames)[:, :, :, None, None]
    if weight_NC is None:
        return _quarters(x_NCHW, num_frames), gate, None
    weight = weight_NC.view(-1, num_frames, 2, 2, weight_NC.shape[1] // 4, 1, 1)
    return _quarters(x_NCHW, num_frames), gate, weight


def _quarters(x_NCHW: Tensor, num_frames: int) -> Tensor:
    _, channels, height, width = x_NCHW.shape
    return x_NCHW.view(-1, num_frames, 2, 2, channels // 4, height, width)


def _interleaved(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """The same view of a tensor whose quarters take turns: channel 2k + j is quarter j, channel k."""
    _, channels, height, width = x_NCHW.shape
    return x_NCHW.view(-1, num_frames, 2, channels // 4, 2, height, width).transpose(3, 4)


def _weight_gradient(grad: Tensor, x: Tensor, gated: Tensor) -> Tensor:
    total = (grad * (gated - x)).sum((5, 6))
    total[:, :-1, 0] += (grad[:, :-1, 0] * gated[:, 1:, 0]).sum((4, 5))
    total[:, 1:, 1] += (grad[:, 1:, 1] * gated[:, :-1, 1]).sum((4, 5))
    return total
