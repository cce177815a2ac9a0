"""A convolution over three frames for each channel alone, ``y[t] = w0 x[t-1] + w1 x[t] + w2 x[t+1]``."""

from torch import Tensor, nn
from torch.nn import functional

from actcli.models.temporal import _fast
from actcli.models.temporal.frames import split_clips

# B clips, T frames, N = B * T, C channels, H W spatial


class TemporalDepthwiseConv(nn.Conv1d):
    """The convolution as a layer: no bias, zeros outside the clip."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.num_frames = num_frames

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        weight_C13 = self.weight.to(x_NCHW.dtype)
        if _fast.use_fast():
            y: Tensor = _fast.temporal_depthwise(x_NCHW, weight_C13, self.num_frames)
            return y
        x_BCTHW = split_clips(x_NCHW, self.num_frames).transpose(1, 2)
        kernel = weight_C13[..., None, None]
        y_BCTHW = functional.conv3d(x_BCTHW, kernel, padding=(1, 0, 0), groups=len(kernel))
        return y_BCTHW.transpose(1, 2).flatten(0, 1)
