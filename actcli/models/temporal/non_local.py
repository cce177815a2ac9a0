"""The non-local block: every position of every frame looks at all others.

Paper: Wang et al., "Non-local Neural Networks", CVPR 2018, https://arxiv.org/abs/1711.07971, the embedded Gaussian form
with half the channels and keys and values pooled 2x2 in space::

    y = x + bn(W softmax(theta(x)^T phi(x)) g(x))
"""

from torch import Tensor, nn
from torch.nn import functional

from actcli.models.temporal.frames import FrameBatchNorm3d, split_clips

# B clips, T frames, N = B * T, C channels, D = C // 2, H W spatial, P = T * H * W positions


class NonLocal(nn.Module):
    """Attention over all positions of a clip. Its norm starts at zero, so the block starts as an identity."""

    def __init__(self, channels: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        width = channels // 2
        self.theta = nn.Conv2d(channels, width, 1)
        self.phi = nn.Conv2d(channels, width, 1)
        self.g = nn.Conv2d(channels, width, 1)
        self.project = nn.Conv2d(width, channels, 1)
        self.bn = FrameBatchNorm3d(channels)
        nn.init.zeros_(self.bn.weight)
        nn.init.zeros_(self.bn.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """Shape in = shape out."""
        query_BPD = self._positions(self.theta(x_NCHW))
        key_BPD = self._positions(functional.max_pool2d(self.phi(x_NCHW), 2))
        value_BPD = self._positions(functional.max_pool2d(self.g(x_NCHW), 2))
        seen_BPD = functional.scaled_dot_product_attention(query_BPD, key_BPD, value_BPD, scale=1.0)
        seen_BTHWD = seen_BPD.view(-1, self.num_frames, *x_NCHW.shape[2:], seen_BPD.shape[-1])
        seen_NDHW = seen_BTHWD.permute(0, 1, 4, 2, 3).flatten(0, 1)
        y: Tensor = x_NCHW + self.bn(self.project(seen_NDHW))
        return y

    def _positions(self, x_NDHW: Tensor) -> Tensor:
        """``[B * T, D, H, W]`` → ``[B, T * H * W, D]``."""
        return split_clips(x_NDHW, self.num_frames).permute(0, 1, 3, 4, 2).flatten(1, 3)
