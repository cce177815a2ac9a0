"""Random changes of the training clips: drawn once per clip as plain numbers, carried out by OpenCV or by torch.

Whatever changes pixels is one of a few *operations*, each with its numbers:

    lut           256 values                        brightness, gamma, solarise, posterise, invert
    matrix        3 x 4, applied to (r, g, b, 1)    saturation, hue, contrast
    affine        2 x 3, output pixel -> input      rotate, shear, translate (in fractions of the picture)
    sharpen       1 factor
    autocontrast  none
    equalise      none
    erase         x, y, width, height in fractions of the picture

All frames of a clip get the same operations, after the crop. Both executors round to the nearest value and clamp to
0..255 after each operation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders.views import (
    Crop,
    Size,
    ViewRule,
    center_crop,
    multi_scale_crop,
    random_corner_crop,
    random_resized_crop,
    short_side_crop,
    stored_box,
)

Pixels = NDArray[np.uint8]
Operation = tuple[str, tuple[float, ...]]
Range = tuple[float, float]


@dataclass(frozen=True)
class ColourJitter:
    """Ranges of random colour changes; ``None`` leaves a property alone."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    brightness: Range | None = None
    """Factor on all values."""
    contrast: Range | None = None
    """Factor on the distance from mid-grey."""
    saturation: Range | None = None
    """Factor on the distance from the grey of the same luma."""
    gamma: Range | None = None
    """Exponent."""
    hue: Range | None = None
    """Turn around the grey axis (in YIQ), in full turns."""
    probability: float = 1.0
    """Chance of each property, independently."""


CropRule = Literal["multi_scale", "random_resized", "short_side", "corner", "center"]


@dataclass(frozen=True)
class Augmentation:
    """What training changes at random. The defaults are those of TSM."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    crop: CropRule = "multi_scale"
    """How the training crop is drawn."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    """``multi_scale``: sides as fractions of the short side."""
    area: Range = (0.08, 1.0)
    """``random_resized``: area of the box as a fraction of the frame."""
    aspect: Range = (3 / 4, 4 / 3)
    """``random_resized``: width by height."""
    short_side: tuple[int, int] | None = None
    """``short_side``: range of the short side, end exclusive; ``None``: from the input size to 330 / 224 of it."""
    corner_scale: Range = (0.66, 1.0)
    """``corner``: side of the box as a fraction of the short side."""
    corner_border: float = 0.25
    """``corner``: how far a corner box may move inwards, as a fraction of the free space."""
    flip: float = 0.5
    """Chance of mirroring, where the dataset allows it."""
    colour_jitter: ColourJitter | None = None
    rand_augment: tuple[int, float] | None = None
    """Number of operations and magnitude 0..10 of RandAugment."""
    erasing: float = 0.0
    """Chance of blanking a random box."""

    def __post_init__(self) -> None:
        """Refuse unknown crops, chances outside 0..1 and magnitudes outside 0..10."""
        if self.crop not in get_args(CropRule):
            raise ActcliError(f"unknown crop {self.crop!r}. Choose {', '.join(get_args(CropRule))}.")
        chances = [self.flip, self.erasing, self.colour_jitter.probability if self.colour_jitter else 0]
        if any(not 0 <= chance <= 1 for chance in chances):
            raise ActcliError(f"chances of flip, erasing and colour jitter must lie in 0..1, got {chances}.")
        if self.rand_augment and not 0 <= self.rand_augment[1] <= 10:
            raise ActcliError(f"the magnitude of RandAugment must lie in 0..10, got {self.rand_augment[1]}.")

    def changes_pixels(self) -> bool:
        """Whether anything beyond the crop and the flip is drawn."""
        return bool(self.colour_jitter or self.rand_augment or self.erasing)

    def draw_crop(self, frame: Size, size: int, scale_size: int, rule: ViewRule, rng: np.random.Generator) -> Crop:
        """The training box on a stored frame."""
        match self.crop:
            case "multi_scale":
                return multi_scale_crop(frame, size, self.scales, rng)
            case "random_resized":
                return random_resized_crop(frame, self.area, self.aspect, rng)
            case "short_side":
                return short_side_crop(frame, size, self.short_side or (size, size * 330 // 224), rng)
            case "corner":
                return random_corner_crop(frame, scale_size, self.corner_scale, self.corner_border, rng)
        resized = rule.resize(frame, scale_size)
        return stored_box(center_crop(resized, scale_size if rule.crop_is_scale else size), resized, frame)

    def draw_operations(self, rng: np.random.Generator) -> tuple[Operation, ...]:
        """What happens to the pixels of one clip."""
        operations: list[Operation] = []
        if self.colour_jitter:
            operations += _draw_jitter(self.colour_jitter, rng)
        if self.rand_augment:
            operations += _draw_rand_augment(*self.rand_augment, rng)
        if self.erasing and rng.random() < self.erasing:
            operations.append(_draw_erase(rng))
        return tuple(operations)


# --- Draws ------------------------------------------------------------------------------------------------------------


def _draw_jitter(jitter: ColourJitter, rng: np.random.Generator) -> list[Operation]:
    makers: list[tuple[Range | None, Callable[[float], Operation]]] = [
        (jitter.brightness, brightness),
        (jitter.contrast, contrast),
        (jitter.saturation, saturation),
        (jitter.gamma, gamma),
        (jitter.hue, hue),
    ]
    return [
        make(rng.uniform(*limits))
        for limits, make in makers
        if limits is not None and rng.random() < jitter.probability
    ]


_MAGNITUDE_STD = 0.5
_ERASE_AREA, _ERASE_ASPECT = (0.02, 1 / 3), (0.3, 1 / 0.3)


def _draw_rand_augment(num_operations: int, magnitude: float, rng: np.random.Generator) -> list[Operation]:
    """``num_operations`` of 15, repetition allowed, each applied with chance 1/2 at about ``magnitude``.

    Operations and magnitudes are those of timm's RandAugment, which GSF trains with; GSF applies them before the crop.
    """
    operations = []
    for choice in rng.integers(len(_RAND_AUGMENT), size=num_operations):
        level = float(np.clip(rng.normal(magnitude, _MAGNITUDE_STD), 0, 10)) / 10
        sign = 1.0 if rng.random() < 0.5 else -1.0
        if rng.random() < 0.5:
            operations.append(_RAND_AUGMENT[choice](level, sign))
    return operations


def _draw_erase(rng: np.random.Generator) -> Operation:
    """A box of random area and shape, as in Random Erasing (Zhong et al. 2020), in fractions of the picture."""
    area = rng.uniform(*_ERASE_AREA)
    ratio = math.exp(rng.uniform(*np.log(_ERASE_ASPECT)))
    width, height = min(math.sqrt(area * ratio), 1.0), min(math.sqrt(area / ratio), 1.0)
    return "erase", (rng.uniform(0, 1 - width), rng.uniform(0, 1 - height), width, height)


# --- Operations -------------------------------------------------------------------------------------------------------

_LUMA = np.array([0.299, 0.587, 0.114])
_RAMP = np.arange(256.0)
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
FILL = (124, 116, 104)
"""What shows where an operation has no picture: the mean colour of ImageNet."""


def _lut(values: NDArray[np.float64]) -> Operation:
    return "lut", tuple(np.clip(np.rint(values), 0, 255))


def _matrix(colours: NDArray[np.float64], offset: float = 0.0) -> Operation:
    return "matrix", tuple(np.column_stack([colours, np.full(3, offset)]).ravel())


def brightness(factor: float) -> Operation:
    """All values times ``factor``."""
    return _lut(_RAMP * factor)


def contrast(factor: float) -> Operation:
    """Distance from mid-grey times ``factor``."""
    return _lut((_RAMP - 128) * factor + 128)


def gamma(exponent: float) -> Operation:
    """Values, as fractions of 255, to the power of ``exponent``."""
    return _lut((_RAMP / 255) ** exponent * 255)


def saturation(factor: float) -> Operation:
    """Distance from the grey of the same luma times ``factor``."""
    return _matrix(factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1)))


def hue(turns: float) -> Operation:
    """Colours turned around the grey axis."""
    cos, sin = math.cos(2 * math.pi * turns), math.sin(2 * math.pi * turns)
    turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    return _matrix(np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ)


def _affine(a: float, b: float, x: float, c: float, d: float, y: float) -> Operation:
    """Output pixel (from the centre, in fractions of the side) to input pixel."""
    return "affine", (a, b, x, c, d, y)


def _rotate(level: float, sign: float) -> Operation:
    angle = math.radians(30 * level * sign)
    return _affine(math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0)


def _enhance(level: float) -> float:
    return level * 1.8 + 0.1


_RAND_AUGMENT: tuple[Callable[[float, float], Operation], ...] = (
    lambda level, sign: ("autocontrast", ()),
    lambda level, sign: ("equalise", ()),
    lambda level, sign: _lut(255 - _RAMP),
    _rotate,
    lambda level, sign: _lut(_RAMP // 2 ** (8 - int(level * 4)) * 2 ** (8 - int(level * 4))),
    lambda level, sign: _lut(np.where(int(level * 256) > _RAMP, _RAMP, 255 - _RAMP)),
    lambda level, sign: _lut(np.where(_RAMP < 128, _RAMP + int(level * 110), _RAMP)),
    lambda level, sign: saturation(_enhance(level)),
    lambda level, sign: contrast(_enhance(level)),
    lambda level, sign: brightness(_enhance(level)),
    lambda level, sign: ("sharpen", (_enhance(level),)),
    lambda level, sign: _affine(1, 0.3 * level * sign, 0, 0, 1, 0),
    lambda level, sign: _affine(1, 0, 0, 0.3 * level * sign, 1, 0),
    lambda level, sign: _affine(1, 0, 0.45 * level * sign, 0, 1, 0),
    lambda level, sign: _affine(1, 0, 0, 0, 1, 0.45 * level * sign),
)

SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
"""Pillow's smoothing kernel, from which sharpness is measured."""


def erased_box(numbers: tuple[float, ...], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of an ``erase`` operation in a picture of ``height`` x ``width``."""
    x, y, box_width, box_height = numbers
    top, left = int(y * height), int(x * width)
    return slice(top, top + round(box_height * height)), slice(left, left + round(box_width * width))


# --- OpenCV -----------------------------------------------------------------------------------------------------------


def apply_numpy(clip: Pixels, operations: tuple[Operation, ...]) -> None:
    """Change a clip ``[T, H, W, 3]`` in place."""
    num_frames, height, width, channels = clip.shape
    rows = clip.reshape(num_frames * height, width, channels)  # all frames as one tall picture, without copying
    for name, numbers in operations:
        match name:
            case "lut":
                cv2.LUT(rows, np.array(numbers, np.uint8), dst=rows)
            case "matrix":
                rows[:] = cv2.transform(rows, np.array(numbers).reshape(3, 4))
            case "erase":
                clip[:, *erased_box(numbers, height, width)] = FILL
            case _:
                for frame in clip:
                    frame[:] = _FRAME_OPERATIONS[name](frame, numbers)


def _warp(frame: Pixels, numbers: tuple[float, ...]) -> Any:
    return cv2.warpAffine(
        frame, pixel_affine(numbers, *frame.shape[:2]), frame.shape[1::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_CONSTANT, borderValue=FILL,
    )  # fmt: skip


def pixel_affine(numbers: tuple[float, ...], height: int, width: int) -> NDArray[np.float64]:
    """An ``affine`` operation in pixels from the top left corner, ``[2, 3]``."""
    a, b, x, c, d, y = numbers
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    return np.array(
        [
            [a, b, x * width + centre_x - a * centre_x - b * centre_y],
            [c, d, y * height + centre_y - c * centre_x - d * centre_y],
        ]
    )


def _sharpen(frame: Pixels, numbers: tuple[float, ...]) -> Any:
    smooth = cv2.filter2D(frame, -1, SMOOTH, borderType=cv2.BORDER_REPLICATE)
    return cv2.addWeighted(frame, numbers[0], smooth, 1 - numbers[0], 0)


def _autocontrast(frame: Pixels, numbers: tuple[float, ...]) -> Any:
    """Stretch each channel to 0..255."""
    low, high = frame.min(axis=(0, 1)).astype(float), frame.max(axis=(0, 1)).astype(float)
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1)
    low = np.where(high > low, low, 0)
    return cv2.transform(frame, np.column_stack([np.diag(scale), -low * scale]))


def _equalise(frame: Pixels, numbers: tuple[float, ...]) -> Any:
    """Spread each channel's values evenly."""
    return np.dstack([cv2.equalizeHist(np.ascontiguousarray(frame[..., channel])) for channel in range(3)])


_FRAME_OPERATIONS = {"affine": _warp, "sharpen": _sharpen, "autocontrast": _autocontrast, "equalise": _equalise}
