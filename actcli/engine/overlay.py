"""A video with what a model says on it: the likeliest classes, and a bar of the classes over time."""

import colorsys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image, ImageDraw

from actcli.engine.drawing import Picture, text_font, write_video
from actcli.engine.prediction import Prediction
from actcli.errors import ActcliError
from actcli.files import check_target
from actcli.ingest.decode import VideoClip
from actcli.ingest.failure import ClipFailure
from actcli.ingest.sizing import DecodeSettings

Colour = tuple[int, int, int]
"""Red, green, blue, each 0 to 255."""

_SHORT_SIDE = 720
_FALLBACK_FPS = 25.0
_LINES = 3  # classes named on the picture
_GOLDEN = 0.618  # steps of this in hue keep colours of neighbouring classes apart


def write_overlay(video: Path, predictions: Sequence[Prediction], out_path: Path) -> int:
    """Write ``video`` with labels and, below, a bar of its likeliest classes over time.

    Args:
        video: The file that was classified.
        predictions: Of the whole video, or of its parts in the order of time.
        out_path: MP4 to write, short side 720 at most.

    Returns:
        Number of pictures.

    Raises:
        ActcliError: The video cannot be read, nothing was said of it, or the file cannot be written.
    """
    said = [prediction for prediction in predictions if prediction.guesses]
    if not said:
        reason = next(
            (prediction.problem for prediction in predictions if prediction.problem), "nothing was said of it"
        )
        raise ActcliError(f"{video} has no overlay: {reason}.")
    check_overlay(video, out_path)
    try:
        clip = VideoClip(video, DecodeSettings(_SHORT_SIDE))
        with clip:
            fps = clip.fps or _FALLBACK_FPS
            return write_video(out_path, _drawn(clip, said, fps), fps)
    except ClipFailure as failure:
        raise ActcliError(f"{video} cannot be read: {failure.message}.") from failure


def check_overlay(video: Path, out_path: Path) -> None:
    """Refuse a place that no overlay can be written to.

    Raises:
        ActcliError: It is the video itself, a folder, or in a folder that cannot be written to.
    """
    check_target(out_path, "--overlay")
    if out_path.exists() and video.exists() and out_path.samefile(video):
        raise ActcliError(f"{out_path} is the video itself. Name another file with --overlay.")


def _drawn(clip: VideoClip, said: Sequence[Prediction], fps: float) -> Iterator[Picture]:
    length = max((prediction.end or 0.0 for prediction in said), default=0.0)
    for number, (y, u, v) in enumerate(clip):
        picture = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg_yuv_planes(y, u, v, 95), "RGB")
        yield draw_overlay(picture, said, number / fps, length)


def draw_overlay(picture: Picture, said: Sequence[Prediction], seconds: float, length: float) -> Picture:
    """One picture with the classes of the part that ``seconds`` lies in; ``length`` 0 leaves the bar out."""
    height, width = picture.shape[:2]
    colours = class_colours(said)
    now = next((one for one in said if one.end is None or seconds < one.end), said[-1])
    text = max(12, height // 26)
    bar = max(8, height // 40) if length else 0
    image = Image.fromarray(np.pad(picture, ((0, bar), (0, 0), (0, 0))))
    pen, font = ImageDraw.Draw(image, "RGBA"), text_font(text)
    for line, guess in enumerate(now.guesses[:_LINES]):
        top = 6 + round(line * 1.5 * text)
        words = f"{guess.probability:4.0%}  {guess.class_name}"
        right = 14 + pen.textlength(words, font=font)
        pen.rectangle((6, top, right, top + round(1.4 * text)), fill=(0, 0, 0, 150))
        if line == 0:
            pen.rectangle((6, top, 10, top + round(1.4 * text)), fill=colours[guess.class_name])
        pen.text((13, top + 1), words, fill=(255, 255, 255), font=font)
    if length:
        for one in said:
            begin, end = (width * (at or 0.0) / length for at in (one.start, one.end))
            pen.rectangle((begin, height, end, height + bar), fill=colours[one.guesses[0].class_name])
        place = width * min(seconds / length, 1.0)
        pen.rectangle((place - 1, height, place + 1, height + bar), fill=(255, 255, 255))
    return np.asarray(image, np.uint8)


def class_colours(said: Sequence[Prediction]) -> dict[str, Colour]:
    """A colour for each likeliest class, far from those of the classes before and after it."""
    names = dict.fromkeys(one.guesses[0].class_name for one in said)
    return {name: _colour(number * _GOLDEN % 1.0) for number, name in enumerate(names)}


def _colour(hue: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue, 0.55, 0.65)
    return round(255 * red), round(255 * green), round(255 * blue)
