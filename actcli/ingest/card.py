"""The dataset card: ``dataset.json`` beside the extracted frames."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from actcli.errors import ActcliError
from actcli.files import read_small_text, write_text_whole
from actcli.ingest.records import FlipPolicy

CARD_NAME = "dataset.json"
MAX_CARD_BYTES = 4 << 20
"""More than any card needs."""

Setting = str | int | float | bool | None
"""Value of an option that decides what is written."""


@dataclass(frozen=True)
class Extraction:
    """How the frames, or the flow, of a dataset were made."""

    settings: Mapping[str, Setting]
    """Options that decide what is written, by name; a job continues only with the same ones."""
    versions: Mapping[str, str]
    """Versions of what made them, by package."""


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
    extraction: Mapping[str, Extraction] = field(default_factory=dict)
    """Modality to what it was extracted with."""
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
            return _card(json.loads(read_small_text(path, MAX_CARD_BYTES)))
        except FileNotFoundError:
            raise ActcliError(f"There is no dataset card {path}; run actcli extract first.") from None
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError) as error:
            if isinstance(error, ActcliError):
                raise
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise ActcliError(
                f"The dataset card {path} is damaged ({reason}). It says how the frames were made, so restore it, or "
                "extract into a new folder with --frames-dir."
            ) from None

    def write(self, path: Path | str) -> None:
        """Write the card at once or not at all; ``path`` is the file or its folder."""
        path = Path(path)
        path = path / CARD_NAME if path.is_dir() else path
        write_text_whole(path, json.dumps(asdict(self), indent=1) + "\n")


def read_extraction(value: Mapping[str, object]) -> dict[str, Extraction]:
    """What a card in JSON says of the extraction, by modality.

    Raises:
        ValueError: It is no such table.
    """
    found = {}
    for modality, facts in value.items():
        if not isinstance(facts, dict):
            raise ValueError(f"the extraction of {modality} is no table")
        settings, versions = facts.get("settings", {}), facts.get("versions", {})
        if not isinstance(settings, dict) or not isinstance(versions, dict):
            raise ValueError("the settings are no table")
        found[modality] = Extraction(settings, versions)
    return found


def _card(value: dict[str, Any]) -> DatasetCard:
    """The card, if each field is of its type."""
    split_sets = {name: _names(splits) for name, splits in value["split_sets"].items()}
    if value["flip"] not in get_args(FlipPolicy):
        raise ValueError(f"flip is {value['flip']!r}")
    swaps = tuple(_names(pair) for pair in value["flip_swaps"])
    if any(len(pair) != 2 for pair in swaps):
        raise ValueError("a swap is no pair of classes")
    return DatasetCard(
        name=_names([value["name"]])[0],
        classes=_names(value["classes"]),
        flip=value["flip"],
        flip_swaps=tuple((a, b) for a, b in swaps),
        split_sets=split_sets,
        extraction=read_extraction(value["extraction"]),
        group_by=_names([value.get("group_by", "")])[0],
    )


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{str(value)[:40]!r} is no list of names")
    return tuple(value)
