"""Bytes become what a model takes, stream by stream."""

import pytest
import torch

from actcli.engine.inputs import model_inputs, seed_step
from actcli.loaders import Batch
from actcli.models import InputSpec

LABELS = torch.zeros(2, dtype=torch.int64)
GENERATOR = torch.Generator().manual_seed(0)
RGB = torch.randint(0, 256, (2, 3, 4, 3, 5, 5), dtype=torch.uint8, generator=GENERATOR)
FLOW = torch.randint(0, 256, (2, 3, 4, 10, 5, 5), dtype=torch.uint8, generator=GENERATOR)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)


def per_channel(values):
    return torch.tensor(values).view(-1, 1, 1)


def test_views_join_the_batch_and_pixels_are_normalised():
    (found,) = model_inputs(Batch(RGB, None, LABELS, LABELS), InputSpec("rgb", MEAN, STD))
    expected = (RGB.float() / 255 - per_channel(MEAN)) / per_channel(STD)
    torch.testing.assert_close(found, expected.flatten(0, 1))
    assert found.shape == (6, 4, 3, 5, 5)


def test_channels_can_be_in_the_other_order_and_range():
    spec = InputSpec("rgb", (104.0, 117.0, 128.0), (1.0,) * 3, channel_order="bgr", value_range=255.0)
    (found,) = model_inputs(Batch(RGB, None, LABELS, LABELS), spec)
    expected = RGB.float().flip(-3) - per_channel((104.0, 117.0, 128.0))
    torch.testing.assert_close(found, expected.flatten(0, 1))


def test_flow_is_never_put_in_another_order():
    spec = InputSpec("flow", (128.0,) * 10, (2.0,) * 10, channel_order="bgr", value_range=255.0, flow_stack=5)
    (found,) = model_inputs(Batch(None, FLOW, LABELS, LABELS), spec)
    torch.testing.assert_close(found, ((FLOW.float() - 128) / 2).flatten(0, 1))


def test_two_streams_come_in_the_order_of_forward_with_their_own_statistics():
    spec = InputSpec("two_stream", MEAN + (0.5,) * 10, STD + (0.1,) * 10, flow_stack=5)
    rgb, flow = model_inputs(Batch(RGB, FLOW, LABELS, LABELS), spec)
    expected = (RGB.float() / 255 - per_channel(MEAN)) / per_channel(STD)
    torch.testing.assert_close(rgb, expected.flatten(0, 1))
    torch.testing.assert_close(flow, ((FLOW.float() / 255 - 0.5) / 0.1).flatten(0, 1), rtol=1e-4, atol=1e-4)


def draw(*place):
    seed_step(*place)
    return torch.rand(4).tolist()


@pytest.mark.parametrize("other", [(1, 5, 0), (0, 6, 0), (0, 5, 1), (2**40, 5, 0)])
def test_what_dropout_draws_depends_on_seed_step_and_process(other):
    assert draw(0, 5, 0) == draw(0, 5, 0)
    assert draw(0, 5, 0) != draw(*other)
