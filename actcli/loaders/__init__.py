"""From shards to batches: frame sampling, views, augmentation, CPU and DALI backends."""

from actcli.loaders.augment import Augmentation, ColourJitter
from actcli.loaders.batch import Batch, MixUp, Normalise
from actcli.loaders.epochs import Reading
from actcli.loaders.iterating import Loader
from actcli.loaders.loader import open_loader
from actcli.loaders.originals import sampling_names

__all__ = [
    "Augmentation",
    "Batch",
    "ColourJitter",
    "Loader",
    "MixUp",
    "Normalise",
    "Reading",
    "open_loader",
    "sampling_names",
]
