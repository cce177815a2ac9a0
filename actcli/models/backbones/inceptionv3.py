"""Inception-v3 in the layout of GSM and GSF: converted from TensorFlow, not torchvision's.

Paper: Szegedy et al., "Rethinking the Inception Architecture", CVPR 2016, https://arxiv.org/abs/1512.00567. Every
convolution has a bias, batch norm has eps 1e-5, all pooling rounds up, there is no auxiliary classifier, and frames of
229 pixels are published rather than 299.
"""

import re

from torch import Tensor, nn

from actcli.models.backbones.inception import ConvUnit, InceptionBlock, Parallel, average_pool, check_size, max_pool

# N = B * T frames, C channels, H W spatial


class InceptionV3(nn.Module):
    """A stem and eleven Inception blocks."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvUnit(3, 32, 3, stride=2, padding=0),
            ConvUnit(32, 32, 3, padding=0),
            ConvUnit(32, 64, 3),
            max_pool(),
            ConvUnit(64, 80, 1),
            ConvUnit(80, 192, 3, padding=0),
            max_pool(),
        )
        self.mixed = _five_by_five_block(192, 32)
        self.mixed_1 = _five_by_five_block(256, 64)
        self.mixed_2 = _five_by_five_block(288, 64)
        self.mixed_3 = InceptionBlock(
            direct=ConvUnit(288, 384, 3, stride=2, padding=0),
            tower=nn.Sequential(ConvUnit(288, 64, 1), ConvUnit(64, 96, 3), ConvUnit(96, 96, 3, stride=2, padding=0)),
            pool=max_pool(),
        )
        self.mixed_4 = _seven_by_one_block(128)
        self.mixed_5 = _seven_by_one_block(160)
        self.mixed_6 = _seven_by_one_block(160)
        self.mixed_7 = _seven_by_one_block(192)
        self.mixed_8 = InceptionBlock(
            tower=nn.Sequential(ConvUnit(768, 192, 1), ConvUnit(192, 320, 3, stride=2, padding=0)),
            tower_1=nn.Sequential(
                ConvUnit(768, 192, 1),
                ConvUnit(192, 192, (7, 1)),
                ConvUnit(192, 192, (1, 7)),
                ConvUnit(192, 192, 3, stride=2, padding=0),
            ),
            pool=max_pool(),
        )
        self.mixed_9 = _split_block(1280, average_pool())
        self.mixed_10 = _split_block(2048, max_pool(stride=1))
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """``[N, C, H, W]`` → ``[N, 2048]``."""
        check_size(x_NCHW, "Inception-v3", first=5)
        for stage in self.children():
            x_NCHW = stage(x_NCHW)
        return x_NCHW.flatten(1)

    def blocks(self) -> list[InceptionBlock]:
        """The eleven Inception blocks, in order."""
        return [child for child in self.children() if isinstance(child, InceptionBlock)]


def _five_by_five_block(in_channels: int, projected: int) -> InceptionBlock:
    return InceptionBlock(
        direct=ConvUnit(in_channels, 64, 1),
        tower=nn.Sequential(ConvUnit(in_channels, 48, 1), ConvUnit(48, 64, 5)),
        tower_1=nn.Sequential(ConvUnit(in_channels, 64, 1), ConvUnit(64, 96, 3), ConvUnit(96, 96, 3)),
        tower_2=nn.Sequential(average_pool(), ConvUnit(in_channels, projected, 1)),
    )


def _seven_by_one_block(width: int) -> InceptionBlock:
    return InceptionBlock(
        direct=ConvUnit(768, 192, 1),
        tower=nn.Sequential(ConvUnit(768, width, 1), ConvUnit(width, width, (7, 1)), ConvUnit(width, 192, (1, 7))),
        tower_1=nn.Sequential(
            ConvUnit(768, width, 1),
            ConvUnit(width, width, (1, 7)),
            ConvUnit(width, width, (7, 1)),
            ConvUnit(width, width, (1, 7)),
            ConvUnit(width, 192, (7, 1)),
        ),
        tower_2=nn.Sequential(average_pool(), ConvUnit(768, 192, 1)),
    )


def _split_block(in_channels: int, pool: nn.Module) -> InceptionBlock:
    return InceptionBlock(
        direct=ConvUnit(in_channels, 320, 1),
        tower=nn.Sequential(ConvUnit(in_channels, 384, 1), _split()),
        tower_1=nn.Sequential(ConvUnit(in_channels, 448, 1), ConvUnit(448, 384, 3), _split()),
        tower_2=nn.Sequential(pool, ConvUnit(in_channels, 192, 1)),
    )


def _split() -> Parallel:
    return Parallel({"mixed_conv": ConvUnit(384, 384, (3, 1)), "mixed_conv_1": ConvUnit(384, 384, (1, 3))})


_STEM = {"conv": "stem.0", "conv_1": "stem.1", "conv_2": "stem.2", "conv_3": "stem.4", "conv_4": "stem.5"}
_SPLIT_POSITION = {"tower": 1, "tower_1": 2}


def unit_path(tensorflow_name: str) -> str:
    """``mixed_4_tower_1_conv_2`` → ``mixed_4.branches.tower_1.2``; unknown names come back as they are."""
    if tensorflow_name in _STEM:
        return _STEM[tensorflow_name]
    match = re.fullmatch(r"(mixed(?:_\d+)?)(?:_(tower(?:_\d)?))?_(mixed_)?conv(?:_(\d))?", tensorflow_name)
    if match is None:
        return tensorflow_name
    block, tower, split, position = match.groups()
    if tower is None:
        return f"{block}.branches.direct"
    if split:
        name = "mixed_conv_1" if position else "mixed_conv"
        return f"{block}.branches.{tower}.{_SPLIT_POSITION[tower]}.{name}"
    # the pooling branch starts with the pooling, its only unit is at position 1
    return f"{block}.branches.{tower}.{1 if tower == 'tower_2' else position or 0}"


def our_name(tensorflow_key: str) -> str:
    """Name of a parameter in the TensorFlow conversion → ours."""
    layer, _, parameter = tensorflow_key.rpartition(".")
    if layer.endswith("_batchnorm"):
        return f"{unit_path(layer.removesuffix('_batchnorm'))}.bn.{parameter}"
    return f"{unit_path(layer.removesuffix('_Conv2D'))}.conv.{parameter}"
