"""Film strips and contact sheets: several pictures in one small WebP inside the page."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
"""``[H, W, 3]`` RGB."""

MAX_PICTURES = 8
"""Pictures of a film strip."""
_STRIP_HEIGHT = 96
_TILE_HEIGHT, _TILE_WIDTH = 66, 88
_MAX_STRETCH = 3.0
_QUALITY = 70


@dataclass(frozen=True)
class FilmStrip:
    """Pictures of equal size side by side, which play when they are pointed at."""

    url: str
    """``data:`` URL of all pictures as one."""
    num_pictures: int
    """How many there are."""
    width: int
    """Of one picture, in pixels."""
    height: int
    """Of one picture, in pixels."""


def film_strip(pictures: Sequence[Picture]) -> FilmStrip | None:
    """The pictures of one clip, scaled to a common height; None where there are none."""
    if not pictures:
        return None
    height, width = pictures[0].shape[:2]
    shown = round(float(np.clip(width / height, 1 / _MAX_STRETCH, _MAX_STRETCH)) * _STRIP_HEIGHT)
    scaled = [_scaled(picture, shown, _STRIP_HEIGHT) for picture in pictures]
    return FilmStrip(_data_url(np.concatenate(scaled, axis=1)), len(scaled), shown, _STRIP_HEIGHT)


def contact_sheet(pictures: Sequence[Picture]) -> FilmStrip | None:
    """A picture of each of several clips, cut to the same shape; None where there are none."""
    if not pictures:
        return None
    tiles = [_covering(picture, _TILE_WIDTH, _TILE_HEIGHT) for picture in pictures]
    return FilmStrip(_data_url(np.concatenate(tiles, axis=1)), len(tiles), _TILE_WIDTH, _TILE_HEIGHT)


def _scaled(picture: Picture, width: int, height: int) -> Picture:
    shrinks = picture.shape[0] >= height
    return np.asarray(
        cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )


def _covering(picture: Picture, width: int, height: int) -> Picture:
    """The largest middle part with the shape wanted."""
    rows, columns = picture.shape[:2]
    kept_columns = min(columns, max(1, round(rows * width / height)))
    kept_rows = min(rows, max(1, round(columns * height / width)))
    top, left = (rows - kept_rows) // 2, (columns - kept_columns) // 2
    return _scaled(picture[top : top + kept_rows, left : left + kept_columns], width, height)


def _data_url(picture: Picture) -> str:
    _, webp = cv2.imencode(".webp", picture[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, _QUALITY])
    return "data:image/webp;base64," + base64.b64encode(webp.tobytes()).decode("ascii")
