"""``dataset.json``, the card that lies beside the tars and says what is in them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from actcli.errors import ActcliError
from actcli.ingest.card import Extraction, Setting, read_extraction
from actcli.ingest.records import FlipPolicy
from actcli.shards.checksum import FileSeal

SHARD_FORMAT = "actcli-shards"
SHARD_FORMAT_VERSION = 4
"""2: the indexes have a CRC-32 of every frame. 3: each clip's JSON has one, the card a sha256 of indexes and itself.
4: the payload may be the videos themselves."""
OLDEST_VERSION = 3
"""The first version that is read for good."""
SHARD_NAME = re.compile(r"\w+-\d{6}\.tar")
StoredPayload = Literal["mjpeg", "mp4", "source"]
"""How the RGB frames of a clip are stored: as JPEGs, as a video that was encoded from them, as the source itself."""
_SPLIT_NAME = re.compile(r"\w+")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ShardFile(FileSeal):
    """One tar of the dataset, such as ``train-000000.tar``."""

    num_clips: int
    """Clips in the tar."""


@dataclass(frozen=True)
class Coverage:
    """How many clips the official list names, and what became of them."""

    listed: int
    """Clips in the list; the others add up to them."""
    ok: int
    """Clips with frames."""
    failed: int
    """Clips that could not be read."""
    missing: int
    """Clips that were not there."""


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
    payload: StoredPayload
    """How the RGB frames of a clip are stored."""
    modalities: tuple[str, ...]
    """``("rgb",)``, ``("flow",)`` or ``("rgb", "flow")``."""
    split_sets: Mapping[str, Mapping[str, int]]
    """Number of clips per split, for each split set: ``{"1": {"train": 9537, "test": 3783}}``."""
    coverage: Mapping[str, int]
    """How many clips the official list names and what became of them: listed, ok, failed, missing."""
    extraction: Mapping[str, Extraction]
    """Settings and versions of the extraction, per modality."""
    settings: Mapping[str, Setting]
    """Settings the shards were written with."""
    source_digest: str
    """sha256 over settings and manifest; equal digests mean equal shards."""
    shards: tuple[ShardFile, ...] = field(default=())
    """Every tar, in order."""
    split_coverage: Mapping[str, Mapping[str, Coverage]] = field(default_factory=dict)
    """``coverage`` of each split, for each split set."""
    files: tuple[FileSeal, ...] = field(default=())
    """The indexes, and DALI's index of each tar."""
    extends: tuple[str, ...] = field(default=())
    """``source_digest`` of the shards that clips were added to, each time, oldest first; their tars are the first."""
    version: int = SHARD_FORMAT_VERSION
    """Version of the format that they were written in."""

    def index_name(self, split: str, split_id: str = "1") -> str:
        """File name of the index of one split, such as ``train.index.parquet`` or ``test2.index.parquet``.

        Raises:
            ActcliError: The dataset has no such split set or split; the message lists what it has.
        """
        splits = self.splits(split_id)
        if split not in splits:
            raise ActcliError(
                f"{self.name} has no split {split!r}; it has {', '.join(splits)}. Choose one as split (--split)."
            )
        return index_name(split, split_id, len(self.split_sets))

    def splits(self, split_id: str) -> dict[str, int]:
        """Clips per split of a split set.

        Raises:
            ActcliError: There is no such split set.
        """
        if split_id not in self.split_sets:
            raise ActcliError(
                f"{self.name} has no split set {split_id!r}; it has {', '.join(self.split_sets)}. Choose one as "
                f"split_id (--split-id)."
            )
        return dict(self.split_sets[split_id])

    def covered(self, split: str, split_id: str = "1") -> Coverage:
        """The coverage of one split.

        Raises:
            ActcliError: The card, made by hand, does not tell it.
        """
        try:
            return self.split_coverage[split_id][split]
        except KeyError:
            raise ActcliError(
                f"the card of {self.name} has no split_coverage of split {split!r} in split set {split_id!r}. Write "
                "the shards again with: actcli shard --overwrite"
            ) from None

    def evaluation_split(self, split_id: str = "1") -> str:
        """The split that scores are reported on: ``val`` where there is one with clips, else ``test``."""
        splits = self.splits(split_id)
        for split in ("val", "test"):
            if splits.get(split):
                return split
        raise ActcliError(f"{self.name} has no clips to evaluate on: neither a val nor a test split holds any.")

    def flip_labels(self) -> dict[int, int]:
        """Label of a mirrored clip for each label that mirroring changes."""
        position = {name: label for label, name in enumerate(self.classes)}
        pairs = [(position[a], position[b]) for a, b in self.flip_swaps if a in position and b in position]
        return {a: b for pair in pairs for a, b in (pair, pair[::-1])}

    def file(self, name: str) -> FileSeal | None:
        """The tar or index of that name, where the card lists it."""
        return next((file for file in (*self.shards, *self.files) if file.name == name), None)

    def to_json(self) -> str:
        """The text of ``dataset.json``."""
        value = {"format": SHARD_FORMAT, "version": self.version, **asdict(self)}
        if not self.extends:  # so that cards without are those that they always were
            del value["extends"]
        return json.dumps({**value, "checksum": _checksum(value)}, indent=1) + "\n"

    @staticmethod
    def from_json(text: str | bytes, origin: str) -> "ShardCard":
        """Read the text of ``dataset.json``; ``origin`` names it in errors.

        Raises:
            ActcliError: The text is no card, is damaged, or is of another version.
        """
        try:
            value = json.loads(text)
            if value.pop("format") != SHARD_FORMAT:
                raise ValueError("its format is another")
            _check_version(int(value["version"]), origin)
            checksum = value.pop("checksum")
            card = _typed(value)
            _check(card)
        except ActcliError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            raise ActcliError(
                f"{origin} is not a card of actcli shards ({reason}). Name a folder of shards, or write them into an "
                "empty one with: actcli shard"
            ) from error
        if checksum != json.loads(card.to_json())["checksum"]:
            raise ActcliError(
                f"{origin} has changed since it was written: its checksum is not that of what it says. "
                "Write the shards again with: actcli shard --overwrite"
            )
        return card


def coverage_json(split_coverage: Mapping[str, Mapping[str, Coverage]]) -> dict[str, dict[str, dict[str, int]]]:
    """Coverage by split set and split as plain data."""
    return {
        split_id: {split: asdict(coverage) for split, coverage in splits.items()}
        for split_id, splits in split_coverage.items()
    }


def our_names(text: str | bytes) -> frozenset[str] | None:
    """Names of the files that belong to the card with this text, whatever its version; ``None`` if it is no card."""
    try:
        value = json.loads(text)
        if value["format"] != SHARD_FORMAT:
            return None
        tars = [shard["name"] for shard in value["shards"] if SHARD_NAME.fullmatch(shard["name"])]
        sets = value["split_sets"]
        indexes = [
            index_name(split, split_id, len(sets))
            for split_id, splits in sets.items()
            for split in splits
            if _SPLIT_NAME.fullmatch(split_id) and _SPLIT_NAME.fullmatch(split)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return frozenset([*tars, *(dali_index_name(tar) for tar in tars), *indexes])


def dali_index_name(shard_name: str) -> str:
    """Name of DALI's index of a tar."""
    return f"{shard_name.removesuffix('.tar')}.idx"


def index_name(split: str, split_id: str, num_split_sets: int) -> str:
    """File name of the index of one split."""
    return f"{split}{split_id if num_split_sets > 1 else ''}.index.parquet"


def _checksum(value: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _typed(value: dict[str, Any]) -> ShardCard:
    value["shards"] = tuple(ShardFile(**shard) for shard in value["shards"])
    value["split_coverage"] = {
        split_id: {split: Coverage(**counts) for split, counts in splits.items()}
        for split_id, splits in value["split_coverage"].items()
    }
    value["files"] = tuple(FileSeal(**file) for file in value["files"])
    value["extends"] = tuple(value.get("extends", ()))
    value["extraction"] = read_extraction(value["extraction"])
    value["flip_swaps"] = tuple((a, b) for a, b in value["flip_swaps"])
    value["classes"], value["modalities"] = tuple(value["classes"]), tuple(value["modalities"])
    return ShardCard(**value)


def _check(card: ShardCard) -> None:
    """Names are names and numbers are counts; raises ``ValueError`` otherwise."""
    _check_texts("class and dataset names", [card.name, card.source_digest, *card.extends, *card.classes])
    _check_texts("flip_swaps", [name for pair in card.flip_swaps for name in pair])
    if card.flip not in get_args(FlipPolicy):
        raise ValueError(f"flip policy {card.flip!r} is unknown")
    if card.payload not in get_args(StoredPayload) or not set(card.modalities) <= {"rgb", "flow"}:
        raise ValueError(f"payload {card.payload!r} or modalities {card.modalities!r} are unknown")
    for split_id, splits in card.split_sets.items():
        _check_counts("split_sets", splits)
        if any(not _SPLIT_NAME.fullmatch(name) for name in (split_id, *splits)):
            raise ValueError(f"split set {split_id!r} or a split of it is no name")
    _check_counts("coverage", card.coverage)
    for splits_of in card.split_coverage.values():
        for split, coverage in splits_of.items():
            _check_counts(f"coverage of {split}", asdict(coverage))
    if not isinstance(card.settings, dict):
        raise ValueError("settings must be an object")
    _check_files(card)


def _check_files(card: ShardCard) -> None:
    indexes = {index_name(name, key, len(card.split_sets)) for key, names in card.split_sets.items() for name in names}
    indexes |= {dali_index_name(shard.name) for shard in card.shards}
    for shard in card.shards:
        if not SHARD_NAME.fullmatch(shard.name):
            raise ValueError(f"{shard.name!r} is no name of a tar")
        _check_counts(shard.name, {"num_clips": shard.num_clips})
    if wrong := {file.name for file in card.files} - indexes:
        raise ValueError(f"{sorted(wrong)[0]!r} is no name of an index")
    for file in (*card.shards, *card.files):
        _check_counts(file.name, {"bytes": file.bytes})
        if not _SHA256.fullmatch(file.checksum):
            raise ValueError(f"the checksum of {file.name} is none")
    names = [file.name for file in (*card.shards, *card.files)]
    if len(set(names)) < len(names):
        raise ValueError("a file is listed twice")


def _check_texts(what: str, texts: Sequence[object]) -> None:
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{what}: {text!r} is no text")
        text.encode()  # half a surrogate pair, which JSON can spell, raises ValueError


def _check_counts(what: str, counts: Mapping[str, object]) -> None:
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise ValueError(f"{what}: {name} is {count!r}")


def _check_version(version: int, origin: str) -> None:
    if not OLDEST_VERSION <= version <= SHARD_FORMAT_VERSION:
        remedy = (
            "Update actcli: pip install -U actcli"
            if version > SHARD_FORMAT_VERSION
            else "Write the shards again with: actcli shard --overwrite"
        )
        known = f"{OLDEST_VERSION} to {SHARD_FORMAT_VERSION}"
        raise ActcliError(f"{origin} has format version {version}, this actcli reads {known}. {remedy}")
