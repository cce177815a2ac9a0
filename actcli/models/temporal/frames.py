"""3-D layers that work on frames folded into the batch, without moving the time axis."""

import torch
from torch import Tensor, nn
from torch.nn import functional

# B clips, T frames, N = B * T, C channels, O outputs, K kernel positions in time, H W spatial


def split_clips(x_NCHW: Tensor, num_frames: int) -> Tensor:
    """``[B * T, ...]`` → ``[B, T, ...]``, a view."""
    return x_NCHW.view(-1, num_frames, *x_NCHW.shape[1:])


class FrameBatchNorm3d(nn.BatchNorm3d):
    """3-D batch norm: its statistics run over all frames of the batch either way."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        return super().forward(x_NCHW.unsqueeze(2)).squeeze(2)


class FrameConv3d(nn.Conv3d):
    """3-D convolution of stride 1 that keeps time and size, computed as one 2-D convolution.

    The 2-D convolution gives every frame its share in the frames around it, ``z[o, k]``; the result is
    ``y[t, o] = bias[o] + sum over k of z[t + k - K // 2, o, k]``. With few outputs this is far cheaper than a 3-D
    convolution on a CPU, and the frames never have to be moved next to each other.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, int, int],
        num_frames: int,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        """``kernel`` is (time, height, width), all odd."""
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        super().__init__(in_channels, out_channels, kernel, padding=padding, groups=groups, bias=bias)
        self.num_frames = num_frames

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, O, H, W]``."""
        num_taps = self.kernel_size[0]
        weight = self.weight.transpose(1, 2).flatten(0, 1)  # [O * K, C / groups, kh, kw]
        z = functional.conv2d(x_NCHW, weight, padding=self.padding[1:], groups=self.groups)
        z_BTOKHW = z.view(-1, self.num_frames, self.out_channels, num_taps, *z.shape[2:])
        y_BTOHW = sum_taps(z_BTOKHW)
        if self.bias is not None:
            y_BTOHW = y_BTOHW + self.bias[:, None, None]
        return y_BTOHW.flatten(0, 1)


def sum_taps(z_BTOKHW: Tensor) -> Tensor:
    """``y[t] = sum over k of z[t + k - K // 2, k]``, frames outside the clip being zero."""
    num_frames, num_taps = z_BTOKHW.shape[1], z_BTOKHW.shape[3]
    middle = num_taps // 2
    y = z_BTOKHW[:, :, :, middle].clone()
    for tap in range(num_taps):
        step = tap - middle
        if step and abs(step) < num_frames:
            to = slice(max(0, -step), num_frames - max(0, step))
            source = slice(max(0, step), num_frames - max(0, -step))
            y[:, to] += z_BTOKHW[:, source, :, tap]
    return y


def time_channel_stack(*features_NC: Tensor, num_frames: int) -> Tensor:
    """Pooled features ``[N, C]`` of several sources → ``[B, sources, C, T]``."""
    return torch.stack([split_clips(x, num_frames).transpose(1, 2) for x in features_NC], dim=1)
