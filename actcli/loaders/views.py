"""Where on the frame a view is cut: boxes in whole pixels, no pictures.

The originals resize a frame to a scale and then crop. Here that is one box on the stored frame and one resize of that
box, whatever size the frame is stored in. A ``ViewRule`` gives an original's boxes on the resized frame; ``stored_box``
carries them over to the stored one. Which rule is whose stands in ``actcli.loaders.originals``.

    resized 341 x 256                stored 320 x 240
    crop 224 x 224 at (58, 16)  ->   box 210 x 210 at (54, 15), resized to 224 x 224
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from actcli.errors import ActcliError


class Crop(NamedTuple):
    """A box in whole pixels and whether it is mirrored after the cut."""

    x: int
    y: int
    width: int
    height: int
    flip: bool = False


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int


CropMaker = Callable[[Size, int], list[Crop]]
"""The crops of ``crop_size`` pixels of a resized frame, in the original's order."""


@dataclass(frozen=True)
class ViewRule:
    """How a code base resizes and crops; several may share one."""

    name: str
    """What tells it from other rules."""
    interpolation: Literal["linear", "cubic"]
    """How pixels are computed when a box is resized."""
    default_scale: tuple[int, int]
    """The short side before the crop, as a fraction of the input size: 256 for 224, the size itself, 256 for 112."""
    crop_is_scale: bool
    """Whether the crop is as large as the short side, and is then resized to the input size."""
    resize: Callable[[Size, int], Size]
    """The size of a stored frame once its short side is as given."""
    test_crops: Mapping[int, CropMaker]
    """The test crops by their number."""

    def scale_size(self, size: int) -> int:
        """The short side before cropping that belongs to an input of ``size`` pixels."""
        numerator, denominator = self.default_scale
        return size * numerator // denominator

    def test_scale_size(self, size: int, training_size: int) -> int:
        """The short side before a test crop of ``size`` pixels of a model trained with ``training_size`` pixels.

        A larger crop is cut from the frame as training scaled it, up to the whole of it: TSM's full-resolution test of
        a model trained with 224 pixels cuts 256 from 256. A smaller one keeps the training's proportion.
        """
        if size <= training_size:
            return self.scale_size(size)
        return max(size, self.scale_size(training_size))

    def crops(self, frame: Size, crop_size: int, num_crops: int) -> list[Crop]:
        """The crops of a test on the resized ``frame``, in the original's order.

        Raises:
            ActcliError: The original has no test with so many crops, or a crop is larger than the frame.
        """
        if crop_size > min(frame):
            raise ActcliError(
                f"a crop of {crop_size} pixels does not fit into frames resized to {frame.width} x {frame.height}. "
                "Use a scale size of at least the input size."
            )
        if num_crops not in self.test_crops:
            allowed = ", ".join(str(count) for count in self.test_crops)
            raise ActcliError(
                f"{self.name} tests with {allowed} crops, not {num_crops}. Use one of these as num_crops (--crops)."
            )
        return self.test_crops[num_crops](frame, crop_size)


def resized_size(stored: Size, scale_size: int) -> Size:
    """The frame's size once its short side is ``scale_size``; the long side is rounded down.

    320 x 240, short side 256 -> 341 x 256
    """
    return _with_short_side(stored, scale_size, scale_size * max(stored) // min(stored))


def resized_size_by_ratio(stored: Size, scale_size: int) -> Size:
    """As ``resized_size``, but by a ratio in floating point, as TokShift does: now and then a pixel less."""
    return _with_short_side(stored, scale_size, math.floor(max(stored) / min(stored) * scale_size))


def _with_short_side(stored: Size, short: int, long: int) -> Size:
    return Size(long, short) if stored.width >= stored.height else Size(short, long)


def stored_box(crop: Crop, resized: Size, stored: Size) -> Crop:
    """``crop`` of the resized frame as a box on the stored frame, rounded to whole pixels."""
    scale_x, scale_y = stored.width / resized.width, stored.height / resized.height
    width = min(max(round(crop.width * scale_x), 1), stored.width)
    height = min(max(round(crop.height * scale_y), 1), stored.height)
    x = min(round(crop.x * scale_x), stored.width - width)
    y = min(round(crop.y * scale_y), stored.height - height)
    return Crop(x, y, width, height, crop.flip)


# --- Test crops -------------------------------------------------------------------------------------------------------


def center_crop(frame: Size, crop_size: int) -> Crop:
    """The middle; half pixels are rounded to even, as torchvision does."""
    x, y = round((frame.width - crop_size) / 2), round((frame.height - crop_size) / 2)
    return Crop(x, y, crop_size, crop_size)


# Positions in quarters of the free space, in the order of TSM's transforms: corners, centre, edges, then between.
CORNERS_AND_CENTRE = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
_GRID = (*CORNERS_AND_CENTRE, (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3))


def crops_in_quarters(frame: Size, crop_size: int, places: Sequence[tuple[int, int]]) -> list[Crop]:
    """Boxes at ``places``, in quarters of the free space, which are rounded down: the right one may end too early.

    width 10, crop 4, places 0 2 4 in x -> x = 0, 2, 4     the right edge would be at 6
    """
    step_x, step_y = _quarters(frame, crop_size, crop_size)
    return [Crop(x * step_x, y * step_y, crop_size, crop_size) for x, y in places]


def _quarters(frame: Size, width: int, height: int) -> tuple[int, int]:
    return (frame.width - width) // 4, (frame.height - height) // 4


# --- Training crops ---------------------------------------------------------------------------------------------------

_CLOSE_ENOUGH = 3


@lru_cache(maxsize=1024)
def multi_scale_sizes(frame: Size, input_size: int, scales: tuple[float, ...]) -> tuple[Size, ...]:
    """Crop sizes of the multi-scale corner crop, in TSM's order (height outer, width inner).

    Sides are ``scales`` times the short side; a side within two pixels of ``input_size`` becomes it. Width and height
    may come from neighbouring scales.
    """
    sides = [max(int(min(frame) * scale), 1) for scale in scales]
    sides = [input_size if abs(side - input_size) < _CLOSE_ENOUGH else side for side in sides]
    return tuple(Size(w, h) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1)


def multi_scale_offsets(frame: Size, crop: Size) -> list[tuple[int, int]]:
    """The 13 positions of a multi-scale crop, in TSM's order; repeated ones count."""
    step_x, step_y = _quarters(frame, *crop)
    return [(x * step_x, y * step_y) for x, y in _GRID]


def multi_scale_crop(frame: Size, input_size: int, scales: tuple[float, ...], rng: np.random.Generator) -> Crop:
    """One of the sizes, then one of its 13 positions, on the frame as stored."""
    sizes = multi_scale_sizes(frame, input_size, scales)
    crop = sizes[int(rng.integers(len(sizes)))]
    x, y = multi_scale_offsets(frame, crop)[int(rng.integers(len(_GRID)))]
    return _inside(Crop(x, y, *crop), frame)


def _inside(crop: Crop, frame: Size) -> Crop:
    """A side that was snapped to an input one or two pixels larger than the frame is cut back to the frame."""
    width, height = min(crop.width, frame.width), min(crop.height, frame.height)
    return Crop(max(crop.x, 0), max(crop.y, 0), width, height, crop.flip)


_ATTEMPTS = 10


def random_resized_crop(
    frame: Size, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Crop:
    """A box of random area and aspect ratio, as in torchvision's ``RandomResizedCrop``."""
    log_aspect = np.log(aspect)
    for _ in range(_ATTEMPTS):
        target = frame.width * frame.height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(*log_aspect))
        width, height = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < width <= frame.width and 0 < height <= frame.height:
            x, y = rng.integers(frame.width - width + 1), rng.integers(frame.height - height + 1)
            return Crop(int(x), int(y), width, height)
    width = min(frame.width, round(frame.height * aspect[1]))
    height = min(frame.height, round(frame.width / aspect[0]))
    return Crop((frame.width - width) // 2, (frame.height - height) // 2, width, height)


def short_side_crop(frame: Size, input_size: int, short_side: tuple[int, int], rng: np.random.Generator) -> Crop:
    """TokShift's training crop: short side drawn from ``short_side`` (end exclusive), then a random position.

    The last possible position is never drawn, as in the original. The box is on the stored frame.
    """
    scale_size = int(rng.integers(*short_side)) if short_side[0] < short_side[1] else short_side[0]
    resized = resized_size_by_ratio(frame, scale_size)
    x, y = (int(rng.integers(free)) if free > 0 else 0 for free in (side - input_size for side in resized))
    return stored_box(Crop(x, y, input_size, input_size), resized, frame)


CORNERS = ("center", "tl", "tr", "bl", "br")


def corner_crop(frame: Size, crop_size: int, position: str, border_x: float = 0.0, border_y: float = 0.0) -> Crop:
    """ST-MulNet's crop: the centre, or a corner moved inwards by a fraction of the free space (if neither is 0)."""
    if position == "center":
        return center_crop(frame, crop_size)
    free_x, free_y = frame.width - crop_size, frame.height - crop_size
    moved = border_x > 0 and border_y > 0
    in_x, in_y = (int(free_x * border_x), int(free_y * border_y)) if moved else (0, 0)
    x = in_x if position[1] == "l" else free_x - in_x
    y = in_y if position[0] == "t" else free_y - in_y
    return Crop(x, y, crop_size, crop_size)


def random_corner_crop(
    frame: Size, scale_size: int, scales: tuple[float, float], border: float, rng: np.random.Generator
) -> Crop:
    """ST-MulNet's training crop of a frame whose short side is ``scale_size``, as a box on the stored frame."""
    resized = resized_size(frame, scale_size)
    crop_size = int(scale_size * rng.uniform(*scales))
    position = CORNERS[int(rng.integers(len(CORNERS)))]
    crop = corner_crop(resized, crop_size, position, border * rng.random(), border * rng.random())
    return stored_box(crop, resized, frame)
