"""The operations of ``augment`` in torch, for pixels that are already on a device."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, grid_sample, pad

from actcli.loaders.augment import FILL, SMOOTH, Operation, erased_box, pixel_affine

# T frames, H W pixels, C channels


def apply_torch(clip: Tensor, operations: tuple[Operation, ...]) -> Tensor:
    """A changed copy of a clip ``[T, H, W, 3]``, uint8, on its device.

    The result is that of ``apply_numpy`` up to rounding in ``affine``, ``sharpen`` and ``matrix``.
    """
    clip_THWC = clip.clone()
    height, width = clip.shape[1:3]
    for name, numbers in operations:
        match name:
            case "lut":
                clip_THWC = torch.tensor(numbers, dtype=torch.uint8, device=clip.device)[clip_THWC.int()]
            case "matrix":
                matrix = torch.tensor(numbers, dtype=torch.float32, device=clip.device).view(3, 4)
                clip_THWC = _round(clip_THWC.float() @ matrix[:, :3].T + matrix[:, 3])
            case "erase":
                rows, columns = erased_box(numbers, height, width)
                clip_THWC[:, rows, columns] = torch.tensor(FILL, dtype=torch.uint8, device=clip.device)
            case "affine":
                clip_THWC = _warp(clip_THWC, numbers)
            case "sharpen":
                clip_THWC = _sharpen(clip_THWC, numbers[0])
            case "autocontrast":
                clip_THWC = _autocontrast(clip_THWC)
            case "equalise":
                clip_THWC = _equalise(clip_THWC)
    return clip_THWC


def _round(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _warp(clip_THWC: Tensor, numbers: tuple[float, ...]) -> Tensor:
    num_frames, height, width, _ = clip_THWC.shape
    affine = torch.from_numpy(pixel_affine(numbers, height, width)).float().to(clip_THWC.device)
    y, x = torch.meshgrid(
        *(torch.arange(side, device=clip_THWC.device).float() for side in (height, width)), indexing="ij"
    )
    grid = torch.stack([x, y, torch.ones_like(x)], -1) @ affine.T  # H W 2, in pixels of the input
    grid = (2 * grid + 1) / torch.tensor([width, height], device=grid.device) - 1
    fill = torch.tensor(FILL, device=clip_THWC.device).float()
    moved_TCHW = grid_sample(
        (clip_THWC.float() - fill).movedim(-1, 1), grid.expand(num_frames, -1, -1, -1), align_corners=False
    )
    return _round(moved_TCHW.movedim(1, -1) + fill)


def _sharpen(clip_THWC: Tensor, factor: float) -> Tensor:
    kernel = torch.from_numpy(SMOOTH).float().to(clip_THWC.device).expand(3, 1, 3, 3)
    clip_TCHW = clip_THWC.movedim(-1, 1).float()
    smooth_TCHW = _round(conv2d(pad(clip_TCHW, (1, 1, 1, 1), "replicate"), kernel, groups=3)).float()
    return _round(factor * clip_TCHW + (1 - factor) * smooth_TCHW).movedim(1, -1)


def _autocontrast(clip_THWC: Tensor) -> Tensor:
    values = clip_THWC.float()
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    stretched = (values - low) * 255 / (high - low).clamp(min=1)
    return torch.where(high > low, _round(stretched), clip_THWC)


def _equalise(clip_THWC: Tensor) -> Tensor:
    frames = []
    for frame in clip_THWC:
        channels = [frame[..., channel] for channel in range(3)]
        frames.append(torch.stack([_equalise_channel(channel) for channel in channels], -1))
    return torch.stack(frames)


def _equalise_channel(values: Tensor) -> Tensor:
    """As OpenCV: the darkest value that occurs goes to 0, the rest by the share of pixels above it."""
    counts = torch.bincount(values.reshape(-1).int(), minlength=256)
    first = int(counts.nonzero()[0])
    rest = values.numel() - int(counts[first])
    if not rest:
        return values
    below = counts.cumsum(0) - counts[: first + 1].sum()
    table: Tensor = _round(below.float() * float(np.float32(255.0 / rest)))
    table[: first + 1] = 0
    return table[values.int()]
