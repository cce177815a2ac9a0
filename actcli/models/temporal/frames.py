"""3-D layers that work on frames folded into the batch, without moving the time axis."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from actcli.models.temporal import _fast
from actcli.models.temporal._fast import split_clips

# B clips, T frames, N = B * T, C channels, O outputs, H W spatial


class FrameBatchNorm3d(nn.BatchNorm3d):
    """3-D batch norm: its statistics run over all frames of the batch either way."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        return super().forward(x_NCHW.unsqueeze(2)).squeeze(2)


class FrameConv3d(nn.Conv3d):
    """3-D convolution of stride 1 that keeps time and size."""

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
        if _fast.use_fast():
            return _fast.frame_convolution(x_NCHW, self.weight, self.bias, self.num_frames, self.groups)
        x_BCTHW = split_clips(x_NCHW, self.num_frames).transpose(1, 2)
        padding = [side // 2 for side in self.kernel_size]
        y_BOTHW = functional.conv3d(x_BCTHW, self.weight, self.bias, padding=padding, groups=self.groups)
        return y_BOTHW.transpose(1, 2).flatten(0, 1)


def time_channel_stack(*features_NC: Tensor, num_frames: int) -> Tensor:
    """Pooled features ``[N, C]`` of several sources → ``[B, sources, C, T]``."""
    return torch.stack([split_clips(x, num_frames).transpose(1, 2) for x in features_NC], dim=1)


__all__ = ["FrameBatchNorm3d", "FrameConv3d", "split_clips", "time_channel_stack"]
