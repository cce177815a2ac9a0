"""BNInception (Inception with batch normalisation), the Caffe layout that TSN made popular.

Paper: Ioffe and Szegedy, "Batch Normalization", ICML 2015, https://arxiv.org/abs/1502.03167. Every convolution has a
bias; all pooling rounds up.
"""

import re

from torch import Tensor, nn

from actcli.models.backbones.inception import ConvUnit, InceptionBlock, average_pool, check_size, max_pool

# N = B * T frames, C channels, H W spatial

DIRECT_UNITS = tuple(
    f"inception_{block}.branches.{branch}"
    for block, branch in [
        ("3a", "direct"),
        ("3b", "direct"),
        ("3c", "one_3x3.0"),
        ("4a", "direct"),
        ("4b", "direct"),
        ("4c", "direct"),
        ("4d", "direct"),
        ("4e", "one_3x3.0"),
        ("5a", "direct"),
        ("5b", "direct"),
    ]
)
"""One 1x1 unit of every block: the direct branch, or the reduction before the 3x3 where there is none."""


class BNInception(nn.Module):
    """A stem in two stages and ten Inception blocks."""

    num_features = 1024

    def __init__(self) -> None:
        super().__init__()
        self.stem_1 = nn.Sequential(ConvUnit(3, 64, 7, stride=2), max_pool())
        self.stem_2 = nn.Sequential(ConvUnit(64, 64, 1), ConvUnit(64, 192, 3), max_pool())
        self.inception_3a = _block(192, 64, (64, 64), (64, 96), average_pool(), 32)
        self.inception_3b = _block(256, 64, (64, 96), (64, 96), average_pool(), 64)
        self.inception_3c = _halving_block(320, (128, 160), (64, 96))
        self.inception_4a = _block(576, 224, (64, 96), (96, 128), average_pool(), 128)
        self.inception_4b = _block(576, 192, (96, 128), (96, 128), average_pool(), 128)
        self.inception_4c = _block(576, 160, (128, 160), (128, 160), average_pool(), 128)
        self.inception_4d = _block(608, 96, (128, 192), (160, 192), average_pool(), 128)
        self.inception_4e = _halving_block(608, (128, 192), (192, 256))
        self.inception_5a = _block(1056, 352, (192, 320), (160, 224), average_pool(), 128)
        self.inception_5b = _block(1024, 352, (192, 320), (192, 224), max_pool(stride=1), 128)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, 1024]``."""
        check_size(x_NCHW, "BNInception", first=-1)
        for stage in self.children():
            x_NCHW = stage(x_NCHW)
        return x_NCHW.flatten(1)

    def blocks(self) -> list[InceptionBlock]:
        """The ten Inception blocks, in order."""
        return [child for child in self.children() if isinstance(child, InceptionBlock)]


def _block(
    in_channels: int, direct: int, single: tuple[int, int], double: tuple[int, int], pool: nn.Module, projected: int
) -> InceptionBlock:
    return InceptionBlock(
        direct=ConvUnit(in_channels, direct, 1),
        one_3x3=nn.Sequential(ConvUnit(in_channels, single[0], 1), ConvUnit(single[0], single[1], 3)),
        two_3x3=nn.Sequential(
            ConvUnit(in_channels, double[0], 1), ConvUnit(double[0], double[1], 3), ConvUnit(double[1], double[1], 3)
        ),
        pool=nn.Sequential(pool, ConvUnit(in_channels, projected, 1)),
    )


def _halving_block(in_channels: int, single: tuple[int, int], double: tuple[int, int]) -> InceptionBlock:
    return InceptionBlock(
        one_3x3=nn.Sequential(ConvUnit(in_channels, single[0], 1), ConvUnit(single[0], single[1], 3, stride=2)),
        two_3x3=nn.Sequential(
            ConvUnit(in_channels, double[0], 1),
            ConvUnit(double[0], double[1], 3),
            ConvUnit(double[1], double[1], 3, stride=2),
        ),
        pool=max_pool(),
    )


_STEM = {"conv1_7x7_s2": "stem_1.0", "conv2_3x3_reduce": "stem_2.0", "conv2_3x3": "stem_2.1"}
_BRANCHES = {
    "1x1": "direct",
    "3x3_reduce": "one_3x3.0",
    "3x3": "one_3x3.1",
    "double_3x3_reduce": "two_3x3.0",
    "double_3x3_1": "two_3x3.1",
    "double_3x3_2": "two_3x3.2",
    "pool_proj": "pool.1",
}


def unit_path(caffe_name: str) -> str:
    """``inception_3a_3x3_reduce`` → ``inception_3a.branches.one_3x3.0``; other names come back as they are."""
    if caffe_name in _STEM:
        return _STEM[caffe_name]
    match = re.fullmatch(r"(inception_\d\w)_(\w+)", caffe_name)
    if match is None or match[2] not in _BRANCHES:
        return caffe_name
    return f"{match[1]}.branches.{_BRANCHES[match[2]]}"


def our_name(caffe_key: str) -> str:
    """Name of a parameter in the Caffe layout → ours."""
    layer, _, parameter = caffe_key.rpartition(".")
    if layer.endswith("_bn"):
        return f"{unit_path(layer.removesuffix('_bn'))}.bn.{parameter}"
    return f"{unit_path(layer)}.conv.{parameter}"
