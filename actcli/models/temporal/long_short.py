"""The short and the long module of our LSNet; both start as identities. Equations in :mod:`actcli.models.lsnet`."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from actcli.models.temporal.depthwise import TemporalDepthwiseConv
from actcli.models.temporal.frames import split_clips

# B clips, T frames, N = B * T, C channels, R = C // 16 reduced channels, H W spatial

REDUCTION = 16


class ShortAttention(nn.Module):
    """Channel attention from how much the features change from each frame to the next."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        reduced = channels // REDUCTION
        self.reduce = nn.Conv2d(channels, reduced, 1, bias=False)
        self.bn = nn.BatchNorm2d(reduced)
        self.expand = nn.Conv2d(reduced, channels, 1, bias=False)
        nn.init.zeros_(self.expand.weight)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        f_BTRHW = split_clips(self.bn(self.reduce(x_NCHW)), self.num_frames)
        change_BTR = (f_BTRHW[:, 1:] - f_BTRHW[:, :-1]).abs().mean((3, 4))
        change_NR11 = functional.pad(change_BTR, (0, 0, 0, 1)).flatten(0, 1)[:, :, None, None]
        return x_NCHW * (1 + torch.tanh(self.expand(change_NR11)))


class LongAttention(nn.Module):
    """A depth-wise convolution over time, and channel attention that looks at all frames of the clip."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        reduced = channels // REDUCTION
        self.neighbours = TemporalDepthwiseConv(channels, num_frames)
        self.query = nn.Conv1d(channels, reduced, 1, bias=False)
        self.key = nn.Conv1d(channels, reduced, 1, bias=False)
        self.value = nn.Conv1d(channels, reduced, 1, bias=False)
        self.expand = nn.Conv1d(reduced, channels, 1, bias=False)
        nn.init.zeros_(self.neighbours.weight)
        nn.init.zeros_(self.expand.weight)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        pooled_BCT = split_clips(x_NCHW.mean((2, 3)), self.num_frames).transpose(1, 2)
        parts = (layer(pooled_BCT).transpose(1, 2) for layer in (self.query, self.key, self.value))
        query, key, value = (part[:, None] for part in parts)  # one head
        seen_BTR = functional.scaled_dot_product_attention(query, key, value).squeeze(1)
        scale_BCT = 1 + torch.tanh(self.expand(seen_BTR.transpose(1, 2)))
        scale_NC11 = scale_BCT.transpose(1, 2).flatten(0, 1)[:, :, None, None]
        y: Tensor = x_NCHW * scale_NC11 + self.neighbours(x_NCHW)
        return y
