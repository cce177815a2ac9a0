"""The temporal shift: part of the channels of every frame comes from its neighbours.

Paper: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019,
https://arxiv.org/abs/1811.08383. With F = C // shift_div::

    channel   0 .. F-1        y[t] = x[t + 1]     0 at the last frame
    channel   F .. 2F-1       y[t] = x[t - 1]     0 at the first frame
    channel   2F .. C-1       y[t] = x[t]
"""

import torch
from torch import Tensor, nn

from actcli.models.temporal import _fast
from actcli.models.temporal.frames import split_clips

# N = B * T frames, the T of a clip next to each other; C channels, H W spatial; F channels move each way


def shift_frames(x_NCHW: Tensor, num_frames: int, shift_div: int) -> Tensor:
    """Shift ``C // shift_div`` channels one frame back, as many one frame on, and fill with zeros."""
    fold = x_NCHW.shape[1] // shift_div
    if _fast.use_fast():
        return _fast.shift_frames(x_NCHW, num_frames, fold)
    back, on, rest = split_clips(x_NCHW, num_frames).tensor_split((fold, 2 * fold), dim=2)
    from_next = torch.cat([back[:, 1:], torch.zeros_like(back[:, :1])], dim=1)
    from_previous = torch.cat([torch.zeros_like(on[:, :1]), on[:, :-1]], dim=1)
    return torch.cat([from_next, from_previous, rest], dim=2).flatten(0, 1)


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
    """A convolution that sees the shifted input, with the parameters of a plain one."""

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
        if _fast.use_fast():
            fold = x_NCHW.shape[1] // self.shift_div
            return _fast.shifted_convolution(super().forward, x_NCHW, self.num_frames, fold)
        return super().forward(shift_frames(x_NCHW, self.num_frames, self.shift_div))
