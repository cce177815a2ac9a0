"""``dataset.json``, the card that lies beside the tars and says what is in them."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from actcli.errors import ActcliError

SHARD_FORMAT = "actcli-shards"
SHARD_FORMAT_VERSION = 2
"""2: the indexes hold a CRC-32 for every frame."""

FlipPolicy = Literal["allowed", "swap", "forbidden"]
"""Whether a mirrored clip keeps its class, takes its partner's class, or must not be made."""


@dataclass(frozen=True)
class ShardFile:
    """One tar of the dataset."""

    name: str
    """File name, such as ``train-000000.tar``."""
    bytes: int
    """Size of the tar."""
    checksum: str
    """sha256 of the tar, in hex."""
    num_clips: int
    """Clips in the tar."""


@dataclass(frozen=True)
class ShardCard:
    """What ``dataset.json`` holds."""

    name: str
    """Dataset name, such as ``sthv2``."""
    classes: tuple[str, ...]
    """Class names; the position is the label."""
    flip: FlipPolicy
    """Whether horizontal flip is allowed."""
    flip_swaps: tuple[tuple[str, str], ...]
    """Pairs of class names that a horizontal flip exchanges."""
    payload: Literal["mjpeg", "mp4"]
    """How the RGB frames of a clip are stored."""
    modalities: tuple[str, ...]
    """``("rgb",)``, ``("flow",)`` or ``("rgb", "flow")``."""
    split_sets: Mapping[str, Mapping[str, int]]
    """Number of clips per split, for each split set: ``{"1": {"train": 9537, "test": 3783}}``."""
    coverage: Mapping[str, int]
    """How many clips the official list names and what became of them: listed, ok, failed, missing."""
    extraction: Mapping[str, Any]
    """Settings and versions of the extraction, per modality."""
    settings: Mapping[str, Any]
    """Settings the shards were written with."""
    source_digest: str
    """sha256 over settings and manifest; equal digests mean equal shards."""
    shards: tuple[ShardFile, ...] = field(default=())
    """Every tar, in order."""

    def index_name(self, split: str, split_id: str = "1") -> str:
        """File name of the index of one split, such as ``train.index.parquet`` or ``test2.index.parquet``.

        Raises:
            ActcliError: The dataset has no such split set or split; the message lists what it has.
        """
        if split_id not in self.split_sets:
            raise ActcliError(
                f"{self.name} has no split set {split_id!r}; it has {', '.join(self.split_sets)}. "
                f"Choose one with --split-id."
            )
        if split not in self.split_sets[split_id]:
            raise ActcliError(
                f"{self.name} has no split {split!r}; it has {', '.join(self.split_sets[split_id])}. "
                f"Choose one with --split."
            )
        return f"{split}{split_id if len(self.split_sets) > 1 else ''}.index.parquet"

    def evaluation_split(self, split_id: str = "1") -> str:
        """The split that scores are reported on: ``val`` where there is one with clips, else ``test``."""
        splits = self.split_sets.get(split_id, {})
        for split in ("val", "test"):
            if splits.get(split):
                return split
        raise ActcliError(f"{self.name} has no clips to evaluate on: neither a val nor a test split holds any.")

    def flip_labels(self) -> dict[int, int]:
        """Label of a mirrored clip for each label that mirroring changes."""
        position = {name: label for label, name in enumerate(self.classes)}
        pairs = [(position[a], position[b]) for a, b in self.flip_swaps if a in position and b in position]
        return {a: b for pair in pairs for a, b in (pair, pair[::-1])}

    def to_json(self) -> str:
        """The text of ``dataset.json``."""
        return json.dumps({"format": SHARD_FORMAT, "version": SHARD_FORMAT_VERSION, **asdict(self)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes, origin: str) -> "ShardCard":
        """Read the text of ``dataset.json``; ``origin`` names it in errors.

        Raises:
            ActcliError: The text is no card, or is of another version.
        """
        try:
            value = json.loads(text)
            if value.pop("format") != SHARD_FORMAT:
                raise KeyError("format")
            _check_version(int(value.pop("version")), origin)
            value["shards"] = tuple(ShardFile(**shard) for shard in value["shards"])
            value["flip_swaps"] = tuple((str(a), str(b)) for a, b in value["flip_swaps"])
            value["classes"], value["modalities"] = tuple(value["classes"]), tuple(value["modalities"])
            return ShardCard(**value)
        except ActcliError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ActcliError(
                f"{origin} is not a card of actcli shards ({error}). "
                "Write the shards again with: actcli shard --overwrite"
            ) from error


def _check_version(version: int, origin: str) -> None:
    if version != SHARD_FORMAT_VERSION:
        remedy = (
            "Update actcli: pip install -U actcli"
            if version > SHARD_FORMAT_VERSION
            else "Write the shards again with: actcli shard --overwrite"
        )
        raise ActcliError(f"{origin} has format version {version}, this actcli reads {SHARD_FORMAT_VERSION}. {remedy}")


def flip_policy(value: str) -> FlipPolicy:
    """Check a flip policy that comes from a file."""
    if value not in ("allowed", "swap", "forbidden"):
        raise ActcliError(f"flip policy {value!r} is unknown; allowed are: allowed, swap, forbidden.")
    return cast(FlipPolicy, value)
