"""The fast form of every temporal block computes what its plain form says, and tracers meet the plain one."""

import pytest
import torch
from torch import nn

from actcli.models import create_model
from actcli.models.temporal._fast import plain_forms, use_fast
from actcli.models.temporal.depthwise import TemporalDepthwiseConv
from actcli.models.temporal.frames import FrameConv3d
from actcli.models.temporal.gate_shift import GateShift, GateShiftFuse
from actcli.models.temporal.shift import ShiftedConv2d, TemporalShift

FORMATS = [torch.contiguous_format, torch.channels_last]
BLOCKS = {
    "shift": lambda: TemporalShift(4, 4),
    "shifted convolution": lambda: ShiftedConv2d.from_conv(nn.Conv2d(8, 6, 3, padding=1), 4, 4),
    "gate-shift": lambda: _with_gates(GateShift(8, 4)),
    "gate-shift-fuse": lambda: _with_gates(GateShiftFuse(8, 4)),
    "gate-shift-fuse of half the channels": lambda: _with_gates(GateShiftFuse(8, 4, 0.5)),
    "depthwise": lambda: TemporalDepthwiseConv(8, 4),
    "3-D convolution": lambda: FrameConv3d(8, 2, (3, 3, 3), 4, groups=2),
    "1-D convolution over time": lambda: FrameConv3d(8, 2, (3, 1, 1), 4),
}


def _with_gates(block):
    nn.init.normal_(block.gate.weight)
    return block


def outcome(block, x):
    """Values and all gradients."""
    block.zero_grad()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = block(x)
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    return [y.detach(), x.grad, *(parameter.grad for parameter in block.parameters())]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("name", BLOCKS)
def test_values_and_gradients_of_both_forms_agree(name, memory_format):
    torch.manual_seed(0)
    block = BLOCKS[name]().to(memory_format=memory_format)
    x = torch.randn(8, 8, 5, 6).to(memory_format=memory_format)
    fast = outcome(block, x)
    with plain_forms():
        assert not use_fast()
        plain = outcome(block, x)
    assert use_fast()
    for found, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


MODELS = {
    "tsm": {"backbone": "resnet18"},
    "gsf": {"backbone": "resnet50"},
    "masnet": {},
    "lsnet": {},
    "tokshift": {"backbone": "vit_ti16", "image_size": 32},
}


@pytest.mark.parametrize("name", MODELS)
def test_an_exported_model_holds_plain_operators_and_gives_the_same_scores(name):
    torch.manual_seed(1)
    model = create_model(name, num_classes=5, num_frames=4, **MODELS[name]).eval()
    clip = torch.randn(2, 4, 3, 32, 32)
    with torch.inference_mode():
        expected = model(clip)
    program = torch.export.export(model, (clip,))
    assert "actcli" not in str(program.graph)
    torch.testing.assert_close(program.module()(clip), expected, rtol=1e-3, atol=1e-4)
