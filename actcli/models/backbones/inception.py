"""What BNInception and Inception-v3 are made of: convolution units and blocks of parallel branches."""

import torch
from torch import Tensor, nn

from actcli.errors import ActcliError

# N = B * T frames, C channels, H W spatial

Size = int | tuple[int, int]


class ConvUnit(nn.Module):
    """Convolution with bias, batch norm, ReLU; a temporal module may sit before the batch norm."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Size, stride: int = 1, padding: Size | None = None
    ) -> None:
        """``padding`` keeps the size unless it is given."""
        super().__init__()
        if padding is None:
            padding = kernel // 2 if isinstance(kernel, int) else (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        self.before_bn: nn.Module = nn.Identity()
        self.bn = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU(inplace=True)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, in_channels, H, W]`` → ``[N, out_channels, H', W']``."""
        y: Tensor = self.relu(self.bn(self.before_bn(self.conv(x_NCHW))))
        return y


class Parallel(nn.ModuleDict):
    """Branches that read the same tensor; their outputs are put side by side in the order of the branches."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, sum of the branches' channels, H', W']``."""
        return torch.cat([branch(x_NCHW) for branch in self.values()], dim=1)


class InceptionBlock(nn.Module):
    """Parallel branches behind an ``entry`` that all of them share (identity unless a model fills it)."""

    def __init__(self, **branches: nn.Module) -> None:
        """Name the branches in the order of their channels."""
        super().__init__()
        self.entry: nn.Module = nn.Identity()
        self.branches = Parallel(branches)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, C', H', W']``."""
        y: Tensor = self.branches(self.entry(x_NCHW))
        return y


def check_size(x_NCHW: Tensor, name: str, first: int) -> None:
    """Raise :class:`ActcliError` unless both sides are of the ``32 n + first`` and the seven sizes above.

    On other sizes the padded branches of a halving block give one row more than its pooling branch.
    """
    for side in x_NCHW.shape[2:]:
        if side < 64 or (side - first) % 32 > 7:
            raise ActcliError(
                f"{name} got frames of {x_NCHW.shape[3]} x {x_NCHW.shape[2]} pixels; its branches only fit together "
                f"for sides of 32 n {first:+d} to 32 n {first + 7:+d}, n at least 2."
            )


def max_pool(stride: int = 2) -> nn.MaxPool2d:
    """3x3 maximum, without padding where it halves the size."""
    return nn.MaxPool2d(3, stride, padding=0 if stride == 2 else 1, ceil_mode=True)


def average_pool() -> nn.AvgPool2d:
    """3x3 mean that keeps the size and counts the padding."""
    return nn.AvgPool2d(3, 1, padding=1, ceil_mode=True, count_include_pad=True)
