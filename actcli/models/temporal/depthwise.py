"""A convolution over three frames for each channel alone, ``y[t] = w0 x[t-1] + w1 x[t] + w2 x[t+1]``.

It reads little and computes less, so memory traffic decides. In the plain memory format the library convolutions first
copy everything to bring the frames next to each other; three scaled additions do not. In the channels-last format the
tensor already is what a 2-D convolution over (time, position) wants.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv2d_weight
from torch.utils.flop_counter import register_flop_formula

from actcli.models.temporal.frames import split_clips

# B clips, T frames, N = B * T, C channels, H W spatial, P = H * W


class TemporalDepthwiseConv(nn.Conv1d):
    """The convolution as a layer: no bias, zeros outside the clip."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.num_frames = num_frames

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        y: Tensor = temporal_depthwise(x_NCHW, self.weight.to(x_NCHW.dtype), self.num_frames)
        return y


@torch.library.custom_op("actcli::temporal_depthwise", mutates_args=())
def temporal_depthwise(x_NCHW: Tensor, weight_C13: Tensor, num_frames: int) -> Tensor:
    """``[B * T, C, H, W]`` with a kernel ``[C, 1, 3]`` → the same shape."""
    if _is_channels_last(x_NCHW):
        kernel = weight_C13.unsqueeze(3)
        y_BCTP = functional.conv2d(_planes(x_NCHW, num_frames), kernel, padding=(1, 0), groups=len(kernel))
        return y_BCTP.transpose(1, 2).reshape(x_NCHW.shape).contiguous(memory_format=torch.channels_last)
    before, here, after = weight_C13[:, 0, :, None, None].unbind(1)
    x = split_clips(x_NCHW, num_frames)
    y = x * here
    y[:, 1:].addcmul_(x[:, :-1], before)
    y[:, :-1].addcmul_(x[:, 1:], after)
    return y.view(x_NCHW.shape)


@torch.library.custom_op("actcli::temporal_depthwise_weight_grad", mutates_args=())
def _weight_grad(x_NCHW: Tensor, grad_NCHW: Tensor, num_frames: int) -> Tensor:
    if _is_channels_last(x_NCHW):
        channels = x_NCHW.shape[1]
        grad: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
            _planes(x_NCHW, num_frames),
            (channels, 1, 3, 1),
            _planes(grad_NCHW.contiguous(memory_format=torch.channels_last), num_frames),
            padding=(1, 0),
            groups=channels,
        )
        return grad.squeeze(3).contiguous()
    x, grad = split_clips(x_NCHW, num_frames), split_clips(grad_NCHW, num_frames)
    pairs = [(x[:, :-1], grad[:, 1:]), (x, grad), (x[:, 1:], grad[:, :-1])]
    return torch.stack([(seen * asked).sum((0, 1, 3, 4)) for seen, asked in pairs], dim=1).unsqueeze(1)


def _is_channels_last(x_NCHW: Tensor) -> bool:
    return x_NCHW.is_contiguous(memory_format=torch.channels_last) and not x_NCHW.is_contiguous()


def _planes(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """``[B * T, C, H, W]`` → ``[B, C, T, P]``, a view in the channels-last format."""
    return split_clips(x_NCHW, num_frames).flatten(3).transpose(1, 2)


@temporal_depthwise.register_fake
def _(x_NCHW: Tensor, weight_C13: Tensor, num_frames: int) -> Tensor:
    return torch.empty_like(x_NCHW)


@_weight_grad.register_fake
def _(x_NCHW: Tensor, grad_NCHW: Tensor, num_frames: int) -> Tensor:
    return x_NCHW.new_empty(x_NCHW.shape[1], 1, 3)


def _backward(ctx: Any, grad_NCHW: Tensor) -> tuple[Tensor, Tensor, None]:
    x_NCHW, weight_C13 = ctx.saved_tensors
    grad_x = temporal_depthwise(grad_NCHW, weight_C13.flip(2), ctx.num_frames)
    return grad_x, _weight_grad(x_NCHW, grad_NCHW, ctx.num_frames), None


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    x_NCHW, weight_C13, ctx.num_frames = inputs
    ctx.save_for_backward(x_NCHW, weight_C13)


temporal_depthwise.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.actcli.temporal_depthwise)
def _flops(x_shape: torch.Size, weight_shape: torch.Size, *_: Any, **__: Any) -> int:
    """Two operations per multiply-accumulate, three of those per value, as for a convolution with padding."""
    return 2 * 3 * x_shape.numel()
