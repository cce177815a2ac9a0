"""The temporal shift: part of the channels of every frame comes from its neighbours.

Paper: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019,
https://arxiv.org/abs/1811.08383. With F = C // shift_div::

    channel   0 .. F-1        y[t] = x[t + 1]     0 at the last frame
    channel   F .. 2F-1       y[t] = x[t - 1]     0 at the first frame
    channel   2F .. C-1       y[t] = x[t]
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from actcli.models.temporal.frames import split_clips

# N = B * T frames, the T of a clip next to each other; C channels, H W spatial; F channels move each way


def shift_frames(x_NCHW: Tensor, num_frames: int, shift_div: int) -> Tensor:
    """Shift ``C // shift_div`` channels one frame back, as many one frame on, and fill with zeros."""
    fold = x_NCHW.shape[1] // shift_div
    shifted: Tensor = _Shift.apply(x_NCHW, num_frames, fold, False)
    return shifted


@contextmanager
def shifted_in_place(x_NCHW: Tensor, num_frames: int, shift_div: int) -> Iterator[None]:
    """Within the block ``x_NCHW`` holds its own shift; afterwards it is as before. For inference.

    Only the moving quarter (at a ``shift_div`` of 8) is touched, and no second tensor of full size is needed. What the
    shift drops, the first frame of the channels from t + 1 and the last of those from t - 1, is kept aside.
    """
    x_BTCHW = split_clips(x_NCHW, num_frames)
    fold = x_NCHW.shape[1] // shift_div
    back, on = x_BTCHW[:, :, :fold], x_BTCHW[:, :, fold : 2 * fold]
    dropped_first, dropped_last = back[:, 0].clone(), on[:, -1].clone()
    _move(back, slice(1, None), slice(None, -1), fill=(-1, 0))
    _move(on, slice(None, -1), slice(1, None), fill=(0, 0))
    try:
        yield
    finally:
        _move(back, slice(None, -1), slice(1, None), fill=(0, dropped_first))
        _move(on, slice(1, None), slice(None, -1), fill=(-1, dropped_last))


def _move(x_BTCHW: Tensor, source: slice, to: slice, fill: tuple[int, Tensor | int]) -> None:
    """Move frames within a tensor and fill the frame that is left over."""
    x_BTCHW[:, to] = x_BTCHW[:, source].clone()  # source and target overlap
    x_BTCHW[:, fill[0]] = fill[1]


def _shifted_copy(x_NCHW: Tensor, num_frames: int, fold: int, reverse: bool) -> Tensor:
    out_NCHW = torch.empty_like(x_NCHW)
    x, out = split_clips(x_NCHW, num_frames), split_clips(out_NCHW, num_frames)
    back, on = slice(0, fold), slice(fold, 2 * fold)
    if reverse:
        back, on = on, back
    out[:, :-1, back] = x[:, 1:, back]
    out[:, -1, back] = 0
    out[:, 1:, on] = x[:, :-1, on]
    out[:, 0, on] = 0
    out[:, :, 2 * fold :] = x[:, :, 2 * fold :]
    return out_NCHW


class _Shift(torch.autograd.Function):
    """The shift keeps nothing for its backward pass, which is the shift the other way."""

    @staticmethod
    def forward(ctx: Any, x_NCHW: Tensor, num_frames: int, fold: int, reverse: bool) -> Tensor:
        ctx.arguments = (num_frames, fold, reverse)
        return _shifted_copy(x_NCHW, num_frames, fold, reverse)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        num_frames, fold, reverse = ctx.arguments
        return _shifted_copy(grads[0], num_frames, fold, not reverse), None, None, None


class TemporalShift(nn.Module):
    """The shift as a module."""

    def __init__(self, num_frames: int, shift_div: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.shift_div = shift_div

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        return shift_frames(x_NCHW, self.num_frames, self.shift_div)

    def extra_repr(self) -> str:
        """Settings shown by ``print(model)``."""
        return f"num_frames={self.num_frames}, shift_div={self.shift_div}"


class ShiftedConv2d(nn.Conv2d):
    """A convolution that sees the shifted input, with the parameters of a plain one.

    For its weight gradient a convolution keeps its input. Here that would be a second copy of a tensor that the layer
    before keeps anyway, so the unshifted one is kept and shifted again when the gradient asks for it. Without gradients
    the shift happens in place and is undone.
    """

    num_frames: int
    shift_div: int

    @classmethod
    def from_conv(cls, conv: nn.Conv2d, num_frames: int, shift_div: int) -> "ShiftedConv2d":
        """Take over the parameters and settings of ``conv``."""
        shifted = cls.__new__(cls)
        shifted.__dict__ = conv.__dict__
        shifted.num_frames = num_frames
        shifted.shift_div = shift_div
        return shifted

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shift, then convolve."""
        if not (torch.is_grad_enabled() or x_NCHW.requires_grad):
            with shifted_in_place(x_NCHW, self.num_frames, self.shift_div):
                return super().forward(x_NCHW)
        shifted = shift_frames(x_NCHW, self.num_frames, self.shift_div)
        kept, address = x_NCHW.detach(), shifted.data_ptr()  # the hooks live on and must not hold the shifted tensor
        num_frames, fold = self.num_frames, x_NCHW.shape[1] // self.shift_div

        def pack(tensor: Tensor) -> Tensor | None:
            return None if tensor.data_ptr() == address else tensor

        def unpack(packed: Tensor | None) -> Tensor:
            return _shifted_copy(kept, num_frames, fold, False) if packed is None else packed

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            return super().forward(shifted)
