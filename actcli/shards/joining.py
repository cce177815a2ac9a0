"""Several folders of shards as one: whether they go together, and their classes, splits and card."""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.ingest.records import FlipPolicy
from actcli.remote import is_local
from actcli.shards.card import Coverage, ShardCard
from actcli.shards.index import Rows
from actcli.shards.reader import ShardSet
from actcli.shards.subset import Subset, some_names

_MAX_FOLDERS = 10


@dataclass(frozen=True)
class Side:
    """One split of one split set."""

    split_id: str
    split: str
    names: tuple[str, ...]
    """What each folder calls it; empty where it has no such split."""


def check_joinable(parts: Sequence[ShardSet], subset: Subset) -> None:
    """Refuse folders that contradict each other.

    Raises:
        ActcliError: They differ in payload, in the spelling or mirroring of a class, or have nothing in common.
    """
    first, *others = parts
    if len(parts) > _MAX_FOLDERS:
        raise ActcliError(f"{len(parts)} folders of shards are too many; at most {_MAX_FOLDERS} can be joined.")
    for part in parts if others else ():
        if not is_local(part.root):
            raise ActcliError(f"{part.root} is a URL, and only local folders can be joined. Copy the shards here.")
    for number, other in enumerate(others, 1):
        if any(other.card.source_digest == before.card.source_digest for before in parts[:number]):
            raise ActcliError(f"{other.root} holds the same shards as another folder; name each once.")
        if other.card.payload != first.card.payload:
            payloads = {first.card.payload, other.card.payload}
            command = "extract and shard one of them again" if "source" in payloads else "actcli shard --payload …"
            raise ActcliError(
                f"{first.root} holds {first.card.payload}, {other.root} {other.card.payload}. Write both with the same "
                f"payload: {command}"
            )
    if not set.intersection(*(set(part.card.modalities) for part in parts)):
        raise ActcliError("the folders have no modality in common: some hold RGB frames only, some flow only.")
    if not set.intersection(*(set(part.card.split_sets) for part in parts)):
        raise ActcliError("the folders have no split set in common.")
    _check_spelling(parts, subset)
    _check_swaps(parts, subset)


def _check_spelling(parts: Sequence[ShardSet], subset: Subset) -> None:
    """Refuse classes that differ in spelling only: nobody means two classes by them."""
    spelled: dict[str, tuple[str, str]] = {}
    for part in parts if len(parts) > 1 else ():
        for name in (name for name in part.card.classes if not subset.classes or name in subset.classes):
            plain = re.sub(r"[\W_]+", " ", name).strip().casefold()
            known, root = spelled.setdefault(plain, (name, part.root))
            if known != name and root != part.root:
                raise ActcliError(
                    f"class {known!r} of {root} is spelled {name!r} in {part.root}. Extract one of them with the other "
                    f"spelling, or leave the class out with classes (--classes)."
                )


def _check_swaps(parts: Sequence[ShardSet], subset: Subset) -> None:
    """Refuse shared classes whose mirror image is of another class in each folder."""
    for one, other in combinations(parts, 2):
        shared = set(one.card.classes) & set(other.card.classes) & set(subset.classes or one.card.classes)
        differing = [name for name in sorted(shared) if _mirrored(one.card, name) != _mirrored(other.card, name)]
        if differing:
            of_one, of_other = (_mirrored(part.card, differing[0]) for part in (one, other))
            raise ActcliError(
                f"mirrored clips of {differing[0]!r} are of {_class_in_words(of_one)} in {one.root} and of "
                f"{_class_in_words(of_other)} in {other.root}; such folders cannot be joined."
            )


def _class_in_words(name: str | None) -> str:
    return "no class (mirroring is forbidden)" if name is None else f"class {name!r}"


def _mirrored(card: ShardCard, name: str) -> str | None:
    """The class of a mirrored clip of class ``name``; None where clips must not be mirrored."""
    if card.flip == "forbidden":
        return None
    pairs = [pair for pair in card.flip_swaps if name in pair]
    return next((b if a == name else a for a, b in pairs), name)


def chosen_classes(parts: Sequence[ShardSet], subset: Subset) -> tuple[str, ...]:
    """Those of the first folder that ``subset`` keeps, then the new ones of the next.

    Raises:
        ActcliError: ``subset`` names a class that no folder has.
    """
    known = tuple(dict.fromkeys(name for part in parts for name in part.card.classes))
    unknown = [name for name in subset.classes if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"its classes are: {some_names(known)}."
        name = "+".join(part.card.name for part in parts)
        raise ActcliError(f"{name} has no class {unknown[0]!r}; {hint}")
    return tuple(name for name in known if not subset.classes or name in subset.classes)


def all_sides(parts: Sequence[ShardSet]) -> tuple[Side, ...]:
    """The splits of the first folder, and those that only others have.

    The split that a folder is evaluated on goes with that of the first one: UCF101's ``test`` with Kinetics' ``val``.
    """
    found = []
    for split_id in parts[0].card.split_sets:
        if all(split_id in part.card.split_sets for part in parts):
            evaluated = _evaluated(parts[0], split_id)
            names = dict.fromkeys(
                _named(part, split, split_id, evaluated) for part in parts for split in part.card.split_sets[split_id]
            )
            for split in names:
                found.append(Side(split_id, split, tuple(_name_in(part, split, split_id, evaluated) for part in parts)))
    return tuple(found)


def _evaluated(part: ShardSet, split_id: str) -> str:
    splits = part.card.split_sets[split_id]
    return next((split for split in ("val", "test") if splits.get(split)), "val")


def _named(part: ShardSet, split: str, split_id: str, evaluated: str) -> str:
    """What a split of a folder is called here."""
    stands_in = split == _evaluated(part, split_id) and not part.card.split_sets[split_id].get(evaluated)
    return evaluated if stands_in else split


def _name_in(part: ShardSet, split: str, split_id: str, evaluated: str) -> str:
    """What a folder calls the split that is ``split`` here; empty where it has none."""
    return next((own for own in part.card.split_sets[split_id] if _named(part, own, split_id, evaluated) == split), "")


def num_clips_of(parts: Sequence[ShardSet], side: Side) -> int:
    """Clips that all folders have on one side."""
    counts = (part.card.split_sets[side.split_id][name] for part, name in zip(parts, side.names, strict=True) if name)
    return sum(counts)


def label_map(own: Sequence[str], classes: Sequence[str]) -> NDArray[np.int32]:
    """``[len(own) + 1]`` int32: label of each own label, −1 for a class left out and (the last) for −1."""
    places = {name: label for label, name in enumerate(classes)}
    return np.array([*(places.get(name, -1) for name in own), -1], np.int32)


def joined_card(
    parts: Sequence[ShardSet], classes: tuple[str, ...], chosen: Mapping[Side, tuple[Rows, ...]], subset: Subset
) -> ShardCard:
    """The card of the clips ``chosen`` on each side (rows of each folder's index).

    Raises:
        ActcliError: No clip is left.
    """
    counts: dict[str, dict[str, int]] = {}
    coverage: dict[str, dict[str, Coverage]] = {}
    for side, rows in chosen.items():
        counts.setdefault(side.split_id, {})[side.split] = sum(map(len, rows))
        coverage.setdefault(side.split_id, {})[side.split] = _covered(parts, side)
    if not any(sum(splits.values()) for splits in counts.values()):
        raise ActcliError(f"no clip is left ({subset.in_words()}).")
    flip, swaps = _mirroring(parts, classes)
    identity = repr([[part.card.source_digest for part in parts], asdict(subset)])
    return replace(
        parts[0].card,
        name="+".join(dict.fromkeys(part.card.name for part in parts)),
        classes=classes,
        flip=flip,
        flip_swaps=swaps,
        modalities=tuple(name for name in parts[0].card.modalities if all(name in p.card.modalities for p in parts)),
        split_sets=counts,
        coverage={key: sum(part.card.coverage[key] for part in parts) for key in _common_coverage(parts)},
        split_coverage=coverage,
        source_digest=hashlib.sha256(identity.encode()).hexdigest(),
        shards=tuple(shard for part in parts for shard in part.card.shards),
        files=(),
    )


def _common_coverage(parts: Sequence[ShardSet]) -> list[str]:
    """What all the cards count; those of shards without flow don't count clips with flow."""
    return [key for key in parts[0].card.coverage if all(key in part.card.coverage for part in parts)]


def _covered(parts: Sequence[ShardSet], side: Side) -> Coverage:
    """Coverage of the official lists, whatever was left out of what they have."""
    found = [part.card.covered(name, side.split_id) for part, name in zip(parts, side.names, strict=True) if name]
    names = ("listed", "ok", "failed", "missing")
    return Coverage(**{name: sum(getattr(one, name) for one in found) for name in names})


def _mirroring(parts: Sequence[ShardSet], classes: tuple[str, ...]) -> tuple[FlipPolicy, tuple[tuple[str, str], ...]]:
    """What mirroring is allowed to all, where the class of every mirrored clip is kept."""
    swaps = tuple(dict.fromkeys(pair for part in parts for pair in part.card.flip_swaps))
    kept = tuple(pair for pair in swaps if pair[0] in classes and pair[1] in classes)
    torn = any((a in classes) != (b in classes) for a, b in swaps)
    if torn or any(part.card.flip == "forbidden" for part in parts):
        return "forbidden", ()
    return ("swap" if kept else "allowed"), kept
