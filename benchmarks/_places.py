"""A dataset whose classes single frames show: where in the scene the window stands at the ends of a camera move.

The classes of the corpus of ``temporal.py`` are camera moves: the window begins at one place and ends at the opposite
one. The first and the last third of each clip become clips of their own, in the class of the place; a move and its
reverse give both places to both, so that nothing of the order is told. A vision transformer that has learnt the places
is to TokShift what an ImageNet transformer is to the published one: it sees what stands in a frame, and has still to
learn what comes before what.
"""

import json
import shutil
from pathlib import Path

from actcli.ingest.layout import payload_path
from actcli.ingest.manifest import manifest_rows, read_manifest

ENDS = {
    "Pushing something from left to right": ("right", "left"),
    "Pushing something from right to left": ("left", "right"),
    "Moving something down": ("bottom", "top"),
    "Moving something up": ("top", "bottom"),
    "Approaching something with your camera": ("far", "near"),
    "Moving away from something with your camera": ("near", "far"),
}
"""Where the window is at the beginning and at the end of each class: content moves against the camera."""


def make_places(frames_dir: Path, target: Path) -> None:
    """Copy the thirds from frames that were extracted with ``--layout folders`` to ``target/<split>/<place>/``.

    Args:
        frames_dir: Frames of the corpus.
        target: Folder to create, usually ``raw/places``.
    """
    for row in manifest_rows(read_manifest(frames_dir)):
        pictures = sorted(payload_path(frames_dir, row.key, layout="folders").glob("*.jpg"))
        third = max(1, len(pictures) // 3)
        ends = (("first", pictures[:third]), ("last", pictures[-third:]))
        for (end, part), place in zip(ends, ENDS[row.class_name], strict=True):
            folder = target / row.splits["1"] / place / f"{row.key}-{end}"
            folder.mkdir(parents=True)
            for number, picture in enumerate(part, start=1):
                shutil.copyfile(picture, folder / f"img_{number:05d}.jpg")
    (target / "flip.json").write_text(json.dumps({"flip": "swap", "flip_swaps": [["left", "right"]]}))
