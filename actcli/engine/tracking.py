"""Where the curves of a training go: TensorBoard, a CSV file, trackio or Weights & Biases.

All numbers are drawn over the steps of the whole training. What a killed run drew after its last checkpoint is drawn
again when it goes on: TensorBoard and the CSV file forget the first drawing, the services keep it.
"""

import csv
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.utils import make_grid

from actcli.engine.curves import Curves
from actcli.engine.recipes import TrackerName
from actcli.engine.runs import RunConfig
from actcli.errors import ActcliError
from actcli.files import written_whole

PROJECT = "actcli"
"""Project under which the services list a run."""
_MAX_CLIPS = 8
_RGB_CHANNELS = 3
_SERVICES: tuple[TrackerName, ...] = ("trackio", "wandb")


class Tracker(Protocol):
    """Keeps curves and pictures."""

    def add(self, step: int, points: Mapping[str, float]) -> None:
        """One point of each of several curves, by the name of the curve, such as ``train/loss``."""

    def picture(self, step: int, name: str, picture_HWC: NDArray[np.uint8]) -> None:
        """A picture, where the tracker can keep one."""

    def close(self) -> None:
        """Write out what is left."""


def check_trackers(names: tuple[TrackerName, ...]) -> None:
    """Refuse a tracker whose library is not installed.

    Raises:
        ActcliError: It says how to install it.
    """
    for name in names:
        if name in _SERVICES and find_spec(name) is None:
            raise ActcliError(
                f"the curves cannot go to {name}, which is not installed. Install it with: pip install {name}. Or "
                "choose --log tensorboard or csv."
            )


def open_trackers(run_dir: Path, config: RunConfig, first_step: int) -> list[Tracker]:
    """The trackers of a run; from ``first_step`` on, what was drawn before counts no longer."""

    def opened(name: TrackerName) -> Tracker:
        match name:
            case "tensorboard":
                return Curves(run_dir / "tensorboard", first_step)
            case "csv":
                return CsvCurves(run_dir / "curves.csv", first_step)
        return Service(name, run_dir, config)

    return [opened(name) for name in config.recipe.log]


class CsvCurves:
    """A row ``step,name,value`` for each point, written at once."""

    def __init__(self, path: Path, first_step: int) -> None:
        """Keep the rows that are there from before ``first_step``."""
        with written_whole(path) as partial, partial.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("step", "name", "value"))
            rows.writerows(row for row in _rows(path) if int(row[0]) < first_step)
        self._file = path.open("a", newline="", buffering=1)
        self._rows = csv.writer(self._file)

    def add(self, step: int, points: Mapping[str, float]) -> None:
        """A row for each point."""
        self._rows.writerows((step, name, value) for name, value in points.items())

    def picture(self, step: int, name: str, picture_HWC: NDArray[np.uint8]) -> None:
        """A table keeps no pictures."""

    def close(self) -> None:
        """End the file."""
        self._file.close()


def _rows(path: Path) -> list[list[str]]:
    """The whole rows of a file that a killed run may have left; its last one may be half written."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [row for row in rows if len(row) == 3 and row[0].isdecimal() and row[2]]


class Service:
    """A run of trackio or of Weights & Biases, whose libraries are called alike; both obey their own variables."""

    def __init__(self, name: TrackerName, run_dir: Path, config: RunConfig) -> None:
        """Begin the run, or go on with the one of that name."""
        self._library = import_module(name)
        recipe = config.recipe.to_dict()
        place = {"dir": str(run_dir), "id": run_dir.resolve().name} if name == "wandb" else {}
        self._library.init(project=PROJECT, name=run_dir.resolve().name, config=recipe, resume="allow", **place)

    def add(self, step: int, points: Mapping[str, float]) -> None:
        """Points at a step."""
        self._library.log(dict(points), step=step)

    def picture(self, step: int, name: str, picture_HWC: NDArray[np.uint8]) -> None:
        """A picture at a step."""
        self._library.log({name: self._library.Image(picture_HWC)}, step=step)

    def close(self) -> None:
        """End the run."""
        self._library.finish()


def clip_grid(clips_BTCHW: Tensor) -> NDArray[np.uint8]:
    """A row of frames for each of the first clips of a normalised batch, ``[H, W, 3]``; of flow, the x component."""
    clips_BTCHW = clips_BTCHW[:_MAX_CLIPS].detach().float().cpu()
    is_rgb = clips_BTCHW.shape[2] == _RGB_CHANNELS
    pictures_NCHW = clips_BTCHW.flatten(0, 1)[:, : _RGB_CHANNELS if is_rgb else 1]
    grid_CHW = make_grid(pictures_NCHW, nrow=clips_BTCHW.shape[1], normalize=True)
    picture: NDArray[np.uint8] = (255 * grid_CHW).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return picture
