"""torchvision's ResNets with places for temporal modules in every block.

The places of a bottleneck, empty (identity) unless a model fills them::

    entry ─┬─ conv1 bn1 relu ─ before_conv2 conv2 bn2 relu ─ before_conv3 conv3 before_bn3 bn3 ─ + ─ relu ─ exit
           └──────────────────────────────────────── shortcut ────────────────────────────────────┘
"""

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

# N = B * T frames, C channels, H W spatial


class FrameBasicBlock(BasicBlock):  # type: ignore[misc]
    """A basic block with an ``entry`` that residual branch and shortcut share."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.entry: nn.Module = nn.Identity()

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """As torchvision's, after ``entry``."""
        out: Tensor = super().forward(self.entry(x_NCHW))
        return out


class FrameBottleneck(Bottleneck):  # type: ignore[misc]
    """A bottleneck with the places drawn at the top of this file."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.entry: nn.Module = nn.Identity()
        self.before_conv2: nn.Module = nn.Identity()
        self.before_conv3: nn.Module = nn.Identity()
        self.before_bn3: nn.Module = nn.Identity()
        self.exit: nn.Module = nn.Identity()

    def forward(self, x_NCHW: Tensor, gate_NCHW: Tensor | None = None) -> Tensor:
        """As torchvision's where every place is empty; a gate multiplies what the residual branch sees."""
        x = self.entry(x_NCHW)
        out = x if gate_NCHW is None else x * gate_NCHW
        out = self.relu(self.bn1(self.conv1(out)))
        out = self.relu(self.bn2(self.conv2(self.before_conv2(out))))
        out = self.bn3(self.before_bn3(self.conv3(self.before_conv3(out))))
        out += x if self.downsample is None else self.downsample(x)
        y: Tensor = self.exit(self.relu(out))
        return y


def resnet18() -> ResNet:
    """ResNet-18."""
    return _resnet(FrameBasicBlock, [2, 2, 2, 2])


def resnet34() -> ResNet:
    """ResNet-34."""
    return _resnet(FrameBasicBlock, [3, 4, 6, 3])


def resnet50() -> ResNet:
    """ResNet-50, with the stride on the 3x3 convolution."""
    return _resnet(FrameBottleneck, [3, 4, 6, 3])


def resnet101() -> ResNet:
    """ResNet-101, with the stride on the 3x3 convolution."""
    return _resnet(FrameBottleneck, [3, 4, 23, 3])


def stages(network: nn.Module) -> list[nn.Sequential]:
    """The four stages of a ResNet."""
    return [network.get_submodule(f"layer{stage}") for stage in (1, 2, 3, 4)]  # type: ignore[misc]


def _resnet(block: type[FrameBasicBlock | FrameBottleneck], num_blocks: list[int]) -> ResNet:
    network = ResNet(block, num_blocks)
    network.num_features = network.fc.in_features
    network.fc = nn.Identity()
    return network
