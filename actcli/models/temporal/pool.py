"""Temporal pooling: half as many frames, each the maximum over three."""

from torch import Tensor, nn
from torch.nn import functional

from actcli.models.temporal.frames import split_clips


class TemporalMaxPool(nn.Module):
    """Maximum over time, window 3, stride 2, padding 1: frame t of the result sees frames 2t - 1, 2t, 2t + 1."""

    def __init__(self, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[B * T, C, H, W]`` → ``[B * T / 2, C, H, W]``, T even."""
        x_BTP = split_clips(x_NCHW, self.num_frames).flatten(2)
        pooled = functional.max_pool2d(x_BTP, (3, 1), stride=(2, 1), padding=(1, 0))
        return pooled.view(-1, *x_NCHW.shape[1:])
