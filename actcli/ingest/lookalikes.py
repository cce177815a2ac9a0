"""Clips whose pictures are nearly the same, though encoded, scaled or trimmed differently.

Of four frames of a clip, at equal distances, the 63 lowest frequencies (8 x 8 of a 32 x 32 cosine transform, without
the constant) are compared with their median: 252 bits. Copies that were encoded anew, scaled or cut a little at the
edges differ in few of them, clips of other scenes in about half.

Source: pHash, Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from actcli.remote import Unreachable

Bits = NDArray[np.bool_]

MAX_DISTANCE = 32
"""Bits, of 252, in which lookalikes differ at most."""

_PLACES = (0.125, 0.375, 0.625, 0.875)
_SIDE = 32
_LOW = 8
_MIN_CONTRAST = 4.0  # grey levels; what is flatter has no picture to compare
_BLOCK = 4096


def clip_bits(jpegs: Sequence[bytes]) -> Bits | None:
    """The 252 bits of a clip, from the JPEGs at ``sampled_frames``; None where most of the frames are flat."""
    greys = [simplejpeg.decode_jpeg(jpeg, "GRAY", fastdct=True, min_height=64, min_width=64)[..., 0] for jpeg in jpegs]
    small = [cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA).astype(np.float32) for grey in greys]
    if sum(float(picture.std()) < _MIN_CONTRAST for picture in small) > len(small) // 2:
        return None
    lows = [cv2.dct(picture)[:_LOW, :_LOW].ravel()[1:] for picture in small]
    return np.concatenate([low > np.median(low) for low in lows])


def sampled_frames(num_frames: int) -> list[int]:
    """The frames, from 0, that stand for a clip of ``num_frames``: 8 frames -> [1, 3, 5, 7]."""
    return [int(place * num_frames) for place in _PLACES]


def read_bits(
    read: Callable[[int], Sequence[bytes]], num_clips: int, progress: Callable[[int, int], None] | None = None
) -> list[Bits | None]:
    """Bits of clips 0 to ``num_clips`` (exclusive), whose sampled JPEGs ``read`` gives; on all cores.

    A clip whose file is gone or damaged has None.

    Raises:
        Unreachable: The files lie behind a URL that does not answer.
    """

    def bits_of(number: int) -> Bits | None:
        try:
            return clip_bits(read(number))
        except Unreachable:
            raise
        except (OSError, ValueError):
            return None

    found = []
    with ThreadPoolExecutor() as pool:
        for bits in pool.map(bits_of, range(num_clips)):
            found.append(bits)
            if progress:
                progress(len(found), num_clips)
    return found


def lookalikes(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Pairs of rows of ``left`` and ``right`` (both [N, bits]) that differ in at most ``MAX_DISTANCE`` bits.

    All pairs are compared, as products of ±1 vectors: bits - 2 * distance.
    """
    signs_left, signs_right = (np.where(bits, np.float32(1), np.float32(-1)) for bits in (left, right))
    least = left.shape[1] - 2 * MAX_DISTANCE
    pairs = []
    for a in range(0, len(signs_left), _BLOCK):
        for b in range(0, len(signs_right), _BLOCK):
            products = signs_left[a : a + _BLOCK] @ signs_right[b : b + _BLOCK].T
            if products.max(initial=-np.inf) >= least:
                pairs += [(a + int(i), b + int(j)) for i, j in np.argwhere(products >= least)]
    return pairs


def joined(pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Sets of numbers that the pairs connect, each sorted, in the order of their smallest members."""
    if not pairs:
        return []
    numbers, ends = np.unique(np.array(pairs), return_inverse=True)
    a, b = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(len(numbers), len(numbers)))
    _, labels = connected_components(graph, directed=False)
    groups: dict[int, list[int]] = {}
    for number, label in zip(numbers.tolist(), labels.tolist(), strict=True):
        groups.setdefault(label, []).append(number)
    return list(groups.values())
