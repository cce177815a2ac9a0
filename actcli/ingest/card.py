"""The dataset card: ``dataset.json`` beside the extracted frames."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from actcli.errors import ActcliError
from actcli.ingest.records import FlipPolicy

CARD_NAME = "dataset.json"


@dataclass(frozen=True)
class DatasetCard:
    """What the frames of one dataset are and how they were made."""

    name: str
    """The name after ``--dataset``."""
    classes: tuple[str, ...]
    """Class names in label order."""
    flip: FlipPolicy
    """Whether mirroring keeps the class (``allowed``), exchanges classes (``swap``) or is ``forbidden``."""
    flip_swaps: tuple[tuple[str, str], ...]
    """Pairs of class names that mirroring exchanges."""
    split_sets: Mapping[str, tuple[str, ...]]
    """Split set to its splits: ``{"1": ("train", "val")}``."""
    extraction: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Modality to the ``settings`` and ``versions`` it was extracted with."""
    group_by: str = ""
    """Regular expression that finds the recording in a path, where the user gave one."""

    @classmethod
    def read(cls, path: Path | str) -> "DatasetCard":
        """Read a card; ``path`` is the file or its folder.

        Raises:
            ActcliError: There is no card, or it is damaged.
        """
        path = Path(path)
        path = path / CARD_NAME if path.is_dir() else path
        try:
            value = json.loads(path.read_text("utf-8"))
            return cls(
                name=value["name"],
                classes=tuple(value["classes"]),
                flip=value["flip"],
                flip_swaps=tuple((a, b) for a, b in value["flip_swaps"]),
                split_sets={name: tuple(splits) for name, splits in value["split_sets"].items()},
                extraction=value["extraction"],
                group_by=value.get("group_by", ""),
            )
        except FileNotFoundError:
            raise ActcliError(f"There is no dataset card {path}; run actcli extract first.") from None
        except (ValueError, KeyError, TypeError) as error:
            raise ActcliError(f"The dataset card {path} is damaged ({error!r}); run actcli extract again.") from None

    def write(self, path: Path | str) -> None:
        """Write the card at once or not at all; ``path`` is the file or its folder."""
        path = Path(path)
        path = path / CARD_NAME if path.is_dir() else path
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file: readers see the old or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
