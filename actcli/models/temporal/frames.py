"""3-D layers that work on frames folded into the batch, without moving the time axis."""

from collections.abc import Callable

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
    """3-D convolution of stride 1 with few outputs, which keeps time and size; computed as a matrix product.

    A product with every kernel position gives each frame its share in all positions around it, ``z[o, k, i, j]``; the
    shares are then summed where they belong, in space by ``fold`` and in time by :func:`sum_taps`. With few outputs
    that is several times faster on a CPU than a convolution, whose inner loops want many outputs, and the frames never
    have to be moved next to each other.
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

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrameConv3d":
        # torch refuses model.to(memory_format=torch.channels_last) for 5-D weights; show it a 4-D one
        def on_4d(tensor: Tensor) -> Tensor:
            return fn(tensor.flatten(3)).view(tensor.shape) if tensor.ndim == 5 else fn(tensor)

        super()._apply(on_4d, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, O, H, W]``."""
        size, num_taps = x_NCHW.shape[2:], self.kernel_size[0]
        # a share lies where the kernel is mirrored: y[p] takes z[k] from p + k, fold gives z[k] to p + k
        mirrored = self.weight.flip(3, 4)
        rows = mirrored.permute(0, 2, 3, 4, 1).reshape(-1, mirrored.shape[1], 1, 1)  # [O * K * kh * kw, C / groups]
        z = functional.conv2d(x_NCHW, rows, groups=self.groups)
        if self.kernel_size[1:] != (1, 1):
            z = functional.fold(z.flatten(2), size, self.kernel_size[1:], padding=self.padding[1:])  # type: ignore[arg-type]
        y_BTOHW = sum_taps(z.view(-1, self.num_frames, self.out_channels, num_taps, *size))
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
