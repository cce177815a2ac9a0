"""The three modules of MAS-Net: motion accumulation, motion selection, temporal interlacing.

Repository: https://github.com/Henry7Lee/MAS-Net-for-action-recognition. They follow each other on the tensor x that the
first convolution of a bottleneck gives. With f = bn(reduce(x)), means over time written as <.>::

    MAM   m[t] = expand((f[t] + 0.5 f[t + 1]) / 1.5),  m[T - 1] = expand(f[T - 1])
    MSM   (a, b) = softmax over the pair of conv(relu(bn(conv(<m> + <x>)))),  s[t] = a * m[t] + b * x[t]
    TIM   y[t, c] = w[c, 0] s[t - 1, c] + w[c, 1] s[t, c] + w[c, 2] s[t + 1, c],  zeros outside the clip
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from actcli.models.temporal.depthwise import TemporalDepthwiseConv
from actcli.models.temporal.frames import FrameBatchNorm3d, split_clips

# B clips, T frames, N = B * T, C channels, H W spatial


class MotionAccumulation(nn.Module):
    """MAM: each frame plus half of the next one, in a bottleneck of C // 64 channels."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        width = max(channels // 64, 1)
        self.reduce = nn.Conv2d(channels, width, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.expand = nn.Conv2d(width, channels, 1, bias=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        f_BTCHW = split_clips(self.bn(self.reduce(x_NCHW)), self.num_frames)
        accumulated = (f_BTCHW[:, :-1] + 0.5 * f_BTCHW[:, 1:]) / 1.5
        m_NCHW: Tensor = self.expand(torch.cat([accumulated, f_BTCHW[:, -1:]], dim=1).flatten(0, 1))
        return m_NCHW


class MotionSelection(nn.Module):
    """MSM: at each position and channel, how much of the motion and how much of the appearance.

    The original skips batch norm and ReLU when it is given a single clip; ``batch_of_one`` does so for every clip.
    """

    def __init__(self, channels: int, num_frames: int, batch_of_one: bool = False) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.batch_of_one = batch_of_one
        self.squeeze = nn.Conv2d(channels, channels // 4, 3, padding=1, groups=4, bias=False)
        self.bn = FrameBatchNorm3d(channels // 4)
        self.select = nn.Conv2d(channels // 4, 2 * channels, 3, padding=1, groups=4, bias=False)

    def forward(self, motion_NCHW: Tensor, x_NCHW: Tensor) -> Tensor:
        """Weighted sum of the two; the weights are the same for all frames of a clip."""
        motion_BTCHW = split_clips(motion_NCHW, self.num_frames)
        x_BTCHW = split_clips(x_NCHW, self.num_frames)
        hidden = self.squeeze(motion_BTCHW.mean(1) + x_BTCHW.mean(1))
        if not self.batch_of_one:
            hidden = functional.relu(self.bn(hidden))
        share_B2CHW = self.select(hidden).unflatten(1, (2, -1)).softmax(1).to(x_NCHW.dtype)
        # softmax over two: appearance gets 1 - share, so the sum is one interpolation
        return torch.lerp(x_BTCHW, motion_BTCHW, share_B2CHW[:, :1]).flatten(0, 1)


class TemporalInterlacing(TemporalDepthwiseConv):
    """TIM: a trained convolution over three frames for each channel, which starts as the shift of TSM."""

    def __init__(self, channels: int, num_frames: int, shift_div: int = 8) -> None:
        super().__init__(channels, num_frames)
        fold = channels // shift_div
        with torch.no_grad():
            self.weight.zero_()
            self.weight[:fold, 0, 2] = 1
            self.weight[fold : 2 * fold, 0, 0] = 1
            self.weight[2 * fold :, 0, 1] = 1


class MotionAccumulationSelection(nn.Module):
    """MAM, MSM and TIM in a row."""

    def __init__(self, channels: int, num_frames: int, batch_of_one: bool = False) -> None:
        super().__init__()
        self.accumulate = MotionAccumulation(channels, num_frames)
        self.select = MotionSelection(channels, num_frames, batch_of_one)
        self.interlace = TemporalInterlacing(channels, num_frames)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        y: Tensor = self.interlace(self.select(self.accumulate(x_NCHW), x_NCHW))
        return y
