"""Small trainings."""

import subprocess
import sys
from pathlib import Path

from safetensors.torch import load_file

from actcli.engine.hardware import Hardware
from actcli.engine.recipes import Recipe
from actcli.engine.runs import RunConfig
from actcli.engine.schedules import Schedule
from actcli.engine.trainer import train
from actcli.loaders.augment import Augmentation

STILL = Augmentation(crop="center", flip=0.0)
"""No augmentation."""
HARDWARE = Hardware("cpu", workers=0, loader="cpu")
RESNET = {"backbone": "resnet18", "dropout": 0.5}
VIT = {"backbone": "vit_ti16", "image_size": 32}
"""A network without batch norm, whose gradients of parts of a batch add up to those of the whole."""


STANDING_STILL = 1e-60
"""A learning rate that float32 makes 0, which a recipe refuses."""


class Reporter:
    """Keeps what it hears."""

    def __init__(self):
        self.notes, self.steps, self.epochs, self.validations, self.foretellings = [], [], [], [], []

    def note(self, text):
        self.notes.append(text)

    def foretold(self, epoch_seconds, seconds_left):
        self.foretellings.append((epoch_seconds, seconds_left))

    def step(self, report):
        self.steps.append(report)

    def validating(self, done, total):
        self.validations.append((done, total))

    def epoch(self, report):
        self.epochs.append(report)

    def finished(self, times):
        self.times = times


def tiny_recipe(model="tsm", **changes):
    given = {
        "model_options": VIT if model == "vit" else RESNET,
        "num_frames": 2,
        "size": 32,
        "pretrained": None,
        "epochs": 2,
        "batch_size": 4,
        "learning_rate": 0.01,
        "schedule": Schedule("constant"),
    }
    return Recipe("tiny", model, **(given | changes))


def tiny_config(shards, model="tsm", **changes):
    return RunConfig(tiny_recipe(model, **changes), "tiny", shards)


def run(config, run_dir, hardware=HARDWARE, reporter=None, *, resume=False):
    config.write(run_dir)
    return train(config, run_dir, hardware, reporter or Reporter(), resume=resume)


def weights_of(run_dir, name="last"):
    return load_file(run_dir / "checkpoints" / f"{name}.safetensors")


def start_script(text, *arguments, launcher=()):
    """A Python script in a process of its own, in which this module can be imported."""
    command = [sys.executable, *launcher, str(text), *map(str, arguments)]
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
