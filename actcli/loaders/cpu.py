"""Carries out plans on the CPU: libjpeg-turbo straight from the tar, one resize per frame into the batch.

RGB batches lie in memory as ``[B, V, T, H, W, C]`` and flow batches as ``[B, V, T, C, H, W]``, so that OpenCV writes
each picture into its place and nothing is transposed.
"""

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from actcli.errors import ActcliError
from actcli.loaders.augment import apply_numpy
from actcli.loaders.jpeg import JpegDecoder, Picture, crops_on
from actcli.loaders.plan import BatchPlan, ClipPlan, Stream, broken_clip
from actcli.loaders.views import Crop, Size
from actcli.shards.stream import RetryingReader

Pixels = NDArray[np.uint8]
Shape = tuple[int, ...]

_TRAINING_SHRINK = 1.2
"""Up to this shrink factor training takes OpenCV's linear interpolation, which does not smooth before it shrinks.

For 256 -> 224 pixels the two differ by less than one grey level of 255 on average, and OpenCV is three times faster.
"""


@dataclass(frozen=True)
class BatchLayout:
    """Where the streams of a batch lie in its memory."""

    rgb: Shape | None
    """``[B, V, T, H, W, 3]``."""
    flow: Shape | None
    """``[B, V, T, C, H, W]``."""

    @cached_property
    def num_bytes(self) -> int:
        """Memory of a full batch."""
        return sum(int(np.prod(shape)) for shape in (self.rgb, self.flow) if shape)

    def views(self, memory: Pixels, num_clips: int) -> tuple[Pixels | None, Pixels | None]:
        """The RGB and the flow array of a batch of ``num_clips`` in ``memory``."""
        arrays: list[Pixels | None] = []
        begin = 0
        for shape in (self.rgb, self.flow):
            if shape is None:
                arrays.append(None)
                continue
            used = (num_clips, *shape[1:])
            end = begin + int(np.prod(used))
            arrays.append(memory[begin:end].reshape(used))
            begin = end
        return arrays[0], arrays[1]


class PictureSource:
    """Where the encoded pictures come from: the shards, opened in the process that reads, or the plan itself."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._reader: RetryingReader | None = None
        self._process = -1
        self._inline: memoryview | None = None

    def begin(self, plan: BatchPlan) -> None:
        """Gets ready for the pictures of ``plan``."""
        self._inline = None if plan.inline is None else memoryview(plan.inline)
        if self._process != os.getpid():
            self._reader, self._process = RetryingReader(self._root), os.getpid()

    def pictures(self, stream: Stream) -> list[Any]:
        """The bytes of each picture of a stream.

        Raises ``ActcliError`` where they are not those that were packed.
        """
        pictures = self._read(stream.shard, stream.offsets, stream.sizes)
        for number, crc in enumerate(stream.crcs):
            if zlib.crc32(pictures[number]) != crc:
                what = f"frame {stream.frames[number]}" if len(pictures) == len(stream.frames) else "the video"
                raise ActcliError(f"the bytes of {what} have changed since they were packed")
        return pictures

    def _read(self, shard: str, offsets: list[int], sizes: list[int]) -> list[Any]:
        if self._inline is not None:
            return [self._inline[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
        assert self._reader is not None
        return self._reader.read_ranges(shard, offsets, sizes)


class CpuBackend:
    """Reads, decodes, crops and resizes."""

    def __init__(self, root: str, layout: BatchLayout, interpolation: str, training: bool, video: bool) -> None:
        self.source = PictureSource(root)
        self.layout = layout
        self.cubic = interpolation == "cubic"
        self.largest_plain_shrink = _TRAINING_SHRINK if training else 1.0
        self.video = video
        self._rgb_decoder, self._grey_decoder = JpegDecoder("RGB"), JpegDecoder("GRAY")

    def run(self, plan: BatchPlan, memory: Pixels) -> None:
        """Writes the batch into ``memory``.

        Raises ``ActcliError`` naming shard and clip when a sample is broken.
        """
        self.source.begin(plan)
        rgb, flow = self.layout.views(memory, len(plan.clips))
        for number, clip in enumerate(plan.clips):
            if clip.rgb is not None and rgb is not None:
                self._guarded(self._rgb, clip, clip.rgb, rgb[number])
            if clip.flow is not None and flow is not None:
                self._guarded(self._flow, clip, clip.flow, flow[number])

    def _guarded(self, step: Any, clip: ClipPlan, stream: Stream, out: Pixels) -> None:
        try:
            step(clip, stream, out)
        except (ActcliError, ValueError, OSError, cv2.error, IndexError, MemoryError) as error:
            raise broken_clip(clip, stream, error) from error

    def _rgb(self, clip: ClipPlan, stream: Stream, out: Pixels) -> None:
        """``out [V, T, H, W, 3]``."""
        places = _places(stream.slots.reshape(-1), len(stream.frames))
        num_frames, num_crops = stream.slots.shape[1], len(clip.crops)
        for picture, targets in zip(self._pictures(clip, stream, out.shape[2]), places, strict=True):
            for number, crop in enumerate(picture.crops):
                for target in targets:
                    test_clip, frame = divmod(target, num_frames)
                    self._resize(picture.pixels, crop, out[test_clip * num_crops + number, frame])
        for number, view in enumerate(out):
            if clip.crops[number % num_crops].flip:
                rows = view.reshape(-1, *view.shape[-2:])  # all frames as one tall picture
                cv2.flip(rows, 1, dst=rows)
            if clip.operations:
                apply_numpy(view, clip.operations)

    def _flow(self, clip: ClipPlan, stream: Stream, out: Pixels) -> None:
        """``out [V, T, C, H, W]``; mirroring also turns the sign of x, the even channels."""
        _, num_frames, num_channels = stream.slots.shape
        places = _places(stream.slots.reshape(-1), len(stream.frames))
        num_crops = len(clip.crops)
        for picture, targets in zip(
            self._decoded(self._grey_decoder, clip, stream, out.shape[-1]), places, strict=True
        ):
            for number, crop in enumerate(picture.crops):
                for target in targets:
                    frame, channel = divmod(target, num_channels)
                    test_clip, frame = divmod(frame, num_frames)
                    grey = picture.pixels[..., 0]
                    self._resize(grey, crop, out[test_clip * num_crops + number, frame, channel])
        for number, view in enumerate(out):
            if clip.crops[number % num_crops].flip:
                rows = view.reshape(-1, view.shape[-1])
                cv2.flip(rows, 1, dst=rows)
                np.subtract(255, view[:, 0::2], out=view[:, 0::2])

    def _pictures(self, clip: ClipPlan, stream: Stream, size: int) -> Iterator[Picture]:
        if not self.video:
            yield from self._decoded(self._rgb_decoder, clip, stream, size)
            return
        from actcli.loaders.video import decode_frames

        [payload] = self.source.pictures(stream)
        for pixels in decode_frames(payload, stream.frames, clip.frame_size):
            stored = Size(pixels.shape[1], pixels.shape[0])
            yield Picture(pixels, crops_on(stored, clip.crops, clip.frame_size))

    def _decoded(self, decoder: JpegDecoder, clip: ClipPlan, stream: Stream, size: int) -> Iterator[Picture]:
        pictures = self.source.pictures(stream)
        return decoder.decode(pictures, clip.crops, clip.frame_size, size, checked=len(stream.crcs) > 0)

    def _resize(self, picture: Pixels, crop: Crop, out: Pixels) -> None:
        x, y, width, height, _ = crop
        box = picture[y : y + height, x : x + width]
        if box.shape == out.shape:
            out[:] = box
        elif self.cubic or max(width / out.shape[1], height / out.shape[0]) > self.largest_plain_shrink:
            _resize_smoothly(box, out, "bicubic" if self.cubic else "bilinear")
        else:
            cv2.resize(box, out.shape[1::-1], dst=out, interpolation=cv2.INTER_LINEAR)


def _resize_smoothly(box: Pixels, out: Pixels, mode: str) -> None:
    """Resizes as Pillow does, which smooths when it shrinks; torch has Pillow's filters, only faster."""
    pixels_HWC = torch.from_numpy(box if box.ndim == 3 else box[..., None])
    resized = interpolate(pixels_HWC.movedim(-1, 0)[None], out.shape[:2], mode=mode, antialias=True)
    torch.from_numpy(out if out.ndim == 3 else out[..., None]).copy_(resized[0].movedim(0, -1))


def _places(slots: NDArray[np.int64], num_pictures: int) -> list[list[int]]:
    """For each picture the places that it goes to."""
    places: list[list[int]] = [[] for _ in range(num_pictures)]
    for place, picture in enumerate(slots.tolist()):
        places[picture].append(place)
    return places
