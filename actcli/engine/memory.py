"""What a training step takes, and how to cut a batch that does not fit."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models import create_from_config
from actcli.models.profile import example_inputs

_USABLE = 0.75
"""Share of the free memory that a step may take; the rest is for workspaces, validation and other programs."""
_WORKSPACE = 1.2
"""What a step takes beside the activations that autograd keeps, as measured by ``benchmarks/memory.py``."""
_COPIES = 4
"""Weights, gradients, momentum, and one copy while a checkpoint is written."""
_BYTES = 4
_COUNTED_CLIPS = 2
"""Batch norms refuse a single clip where only one position is left of a small picture."""


@dataclass(frozen=True)
class StepMemory:
    """What one training step takes, in bytes."""

    fixed: int
    """Weights, gradients and momentum."""
    per_clip: int
    """Activations of one clip."""

    def of(self, clips: int) -> int:
        """A forward and backward pass of ``clips`` clips at once."""
        return self.fixed + clips * self.per_clip

    def fitting_clips(self, available: int) -> int:
        """Clips that fit at once into ``available`` bytes; 1 at least, which may turn out to be too many."""
        return max(1, int((_USABLE * available - self.fixed) // self.per_clip))


def step_memory(config: Mapping[str, object], size: int) -> StepMemory:
    """Count what one clip keeps for the backward pass, without allocating or computing anything.

    Args:
        config: The model, as in ``VideoModel.config``.
        size: Side of the frames in pixels.
    """
    with torch.device("meta"):
        model = create_from_config(config).train().to(memory_format=torch.channels_last)
        inputs = example_inputs(model, batch_size=_COUNTED_CLIPS, size=size)
        labels = torch.zeros(_COUNTED_CLIPS, dtype=torch.long)
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.training_loss(inputs, labels, nn.CrossEntropyLoss())
    activations = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in weights)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    return StepMemory(_COPIES * _BYTES * num_weights, max(1, int(_WORKSPACE * activations / _COUNTED_CLIPS)))


def micro_batch_size(batch_size: int, fitting: int) -> int:
    """Clips per pass, so that a batch is cut into the fewest parts of nearly equal size.

    16 clips, 5 fit  ->  4     (4 + 4 + 4 + 4 rather than 5 + 5 + 5 + 1)
    """
    num_parts = -(-batch_size // max(1, fitting))
    return -(-batch_size // num_parts)


@contextmanager
def told_what_to_lower(what: str, micro_batch: int, continue_with: str) -> Iterator[None]:
    """Turn the lack of memory for a step into a sentence that says what to lower.

    Args:
        what: The clips, in words.
        micro_batch: Clips that went through the network at once.
        continue_with: Command that goes on from the last checkpoint.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fewer = f"--micro-batch {micro_batch // 2}, " if micro_batch > 1 else ""
        raise ActcliError(
            f"there is not enough memory for {micro_batch} {what} at once. Lower one of: {fewer}--frames, --size, or "
            f"take a smaller --backbone. The last checkpoint, if there is one, is whole; fewer clips at once are "
            f"possible from there: {continue_with} --micro-batch {max(1, micro_batch // 2)}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or on the host."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
