"""Decode JPEGs with libjpeg-turbo: the whole picture, or only the region that the crops need."""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from actcli.loaders.views import Crop, Size, stored_box
from actcli.shards.bounds import MAX_PIXELS
from actcli.shards.stream import Encoded

try:
    import nvidia.nvimgcodec as nvimgcodec  # comes with DALI
except ImportError:
    nvimgcodec = None

_LARGEST_REDUCTION = 8
_ON_THE_CPU = -99999
"""nvImageCodec's device number for no GPU."""
_NEIGHBOURS = 2
"""Columns decoded on either side of the crops: a region one pixel wide has no neighbours to interpolate colour from."""
_LARGEST_REGION = 0.8
"""Part of the picture up to which its region is decoded faster than the whole by simplejpeg."""


class Picture(NamedTuple):
    """Decoded pixels, and the crops as boxes on them."""

    pixels: NDArray[np.uint8]
    """``[H, W, C]``."""
    crops: Sequence[Crop]


def check_header(data: Encoded, size: Size | None) -> None:
    """Refuse a JPEG whose header asks for other memory than the index says, before any is taken.

    Args:
        data: The JPEG.
        size: What the index says; ``None`` where it says nothing (flow), which leaves the bound of any picture.

    Raises:
        ValueError: It is no JPEG, or is of another size.
    """
    height, width, *_ = simplejpeg.decode_jpeg_header(data)
    if size is not None and (width, height) != size:
        raise ValueError(f"a picture has {width} x {height} pixels, the index says {size.width} x {size.height}")
    if width * height > MAX_PIXELS:
        raise ValueError(f"a picture has {width} x {height} pixels, more than {MAX_PIXELS}")


class JpegDecoder:
    """Decodes pictures in one colour space.

    Where it can, nvImageCodec decodes the region alone: the same pixels, without transforming the blocks around it. It
    keeps silent about damage, so it is only given bytes whose checksum is right. Everything else goes to simplejpeg,
    which refuses whatever libjpeg has a warning for.
    """

    def __init__(self, colour: Literal["RGB", "GRAY"]) -> None:
        self._colour = colour
        self._region_decoder: Any = None
        self._process = -1

    def decode(
        self, pictures: Iterable[Encoded], crops: tuple[Crop, ...], frame_size: Size, size: int, checked: bool
    ) -> Iterator[Picture]:
        """Decode what ``crops`` need of each picture.

        Args:
            pictures: JPEGs, as bytes or views.
            crops: Boxes on a frame of ``frame_size``, in pixels.
            frame_size: That of flow may differ from what is stored; the crops are scaled then.
            size: Pixels that each side of a crop is resized to; much larger pictures are decoded smaller.
            checked: Whether the bytes are known to be those that were packed.

        Raises:
            ValueError: A JPEG is damaged, or has another size than the index says.
        """
        reduction = _reduction(crops, size)
        regions = (
            reduction == 1 and checked and nvimgcodec is not None and _covered(crops, frame_size) < _LARGEST_REGION
        )
        for data in pictures:
            check_header(data, frame_size if self._colour == "RGB" else None)
            picture = self._decode_region(data, crops, frame_size) if regions else None
            yield picture or self._decode_whole(data, crops, frame_size, reduction)

    def _decode_whole(self, data: Encoded, crops: tuple[Crop, ...], frame_size: Size, reduction: int) -> Picture:
        pixels = simplejpeg.decode_jpeg(data, self._colour, **_least_size(frame_size, reduction))
        stored = Size(pixels.shape[1], pixels.shape[0])
        if reduction > 1 and stored == _reduced(frame_size, reduction):
            return Picture(pixels, [_divided(crop, reduction) for crop in crops])
        return Picture(pixels, crops_on(stored, crops, frame_size))

    def _decode_region(self, data: Encoded, crops: tuple[Crop, ...], frame_size: Size) -> Picture | None:
        """The region, or ``None`` for the rare JPEG that nvImageCodec does not take."""
        stream = nvimgcodec.CodeStream(np.frombuffer(data, np.uint8))
        try:
            stored = Size(stream.width, stream.height)
        except RuntimeError:  # the header is not understood
            return None
        region, crops_there = _find_region(stored, crops, frame_size)
        image = self._decoder().decode(stream.get_sub_code_stream(region=region), params=self._params)
        # np.asarray would ask for __array_interface__, each of which leaks 32 bytes: benchmarks/leak.py
        return None if image is None else Picture(image.__array__(), crops_there)

    def _decoder(self) -> Any:
        """The decoder of this process: its threads do not outlive a fork."""
        if self._process != os.getpid():
            backends = [nvimgcodec.Backend(nvimgcodec.CPU_ONLY)]
            self._region_decoder = nvimgcodec.Decoder(_ON_THE_CPU, 1, backends, ":fancy_upsampling=1")
            colour = nvimgcodec.ColorSpec.SRGB if self._colour == "RGB" else nvimgcodec.ColorSpec.GRAY
            self._params = nvimgcodec.DecodeParams(apply_exif_orientation=False, color_spec=colour)
            self._process = os.getpid()
        return self._region_decoder


@lru_cache(maxsize=64)
def _find_region(stored: Size, crops: tuple[Crop, ...], frame_size: Size) -> tuple[Any, Sequence[Crop]]:
    """The region that holds all crops, and the crops as boxes on it; the same for all pictures of a clip."""
    crops = crops_on(stored, crops, frame_size)
    left, top, right, bottom = _rectangle_around(crops)
    left, right = max(left - _NEIGHBOURS, 0), min(right + _NEIGHBOURS, stored.width)
    region = nvimgcodec.Region(top, left, bottom, right)
    return region, [crop._replace(x=crop.x - left, y=crop.y - top) for crop in crops]


def _covered(crops: Sequence[Crop], frame_size: Size) -> float:
    """Part of the frame that the rectangle around all crops takes."""
    left, top, right, bottom = _rectangle_around(crops)
    return (right - left) * (bottom - top) / (frame_size.width * frame_size.height)


def _rectangle_around(crops: Sequence[Crop]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom, the latter two exclusive."""
    left, top = min(crop.x for crop in crops), min(crop.y for crop in crops)
    return left, top, max(crop.x + crop.width for crop in crops), max(crop.y + crop.height for crop in crops)


def _reduction(crops: Sequence[Crop], size: int) -> int:
    """How much smaller libjpeg-turbo may decode.

    Every crop must keep ``4 * size`` pixels, so that the resize decides, and begin and end between pixels. Only a half,
    a quarter and an eighth are fast; at other scales decoding takes longer than at full size.
    """
    smallest_side = min(min(crop.width, crop.height) for crop in crops)
    edges = math.gcd(*(number for crop in crops for number in (crop.x, crop.y, crop.width, crop.height)))
    reduction = 1
    while reduction < _LARGEST_REDUCTION and smallest_side >= 8 * reduction * size and edges % (2 * reduction) == 0:
        reduction *= 2
    return reduction


def _reduced(frame_size: Size, reduction: int) -> Size:
    return Size(-(-frame_size.width // reduction), -(-frame_size.height // reduction))


def _divided(crop: Crop, reduction: int) -> Crop:
    x, y, width, height = (number // reduction for number in (crop.x, crop.y, crop.width, crop.height))
    return Crop(x, y, width, height, crop.flip)


def _least_size(frame_size: Size, reduction: int) -> dict[str, int]:
    if reduction == 1:
        return {}
    width, height = _reduced(frame_size, reduction)
    return {"min_width": width, "min_height": height, "min_factor": reduction}


def crops_on(stored: Size, crops: tuple[Crop, ...], frame_size: Size) -> tuple[Crop, ...]:
    """The crops on a picture that was decoded smaller, or stored in another size, than planned."""
    if stored == frame_size:
        return crops
    return tuple(stored_box(crop, frame_size, stored) for crop in crops)
