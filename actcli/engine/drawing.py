"""Pictures with words and heat on them, and videos of pictures."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import matplotlib
import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from actcli.errors import ActcliError
from actcli.files import written_whole

Picture = NDArray[np.uint8]
"""``[H, W, 3]`` RGB."""

_CRF = "20"


def heated(picture: Picture, heat: NDArray[np.float32], strength: float = 0.5) -> Picture:
    """``picture`` under the colours of ``heat`` (``[H, W]``, 0 to 1), which hide nothing where it is cold."""
    colours = colormaps["turbo"](heat)[..., :3] * 255
    share = strength * np.clip(heat * 1.5, 0, 1)[..., None]
    return np.asarray((1 - share) * picture + share * colours, np.uint8)


def enlarged(picture: Picture, least_height: int) -> Picture:
    """``picture`` in whole multiples of its size, until it is ``least_height`` high."""
    factor = max(1, -(-least_height // picture.shape[0]))
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC), np.uint8)


def strip(rows: Iterable[Iterable[Picture]], gap: int = 4) -> Picture:
    """Rows of pictures of equal size in one, with white gaps."""
    padded = [
        np.concatenate([np.pad(one, ((0, gap), (0, gap), (0, 0)), constant_values=255) for one in row], axis=1)
        for row in rows
    ]
    return np.asarray(np.concatenate(padded)[:-gap, :-gap], np.uint8)


def titled(picture: Picture, lines: Iterable[str]) -> Picture:
    """``picture`` with lines of text on a dark band above it; names in any script that the font has."""
    lines = list(lines)
    height = max(14, picture.shape[0] // 16)
    font = text_font(height)
    band = Image.new("RGB", (picture.shape[1], round(1.4 * height * len(lines)) + 6), (20, 24, 30))
    pen = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        pen.text((6, 3 + round(1.4 * height * number)), line, (235, 238, 242), font=font)
    return np.concatenate([np.asarray(band, np.uint8), picture])


def text_font(height: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", height)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a PNG.

    Raises:
        ActcliError: It cannot be written.
    """
    _, png = cv2.imencode(".png", picture[..., ::-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            partial.write_bytes(png.tobytes())
    except OSError as error:
        raise ActcliError(f"{path} cannot be written ({error.strerror or error}).") from error


def write_video(path: Path, pictures: Iterable[Picture], fps: float) -> int:
    """Write H.264 in MP4, every picture once; the number of pictures.

    Raises:
        ActcliError: It cannot be written.
    """
    count = 0
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial, av.open(str(partial), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
            stream.pix_fmt, stream.options = "yuv420p", {"crf": _CRF}
            for count, picture in enumerate(pictures, 1):
                even = picture[: picture.shape[0] // 2 * 2, : picture.shape[1] // 2 * 2]
                if count == 1:
                    stream.height, stream.width = even.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")))
            container.mux(stream.encode())
    except (OSError, av.FFmpegError) as error:
        raise ActcliError(f"{path} cannot be written ({error.strerror or error}).") from error
    return count
