"""The gated shift against its definition, step by step."""

import pytest
import torch
from torch import nn

from actcli.models.temporal.gate_shift import GateShift, GateShiftFuse

T, C, H = 3, 8, 4


def shifted(x_BTCHW, step):
    """Frame t takes from t + step, zeros outside the clip."""
    out = torch.zeros_like(x_BTCHW)
    if step == 1:
        out[:, :-1] = x_BTCHW[:, 1:]
    else:
        out[:, 1:] = x_BTCHW[:, :-1]
    return out


def by_definition(module, x_NCHW):
    """The module with true 3-D layers on ``[B, C, T, H, W]`` and one step at a time."""
    x = x_NCHW.view(-1, T, C, H, H)
    x_BCTHW = x.transpose(1, 2)
    norm = nn.functional.batch_norm(x_BCTHW, None, None, module.bn.weight, module.bn.bias, training=True)
    conv = nn.functional.conv3d(norm.relu(), module.gate.weight, module.gate.bias, padding=1, groups=2)
    gate = torch.tanh(conv).transpose(1, 2)
    halves = []
    for half, step in enumerate((1, -1)):
        part = x[:, :, half * C // 2 : (half + 1) * C // 2]
        gated = part * gate[:, :, half : half + 1]
        moved, rest = shifted(gated, step), part - gated
        if isinstance(module, GateShiftFuse):
            pooled = torch.stack([moved.mean((3, 4)), rest.mean((3, 4))], 1).transpose(2, 3)
            weight = (module.fuse_1, module.fuse_2)[half](pooled).sigmoid()[:, 0].transpose(1, 2)[..., None, None]
            half_out = weight * moved + (1 - weight) * rest
        else:
            half_out = moved + rest
        order = [j * C // 4 + k for k in range(C // 4) for j in range(2)]
        halves.append(half_out[:, :, order])
    return torch.cat(halves, 2).flatten(0, 1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", [GateShift, GateShiftFuse])
def test_output_and_gradients_are_those_of_the_definition(kind, memory_format):
    torch.manual_seed(0)
    module = kind(C, T).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2 * T, C, H, H, dtype=torch.double).to(memory_format=memory_format).requires_grad_()
    given = torch.randn(x.shape, dtype=torch.double)
    inputs = [x, *module.parameters()]
    ours, definition = module(x), by_definition(module, x)
    torch.testing.assert_close(ours, definition)
    assert ours.is_contiguous(memory_format=memory_format)
    got = torch.autograd.grad(ours, inputs, given)
    for mine, expected in zip(got, torch.autograd.grad(definition, inputs, given), strict=True):
        torch.testing.assert_close(mine, expected)


def test_a_new_gsm_gate_only_permutes_the_channels():
    x = torch.randn(T, C, H, H)
    assert torch.equal(GateShift(C, T)(x), x[:, [0, 2, 1, 3, 4, 6, 5, 7]])


def test_a_channel_ratio_leaves_the_rest_of_the_channels_alone():
    module = GateShiftFuse(16, T, channel_ratio=0.5)
    x = torch.randn(T, 16, H, H)
    y = module(x)
    assert torch.equal(y[:, 8:], x[:, 8:])
    assert not torch.equal(y[:, :8], x[:, :8])
