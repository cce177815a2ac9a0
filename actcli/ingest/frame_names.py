"""How the files of frames are called in official folders and in dumps that other tools have made.

File names understood, with any number of digits:

- rgb: ``img_00001.jpg``, ``image_00001.jpg``, ``00001.jpg``, ``frame000001.jpg``, ``frames00001.jpg``;
- flow: ``flow_x_00001.jpg`` with ``flow_y_…``, ``x_00001.jpg`` with ``y_…``, ``000001-x_00001.jpg`` with
  ``000001-y_…``, and rgb names in folders ``u`` and ``v``, inside the clip's folder or above all clips (``u/<clip>``).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

RGB_NAME = re.compile(r"(?P<prefix>|img_|image_|frames?_?)(?P<number>\d+)\.jpe?g", re.IGNORECASE)
FLOW_NAME = {axis: re.compile(rf"(?P<prefix>|flow_|\d+-){axis}_(?P<number>\d+)\.jpe?g", re.IGNORECASE) for axis in "xy"}
"""By axis."""


def holds_frames(names: Iterable[str]) -> bool:
    """Whether there is a numbered JPEG, rgb or flow, among the names of a folder's files."""
    patterns = (RGB_NAME, *FLOW_NAME.values())
    return any(pattern.fullmatch(name) for name in names for pattern in patterns)


def holds(folder: Path, pattern: re.Pattern[str]) -> bool:
    """Whether a folder is there, and a file in it that is called so."""
    return folder.is_dir() and any(pattern.fullmatch(name) for name in os.listdir(folder))


def is_flow(folder: Path) -> bool:
    """Whether a clip's folder in a dump holds flow, by itself or in ``u`` and ``v``."""
    return holds(folder, FLOW_NAME["x"]) or holds(folder / "u", RGB_NAME)
