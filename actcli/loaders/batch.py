"""What a loader hands out, and what is done with it on the device: normalisation, mixup and cutmix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from actcli.errors import ActcliError

# B batch, V views (test clips x crops), T frames, C channels, H W pixels


@dataclass(frozen=True)
class Batch:
    """Clips with their labels; pixels are uint8 and lie channels-last in memory for RGB."""

    rgb: Tensor | None
    """RGB clips, uint8 ``[B, V, T, 3, H, W]``."""
    flow: Tensor | None
    """Flow clips, uint8 ``[B, V, T, 2 * stack, H, W]``, x and y in turn."""
    labels: Tensor
    """int64 ``[B]``; already exchanged where a mirrored clip belongs to another class, -1 where there is none."""
    keys: Tensor
    """int64 ``[B]``: the clip's 9-digit key as a number (``f"{key:09d}"`` writes it out)."""

    @property
    def clips(self) -> Tensor:
        """The clips of a batch of one modality, ``[B, V, T, C, H, W]``."""
        if self.rgb is not None and self.flow is not None:
            raise ActcliError("this batch has two modalities; use batch.rgb and batch.flow.")
        clips = self.rgb if self.rgb is not None else self.flow
        assert clips is not None
        return clips

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.labels)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on ``device``, still uint8."""

        def move(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.to(device, non_blocking=non_blocking)

        labels, keys = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.labels, self.keys))
        return Batch(move(self.rgb), move(self.flow), labels, keys)

    def pinned(self) -> "Batch":
        """The same batch in page-locked memory, from which a GPU copies while the program goes on."""
        rgb, flow = (None if clips is None else clips.pin_memory() for clips in (self.rgb, self.flow))
        return Batch(rgb, flow, self.labels.pin_memory(), self.keys.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tell torch that the CUDA stream ``stream`` uses this memory, which was made on another."""
        for tensor in (self.rgb, self.flow, self.labels, self.keys):
            if tensor is not None:
                tensor.record_stream(stream)

    def copy(self) -> "Batch":
        """The same batch in memory of its own."""
        rgb, flow = (None if clips is None else clips.clone() for clips in (self.rgb, self.flow))
        return replace(self, rgb=rgb, flow=flow)


@dataclass(frozen=True)
class Normalise:
    """Turns uint8 pixels into what a model takes, in one pass on the device where they are."""

    mean: Sequence[float]
    """Per channel in ``channel_order``; a shorter sequence is repeated over the channels (flow)."""
    std: Sequence[float]
    channel_order: str = "rgb"
    """``rgb`` or ``bgr``; flow has no order."""
    value_range: float = 1.0
    """What 255 stands for before the mean is subtracted: 1.0 or 255.0."""

    def __call__(self, clips: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """``clips [..., C, H, W]`` uint8 -> contiguous ``[..., C, H, W]`` of ``dtype``."""
        num_channels = clips.shape[-3]
        if self.channel_order == "bgr":
            clips = clips.flip(-3)
        mean, std = (self._per_channel(values, num_channels, clips.device, dtype) for values in (self.mean, self.std))
        factor = self.value_range / 255 / std
        out = torch.empty(clips.shape, dtype=dtype, device=clips.device)
        return torch.addcmul(-mean / std, clips, factor, out=out)

    @staticmethod
    def _per_channel(values: Sequence[float], num_channels: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        if num_channels % len(values):
            raise ActcliError(f"mean and std have {len(values)} values for {num_channels} channels.")
        row = torch.tensor(values, device=device, dtype=dtype).repeat(num_channels // len(values))
        return row.view(num_channels, 1, 1)


@dataclass(frozen=True)
class MixUp:
    """Mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019) of clips, on the device.

    The draws depend on (seed, step) alone, so a resumed run mixes the same clips. Clip ``i`` is mixed with clip
    ``B - 1 - i``; the batch is mixed as a whole.
    """

    num_classes: int
    mixup_alpha: float = 0.8
    """Beta parameter of mixup; 0 switches it off."""
    cutmix_alpha: float = 0.0
    """Beta parameter of cutmix; 0 switches it off."""
    probability: float = 1.0
    """Chance that a batch is mixed at all."""
    switch_probability: float = 0.5
    """Chance of cutmix where both are on."""
    label_smoothing: float = 0.0
    seed: int = 0

    def __call__(self, inputs: tuple[Tensor, ...], labels: Tensor, step: int) -> tuple[tuple[Tensor, ...], Tensor]:
        """Mix every input ``[B, T, C, H, W]`` alike; gives the soft targets ``[B, num_classes]``."""
        rng = np.random.Generator(np.random.Philox(key=[self.seed, step], counter=[0, 0, 0, 2]))
        weight, use_cutmix = self._draw(rng)
        if use_cutmix:
            height, width = inputs[0].shape[-2:]
            rows, columns = _box(weight, rng.random(2), height, width)
            weight = 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
            mixed = tuple(_cut_in(clips, rows, columns) for clips in inputs)
        else:
            mixed = tuple(clips.lerp(clips.flip(0), 1 - weight) for clips in inputs)
        return mixed, self._targets(labels, weight)

    def _targets(self, labels: Tensor, weight: float) -> Tensor:
        targets = one_hot(labels, self.num_classes).float()
        targets = targets * (1 - self.label_smoothing) + self.label_smoothing / self.num_classes
        return targets.lerp(targets.flip(0), 1 - weight)

    def _draw(self, rng: np.random.Generator) -> tuple[float, bool]:
        """The weight of the clip itself and whether the rest is cut in (or blended)."""
        mixes, switches = rng.random() < self.probability, rng.random() < self.switch_probability
        use_cutmix = self.cutmix_alpha > 0 and (switches or self.mixup_alpha <= 0)
        alpha = self.cutmix_alpha if use_cutmix else self.mixup_alpha
        if not mixes or alpha <= 0:
            return 1.0, False
        return float(rng.beta(alpha, alpha)), use_cutmix


def _box(weight: float, centre: NDArray[np.float64], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box that covers ``1 - weight`` of the picture, cut off at its edges."""
    side = (1 - weight) ** 0.5
    edges = [(int(at * size), int(side * size / 2)) for at, size in zip(centre, (height, width), strict=True)]
    rows, columns = (
        slice(max(middle - half, 0), min(middle + half, size))
        for (middle, half), size in zip(edges, (height, width), strict=True)
    )
    return rows, columns


def _cut_in(clips: Tensor, rows: slice, columns: slice) -> Tensor:
    mixed = clips.clone()
    mixed[..., rows, columns] = clips.flip(0)[..., rows, columns]
    return mixed
