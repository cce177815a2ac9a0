"""The temporal blocks: values, gradients, and what they keep in memory."""

import pytest
import torch
from torch import nn

from actcli.models import create_model
from actcli.models.temporal._fast import shifted_in_place
from actcli.models.temporal.depthwise import TemporalDepthwiseConv
from actcli.models.temporal.frames import FrameBatchNorm3d, FrameConv3d
from actcli.models.temporal.motion import TemporalInterlacing
from actcli.models.temporal.non_local import NonLocal
from actcli.models.temporal.pool import TemporalMaxPool
from actcli.models.temporal.shift import ShiftedConv2d, shift_frames

FORMATS = [torch.contiguous_format, torch.channels_last]


def numbered_frames():
    """Two clips of three frames, four channels: value = 100 * clip + 10 * frame + channel."""
    clip, frame, channel = torch.arange(2), torch.arange(1, 4), torch.arange(4)
    x = 100 * clip[:, None, None] + 10 * frame[None, :, None] + channel
    return x.float().flatten(0, 1)[:, :, None, None]


SHIFTED = [
    [20, 0, 12, 13],
    [30, 11, 22, 23],
    [0, 21, 32, 33],
    [120, 0, 112, 113],
    [130, 111, 122, 123],
    [0, 121, 132, 133],
]


def test_a_quarter_comes_from_the_next_frame_and_a_quarter_from_the_last():
    assert shift_frames(numbered_frames(), num_frames=3, shift_div=4).flatten(1).tolist() == SHIFTED


def test_the_shift_in_place_equals_the_shift_and_is_undone():
    x = numbered_frames()
    with shifted_in_place(x, num_frames=3, fold=x.shape[1] // 4):
        assert x.flatten(1).tolist() == SHIFTED
    assert torch.equal(x, numbered_frames())


def test_the_gradient_of_the_shift_is_the_shift_the_other_way():
    x = torch.randn(6, 8, 2, 2, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: shift_frames(x, 3, 4), x)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_shifted_convolution_equals_shift_then_convolution(memory_format):
    x = torch.randn(6, 8, 5, 5).to(memory_format=memory_format).requires_grad_()
    plain = nn.Conv2d(8, 3, 1)
    expected = plain(shift_frames(x, 3, 8))
    gradients = torch.autograd.grad(expected.square().sum(), [x, plain.weight, plain.bias])
    shifted = ShiftedConv2d.from_conv(plain, 3, 8)
    got = shifted(x)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(
        torch.autograd.grad(got.square().sum(), [x, *shifted.parameters()]), gradients, strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    with torch.inference_mode():
        torch.testing.assert_close(shifted(x.detach().clone()), expected.detach())


def test_a_shifted_convolution_keeps_no_second_copy_of_its_input():
    tracker = pytest.importorskip("torch.distributed._tools.mem_tracker").MemTracker()
    convolution = ShiftedConv2d.from_conv(nn.Conv2d(64, 1, 1, bias=False), 4, 8)
    x = torch.randn(4, 64, 32, 32, requires_grad=True) * 1

    def live_bytes():
        return sum(int(kinds["Total"]) for kinds in tracker.get_tracker_snapshot("current").values())

    tracker.track_external(convolution, x)
    with tracker:
        before = live_bytes()
        y = convolution(x)
        assert live_bytes() - before < x.nbytes / 2
    y.sum().backward()
    assert convolution.weight.grad is not None


def test_only_every_other_block_of_resnet101_is_shifted():
    with torch.device("meta"):
        model = create_model("tsm", num_classes=2, backbone="resnet101")
    shifted = [
        [isinstance(block.conv1, ShiftedConv2d) for block in stage]
        for stage in (model.backbone.layer1, model.backbone.layer2, model.backbone.layer3, model.backbone.layer4)
    ]
    assert shifted[0] == [True, False, True]
    assert shifted[1] == [True, False, True, False]
    assert shifted[2] == [True, False] * 11 + [True]
    assert shifted[3] == [True, False, True]


def test_ten_blocks_of_mobilenet_are_shifted():
    with torch.device("meta"):
        model = create_model("tsm", num_classes=2, backbone="mobilenetv2")
    assert sum(isinstance(module, ShiftedConv2d) for module in model.modules()) == 10


def test_temporal_pooling_takes_the_maximum_of_three_frames_every_second_one():
    x = torch.tensor([3.0, 1, 2, 5, 4, 0, 7, 6])[:, None, None, None]  # two clips of four frames
    assert TemporalMaxPool(4)(x).flatten().tolist() == [3, 5, 4, 7]


def test_temporal_pooling_halves_the_frames_of_all_later_shifts_and_of_the_mean():
    with torch.device("meta"):
        model = create_model("tsm", num_classes=2, num_frames=8, backbone="resnet18", temporal_pool=True)
    assert model.backbone.layer1[0].conv1.num_frames == 8
    assert {block.conv1.num_frames for block in [*model.backbone.layer2, *model.backbone.layer4]} == {4}


@pytest.mark.parametrize(("kernel", "groups"), [((3, 3, 3), 2), ((3, 1, 1), 1), ((5, 3, 1), 1)])
def test_a_folded_3d_convolution_equals_the_library_one(kernel, groups):
    layer = FrameConv3d(4, 2, kernel, num_frames=3, groups=groups).double()
    x = torch.randn(6, 4, 5, 6, dtype=torch.double, requires_grad=True)
    clips = x.view(2, 3, 4, 5, 6).transpose(1, 2)
    expected = nn.functional.conv3d(clips, layer.weight, layer.bias, padding=layer.padding, groups=groups)
    torch.testing.assert_close(layer(x), expected.transpose(1, 2).flatten(0, 1))


def test_a_folded_3d_batch_norm_equals_the_library_one():
    layer = FrameBatchNorm3d(4)
    x = 3 + 2 * torch.randn(6, 4, 5, 5)
    expected = nn.BatchNorm3d(4)(x.view(2, 3, 4, 5, 5).transpose(1, 2))
    torch.testing.assert_close(layer(x), expected.transpose(1, 2).flatten(0, 1))


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_depthwise_convolution_over_time_equals_the_library_one(memory_format):
    layer = TemporalDepthwiseConv(4, num_frames=3).double()
    x = torch.randn(6, 4, 5, 5, dtype=torch.double).to(memory_format=memory_format).requires_grad_()
    clips = x.view(2, 3, 4, 25).permute(0, 3, 2, 1).reshape(50, 4, 3)
    expected = nn.functional.conv1d(clips, layer.weight, padding=1, groups=4)
    expected = expected.view(2, 25, 4, 3).permute(0, 3, 2, 1).reshape(6, 4, 5, 5)
    given = torch.randn(6, 4, 5, 5, dtype=torch.double)
    got = layer(x)
    torch.testing.assert_close(got, expected)
    for mine, theirs in zip(
        torch.autograd.grad(got, [x, layer.weight], given),
        torch.autograd.grad(expected, [x, layer.weight], given),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs)


def test_interlacing_starts_as_the_shift_of_tsm():
    x = torch.randn(6, 16, 3, 3)
    torch.testing.assert_close(TemporalInterlacing(16, num_frames=3)(x), shift_frames(x, 3, 8))


def test_a_new_non_local_block_is_an_identity_and_a_trained_one_sees_all_frames():
    block = NonLocal(8, num_frames=3).eval()
    x = torch.randn(3, 8, 4, 4)
    assert torch.equal(block(x), x)
    nn.init.ones_(block.bn.weight)
    changed = x.clone()
    changed[2] += 1
    assert (block(changed)[0] - block(x)[0]).abs().max() > 0


def lsnet_and_tsm():
    torch.manual_seed(0)
    lsnet = create_model("lsnet", num_classes=4, num_frames=2)
    tsm = create_model("tsm", num_classes=4, num_frames=2)
    own = lsnet.state_dict()
    tsm.load_state_dict({key: own[key] for key in tsm.state_dict()})
    return lsnet, tsm


def test_a_new_lsnet_gives_exactly_the_logits_of_tsm():
    lsnet, tsm = lsnet_and_tsm()
    clip = torch.randn(2, 2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(lsnet.eval()(clip), tsm.eval()(clip))


@pytest.mark.parametrize("kind", ["ShortAttention", "LongAttention"])
def test_each_module_of_lsnet_matters_after_one_step(kind):
    lsnet, _ = lsnet_and_tsm()
    nn.init.normal_(lsnet.classifier.weight, std=0.1)
    clip, labels = torch.randn(2, 2, 3, 32, 32), torch.tensor([0, 1])
    lsnet.dropout.p = 0
    optimiser = torch.optim.SGD(lsnet.parameters(), lr=1e-3)
    lsnet.training_loss((clip,), labels, nn.functional.cross_entropy)[0].backward()
    optimiser.step()
    with torch.no_grad():
        trained = lsnet(clip)
        for module in lsnet.modules():
            if type(module).__name__ == kind:
                nn.init.zeros_(module.expand.weight)
                if kind == "LongAttention":
                    nn.init.zeros_(module.neighbours.weight)
        assert (lsnet(clip) - trained).abs().max() > 1e-4 * trained.abs().max()


def test_st_mulnet_weighs_its_streams_in_training_and_averages_them_in_use():
    model = create_model("stmulnet", num_classes=3, num_frames=2).eval()
    inputs = (torch.randn(2, 2, 3, 32, 32), torch.randn(2, 2, 20, 32, 32))
    labels = torch.tensor([0, 2])
    with torch.no_grad():
        rgb, flow = model.stream_scores(*inputs)
        loss, logits = model.training_loss(inputs, labels, nn.functional.cross_entropy)
    expected = 0.75 * nn.functional.cross_entropy(rgb, labels) + nn.functional.cross_entropy(flow, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, (rgb + flow) / 2)
    assert logits.min() >= 0


@pytest.mark.parametrize("name", ["masnet", "gsm"])
def test_batch_of_one_is_an_option_of_masnet_alone(name):
    with torch.device("meta"):
        if name == "masnet":
            assert create_model(name, num_classes=2, batch_of_one=True).config["batch_of_one"] is True
        else:
            with pytest.raises(ValueError, match="batch_of_one"):
                create_model(name, num_classes=2, batch_of_one=True)


def test_no_class_of_a_fresh_st_mulnet_starts_where_its_relu_passes_no_gradient():
    model = create_model("stmulnet", num_classes=50, num_frames=2)
    model.reset_classifier(60)
    rgb, flow = torch.rand(2, 2, 3, 32, 32) * 255 - 110, torch.rand(2, 2, 20, 32, 32) * 255 - 127
    scores_BK = torch.cat(model.stream_scores(rgb, flow))
    assert scores_BK.shape == (4, 60)
    assert scores_BK.gt(0).all()
