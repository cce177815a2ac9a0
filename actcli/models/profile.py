"""What a model costs: parameters and multiply-accumulates, counted on the model itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from actcli.models.base import VideoModel
from actcli.models.factory import create_from_config

_BATCHED_PRODUCTS = ("bmm", "baddbmm", "scaled_dot_product")


@dataclass(frozen=True)
class ModelProfile:
    """Size and cost of a model for one clip."""

    parameters: int
    """Number of trained values."""
    macs: int
    """Multiply-accumulates of convolutions and matrix products; what the field calls FLOPs."""
    macs_without_attention: int
    """The same without products of two activations (attention, non-local), as layer-hook counters report."""
    input_shapes: tuple[tuple[int, ...], ...]
    """Shape of each input, one clip."""


def profile_model(name: str, *, num_classes: int, size: int | None = None, **options: object) -> ModelProfile:
    """Count parameters and multiply-accumulates without allocating or computing anything.

    Args:
        name: As for :func:`create_model`.
        num_classes: As for :func:`create_model`.
        size: Side of the frames in pixels; the published crop unless given.
        **options: As for :func:`create_model`.
    """
    return profile_config({"name": name, "num_classes": num_classes, **options}, size)


def profile_config(config: Mapping[str, object], size: int | None = None) -> ModelProfile:
    """:func:`profile_model` of a ``VideoModel.config``."""
    with torch.device("meta"):
        model = create_from_config(config).eval()
        inputs = example_inputs(model, size=size)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(*inputs)
    by_operator = counter.get_flop_counts()["Global"]
    batched = sum(
        count for operator, count in by_operator.items() if any(part in str(operator) for part in _BATCHED_PRODUCTS)
    )
    total = counter.get_total_flops()
    return ModelProfile(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=total // 2,
        macs_without_attention=(total - batched) // 2,
        input_shapes=tuple(tuple(tensor.shape) for tensor in inputs),
    )


def example_inputs(model: VideoModel, *, batch_size: int = 1, size: int | None = None) -> tuple[Tensor, ...]:
    """Standard-normal inputs as ``forward`` takes them, on torch's default device."""
    spec = model.input_spec
    side = size or spec.size
    channels = {"rgb": (3,), "flow": (2 * spec.flow_stack,), "two_stream": (3, 2 * spec.flow_stack)}[spec.modality]
    return tuple(torch.randn(batch_size, model.num_frames, count, side, side) for count in channels)
