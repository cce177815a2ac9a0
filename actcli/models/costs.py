"""Size and cost of every model on every backbone, counted once and kept in ``costs.json``."""

import json
from dataclasses import dataclass
from pathlib import Path

COSTS_FILE = Path(__file__).with_name("costs.json")
"""Written by ``benchmarks/model_costs.py``; a test compares it with the models."""
NUM_CLASSES = 174
"""Classes that the costs are counted with (Something-Something)."""


@dataclass(frozen=True)
class Cost:
    """A model on a backbone, with its default options."""

    model: str
    """Name of the model."""
    backbone: str
    """Name of the backbone."""
    num_frames: int
    """Frames per clip."""
    parameters: int
    """Number of trained values."""
    macs: int
    """Multiply-accumulates of one clip."""
    macs_without_attention: int
    """The same without products of two activations."""


def list_costs() -> tuple[Cost, ...]:
    """All of them, by model."""
    return tuple(Cost(**entry) for entry in json.loads(COSTS_FILE.read_text()))
