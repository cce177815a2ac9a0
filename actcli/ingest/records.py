"""What a dataset adapter promises: clips, classes and splits as the official annotations give them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from actcli.errors import ActcliError

UNLABELLED = -1
"""Label of a clip whose class the official list keeps back (test sets of challenges)."""

FlipPolicy = Literal["allowed", "swap", "forbidden"]
Storage = Literal["video", "frames"]


@dataclass(frozen=True)
class ClipRecord:
    """One row of the official annotations."""

    source_id: str
    """Name of the clip in the official list, unique in the dataset."""
    path: str
    """File or frame folder relative to the raw folder, with ``/``; it need not exist."""
    label: int
    """Class index from 0, or ``UNLABELLED``."""
    class_name: str
    """Official class name; empty without a label."""
    splits: Mapping[str, str]
    """Split set to split: ``{"1": "train", "2": "test"}``; a split set that leaves the clip out is not there."""
    start: float | None = None
    """First second of the clip, where the file is a longer video."""
    end: float | None = None
    """End of the clip in seconds, exclusive."""


@dataclass(frozen=True)
class Listing:
    """Everything that the annotations of one dataset say."""

    classes: tuple[str, ...]
    """Class names in the order of the published checkpoints."""
    records: tuple[ClipRecord, ...]
    """Clips in key order: the position here is the key of a new extraction."""
    split_sets: Mapping[str, tuple[str, ...]]
    """Split set to its splits."""
    flip: FlipPolicy = "allowed"
    """Whether mirroring keeps the class, exchanges some classes, or spoils it."""
    flip_swaps: tuple[tuple[str, str], ...] = ()
    """Pairs of class names that mirroring exchanges."""
    warnings: tuple[str, ...] = ()
    """What looked odd but does not stop the work."""


@dataclass(frozen=True)
class DatasetAdapter:
    """One dataset: what it needs on disk and how its annotations are read."""

    name: str
    """The name typed after ``--dataset``, and of the folders ``raw/<name>`` and ``frames/<name>``."""
    title: str
    """Name in the literature."""
    storage: Storage
    """``"video"`` for encoded files, ``"frames"`` for one folder of JPEGs a clip."""
    expects: str
    """Which official files go where under the raw folder."""
    reader: Callable[[Path], Listing]
    """Reads the annotations of an existing raw folder."""
    published_counts: Mapping[str, int] = field(default_factory=dict)
    """Classes and clips as published."""
    flip: FlipPolicy = "allowed"
    """Whether mirroring keeps the class, exchanges some classes, or spoils it."""
    flip_swaps: tuple[tuple[str, str], ...] = ()
    """Pairs of class names that mirroring exchanges."""
    fps: float | None = None
    """Frame rate of a dataset that comes as frames."""

    def read(self, raw_dir: Path | str) -> Listing:
        """Read the annotations under ``raw_dir``; clips are not opened.

        Raises:
            ActcliError: Files are missing or wrong; the message names all of them and what belongs where.
        """
        raw_dir = Path(raw_dir)
        if not raw_dir.is_dir():
            raise ActcliError(f"There is no folder {raw_dir}. {self.title} is expected like this:\n{self.expects}")
        try:
            listing = self.reader(raw_dir)
        except ActcliError as error:
            raise ActcliError(f"{error}\n{self.title} is expected like this:\n{self.expects}") from None
        if not listing.records:
            raise ActcliError(
                f"The annotations in {raw_dir} list no clip. {self.title} is expected like this:\n{self.expects}"
            )
        return listing
