"""From a batch of bytes to the tuple of tensors that a model takes."""

import numpy as np
import torch
from torch import Tensor

from actcli.loaders import Batch, Normalise
from actcli.models import InputSpec

NUM_RGB_CHANNELS = 3


def model_inputs(batch: Batch, spec: InputSpec) -> tuple[Tensor, ...]:
    """Normalised streams of a batch, ``[B * V, T, C, H, W]`` each, in the order in which ``forward`` takes them."""
    streams = [stream for stream in (batch.rgb, batch.flow) if stream is not None]
    return tuple(normalise(stream).flatten(0, 1) for stream, normalise in zip(streams, _normalisers(spec), strict=True))


def _normalisers(spec: InputSpec) -> list[Normalise]:
    if spec.modality == "flow":
        return [Normalise(spec.mean, spec.std, "rgb", spec.value_range)]
    rgb = slice(0, NUM_RGB_CHANNELS)
    normalisers = [Normalise(spec.mean[rgb], spec.std[rgb], spec.channel_order, spec.value_range)]
    if spec.modality == "two_stream":
        flow = slice(NUM_RGB_CHANNELS, None)
        normalisers.append(Normalise(spec.mean[flow], spec.std[flow], "rgb", spec.value_range))
    return normalisers


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed torch for one training step, so that what dropout draws depends on the step alone.

    A run that is resumed at any step then draws what an undisturbed run draws, with no generator state to keep.
    """
    torch.manual_seed(int(np.random.SeedSequence((seed, rank, step)).generate_state(1, np.uint64)[0]))
