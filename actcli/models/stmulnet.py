"""ST-MulNet: an appearance and a motion stream, the first gated by the second.

Paper: Feichtenhofer, Pinz, Wildes, "Spatiotemporal Multiplier Networks for Video Action Recognition", CVPR 2017; the
numbers follow the re-implementation https://github.com/mbiparva/spatiotemporal-multiplier-networks-pytorch. Two
ResNet-50s see the frames one by one, with two additions in each of the four stages::

    block 1, both streams   h = bn(conv3x1x1(relu(bn(conv3x3))))     the only place where frames meet
    block 2, RGB stream     x + F(x * flow_x)                        instead of x + F(x)

Scores of a stream: mean over space, maximum over time, a linear layer, ReLU. The clip's logits are the mean of both
streams, so they are never negative.
"""

from torch import Tensor, nn

from actcli.models.backbones.resnet import FrameBottleneck, resnet50, stages
from actcli.models.base import Criterion, InputSpec, VideoModel, check_frames
from actcli.models.registry import register, upstream
from actcli.models.temporal.frames import FrameBatchNorm3d, FrameConv3d, split_clips

# B clips, T frames, N = B * T, C channels, H W spatial, K classes

FLOW_STACK = 10
RGB_WEIGHT = 0.75
"""Weight of the RGB stream's loss; the flow stream's is 1."""
FIRST_SCORE = 10.0
"""Scores of new classifiers; a few steps at the rates of random weights move them by several units."""
_TEMPORAL_BLOCK, _GATED_BLOCK = 1, 2


class Stream(nn.Module):
    """One of the two networks; it hands out what its gated blocks see, and takes what the other's see."""

    def __init__(self, in_channels: int, num_classes: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.network = resnet50()
        self.network.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3)
        for stage in stages(self.network):
            block = stage[_TEMPORAL_BLOCK]
            assert isinstance(block, FrameBottleneck)
            block.before_conv3 = _temporal_convolution(block.conv2.out_channels, num_frames)
        self.classifier = _classifier(self.network.num_features, num_classes)

    def forward(self, frames_NCHW: Tensor, gates: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """``[N, C, H, W]`` → scores ``[B, K]`` and the input of the gated block of each stage."""
        network = self.network
        x = network.maxpool(network.relu(network.bn1(network.conv1(frames_NCHW))))
        seen = []
        for index, stage in enumerate(stages(network)):
            x = stage[:_GATED_BLOCK](x)
            seen.append(x)
            x = stage[_GATED_BLOCK](x, None if gates is None else gates[index])
            x = stage[_GATED_BLOCK + 1 :](x)
        pooled_BC = split_clips(x.mean((2, 3)), self.num_frames).amax(1)
        return self.classifier(pooled_BC).relu(), seen


def _classifier(num_features: int, num_classes: int) -> nn.Linear:
    """A layer whose scores start far above 0, where the ReLU after it would give a class no gradient any more.

    What all scores have in common changes neither loss nor prediction.
    """
    classifier = nn.Linear(num_features, num_classes)
    nn.init.normal_(classifier.weight, std=0.001)
    nn.init.constant_(classifier.bias, FIRST_SCORE)
    return classifier


def _temporal_convolution(channels: int, num_frames: int) -> nn.Sequential:
    convolution = FrameConv3d(channels, channels, (3, 1, 1), num_frames, bias=False)
    nn.init.dirac_(convolution.weight)  # starts by passing on the frame itself
    return nn.Sequential(convolution, FrameBatchNorm3d(channels))


class STMulNet(VideoModel):
    """The two streams."""

    input_spec = InputSpec(
        "two_stream",
        mean=(0.485 * 255, 0.456 * 255, 0.406 * 255) + (127.0,) * (2 * FLOW_STACK),
        std=(1.0,) * (3 + 2 * FLOW_STACK),
        value_range=255.0,
        size=112,
        scale_size=256,
        flow_stack=FLOW_STACK,
    )

    def __init__(self, num_classes: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.rgb_stream = Stream(3, num_classes, num_frames)
        self.flow_stream = Stream(2 * FLOW_STACK, num_classes, num_frames)

    def _make_classifier(self, num_classes: int) -> None:
        """Start both classifiers afresh."""
        for stream in (self.rgb_stream, self.flow_stream):
            stream.classifier = _classifier(stream.classifier.in_features, num_classes)

    def frame_networks(self) -> list[nn.Module]:
        """The two ResNets."""
        return [self.rgb_stream.network, self.flow_stream.network]

    def classifiers(self) -> list[nn.Module]:
        """Those of both streams."""
        return [self.rgb_stream.classifier, self.flow_stream.classifier]

    def forward(self, rgb_BTCHW: Tensor, flow_BTCHW: Tensor) -> Tensor:
        """``[B, T, 3, H, W]`` and ``[B, T, 20, H, W]`` (ten x, y pairs a frame) → logits ``[B, K]``, not negative."""
        rgb_BK, flow_BK = self.stream_scores(rgb_BTCHW, flow_BTCHW)
        return (rgb_BK + flow_BK) / 2

    def stream_scores(self, rgb_BTCHW: Tensor, flow_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Scores ``[B, K]`` of the RGB and of the flow stream."""
        check_frames(rgb_BTCHW, self.num_frames)
        check_frames(flow_BTCHW, self.num_frames)
        flow_BK, gates = self.flow_stream(flow_BTCHW.flatten(0, 1))
        rgb_BK, _ = self.rgb_stream(rgb_BTCHW.flatten(0, 1), gates)
        return rgb_BK, flow_BK

    def training_loss(self, inputs: tuple[Tensor, ...], labels: Tensor, criterion: Criterion) -> tuple[Tensor, Tensor]:
        """0.75 x the loss of the RGB stream plus that of the flow stream, and the mean of their scores."""
        rgb_BK, flow_BK = self.stream_scores(*inputs)
        loss = RGB_WEIGHT * criterion(rgb_BK, labels) + criterion(flow_BK, labels)
        return loss, (rgb_BK + flow_BK) / 2


@upstream("stmulnet")
def convert_stmulnet(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of the PyTorch re-implementation → ours; its 1 x k x k kernels become k x k."""
    return {_our_name(key): _our_shape(key, value) for key, value in state_dict.items()}


def _our_name(key: str) -> str:
    stream, _, name = key.partition(".")
    stream = {"spatial_stream": "rgb_stream", "temporal_stream": "flow_stream"}.get(stream, stream)
    if name.startswith("fc."):
        return f"{stream}.classifier.{name.removeprefix('fc.')}"
    name = (
        name.replace("sblock_", "")
        .replace("conv2_temporal", "before_conv3.0")
        .replace("bn2_temporal", "before_conv3.1")
    )
    return f"{stream}.network.{name}"


def _our_shape(key: str, value: Tensor) -> Tensor:
    if value.ndim != 5 or "conv2_temporal" in key:
        return value
    return value.flatten(1) if ".fc." in key else value.squeeze(2)


@register(backbones=("resnet50",), source="stmulnet", modality="two_stream")
def stmulnet(*, num_classes: int, num_frames: int = 11, backbone: str = "resnet50") -> STMulNet:
    """Spatiotemporal multiplier network: the motion stream gates the appearance stream."""
    return STMulNet(num_classes, num_frames)
