"""What worker processes run: libjpeg-turbo straight from the tar, one resize per frame into the batch."""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

from actcli.errors import ActcliError
from actcli.loaders.augment import apply_numpy
from actcli.loaders.backends._layout import BatchLayout, Pixels
from actcli.loaders.backends._source import PictureSource
from actcli.loaders.backends.jpeg import JpegDecoder, Picture, crops_on
from actcli.loaders.plan import BatchPlan, ClipPlan, ViewSettings, WantedPictures, broken_clip
from actcli.loaders.views import Crop, Size
from actcli.shards import ShardSet
from actcli.shards.source_video import decode_video

_TRAINING_SHRINK = 1.2
"""Up to this shrink factor training takes OpenCV's linear interpolation, which does not smooth before it shrinks.

For 256 -> 224 pixels the two differ by less than one grey level of 255 on average, and OpenCV is three times faster.
"""


class BatchWriter:
    """Reads, decodes, crops and resizes the clips of a plan into memory."""

    def __init__(self, shards: ShardSet, layout: BatchLayout, settings: ViewSettings) -> None:
        self.source = PictureSource(shards)
        self.layout = layout
        self.cubic = settings.rule.interpolation == "cubic"
        self.largest_plain_shrink = _TRAINING_SHRINK if settings.training else 1.0
        self.video = shards.card.payload == "mp4"
        self._rgb_decoder, self._grey_decoder = JpegDecoder("RGB"), JpegDecoder("GRAY")

    def write(self, plan: BatchPlan, memory: Pixels) -> None:
        """Write the batch into ``memory``.

        Raises:
            ActcliError: A clip is broken; names it and its tar.
        """
        self.source.begin(plan)
        rgb, flow = self.layout.views(memory, len(plan.clips))
        for number, clip in enumerate(plan.clips):
            if clip.rgb is not None and rgb is not None:
                self._guarded(self._rgb, clip, clip.rgb, rgb[number])
            if clip.flow is not None and flow is not None:
                self._guarded(self._flow, clip, clip.flow, flow[number])

    def _guarded(
        self,
        step: Callable[[ClipPlan, WantedPictures, Pixels], None],
        clip: ClipPlan,
        wanted: WantedPictures,
        out: Pixels,
    ) -> None:
        try:
            step(clip, wanted, out)
        except (ActcliError, ValueError, OSError, cv2.error, IndexError, MemoryError) as error:
            raise broken_clip(clip, wanted, error) from error

    def _rgb(self, clip: ClipPlan, wanted: WantedPictures, out: Pixels) -> None:
        """``out [V, T, H, W, 3]``."""
        places = _places(wanted.slots.reshape(-1), len(wanted.frames))
        num_frames, num_crops = wanted.slots.shape[1], len(clip.crops)
        for picture, targets in zip(self._pictures(clip, wanted, out.shape[2]), places, strict=True):
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

    def _flow(self, clip: ClipPlan, wanted: WantedPictures, out: Pixels) -> None:
        """``out [V, T, C, H, W]``; mirroring also turns the sign of x, the even channels."""
        _, num_frames, num_channels = wanted.slots.shape
        places = _places(wanted.slots.reshape(-1), len(wanted.frames))
        num_crops = len(clip.crops)
        for picture, targets in zip(
            self._decoded(self._grey_decoder, clip, wanted, out.shape[-1]), places, strict=True
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

    def _pictures(self, clip: ClipPlan, wanted: WantedPictures, size: int) -> Iterator[Picture]:
        if wanted.video is not None:
            for pixels in decode_video(self.source.pictures(wanted), wanted.video, clip.frame_size):
                yield Picture(pixels, clip.crops)
            return
        if not self.video:
            yield from self._decoded(self._rgb_decoder, clip, wanted, size)
            return
        from actcli.loaders.backends.video import decode_frames

        [payload] = self.source.pictures(wanted)
        for pixels in decode_frames(payload, wanted.frames, clip.frame_size):
            stored = Size(pixels.shape[1], pixels.shape[0])
            yield Picture(pixels, crops_on(stored, clip.crops, clip.frame_size))

    def _decoded(self, decoder: JpegDecoder, clip: ClipPlan, wanted: WantedPictures, size: int) -> Iterator[Picture]:
        pictures = self.source.pictures(wanted)
        return decoder.decode(pictures, clip.crops, clip.frame_size, size, checked=len(wanted.crcs) > 0)

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
    """Resize as Pillow does, which smooths when it shrinks; torch has Pillow's filters, only faster."""
    pixels_HWC = torch.from_numpy(box if box.ndim == 3 else box[..., None])
    resized = interpolate(pixels_HWC.movedim(-1, 0)[None], out.shape[:2], mode=mode, antialias=True)
    torch.from_numpy(out if out.ndim == 3 else out[..., None]).copy_(resized[0].movedim(0, -1))


def _places(slots: NDArray[np.int64], num_pictures: int) -> list[list[int]]:
    """For each picture the places that it goes to."""
    places: list[list[int]] = [[] for _ in range(num_pictures)]
    for place, picture in enumerate(slots.tolist()):
        places[picture].append(place)
    return places
