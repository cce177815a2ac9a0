"""Some of the clips of one or several folders of shards, as if they were shards of their own; nothing is rewritten."""

import difflib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.ingest.records import FlipPolicy
from actcli.shards.card import Coverage, ShardCard
from actcli.shards.index import Array, FrameTable, ShardIndex
from actcli.shards.reader import ShardSet, is_local

KEYS_OF_FOLDER = 100_000_000
"""Keys of the n-th joined folder, from 0, have n times this added, so that none comes twice."""
_MAX_FOLDERS = 10
_NUM_NAMED = 3

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Subset:
    """Which clips to take; all of them unless it says otherwise."""

    classes: tuple[str, ...] = ()
    """Names of the classes to keep; the others, and clips without a class, are left out."""
    fraction: float = 1.0
    """Share of the clips of each class, in (0, 1]; a smaller share is a part of a larger one."""
    max_clips_per_class: int | None = None
    """At most so many clips of each class; the same that a fraction would keep first."""
    exclude_keys: tuple[str, ...] = ()
    """Keys (9 digits) or names of clips that are left out."""
    only_keys: tuple[str, ...] = ()
    """Keys or names of the only clips to take, where there are any."""
    seed: int = 0
    """Which clips ``fraction`` and ``max_clips_per_class`` keep."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.fraction <= 1:
            raise ActcliError(f"fraction is {self.fraction}; it has to be more than 0 and at most 1.")
        if self.max_clips_per_class is not None and self.max_clips_per_class < 1:
            raise ActcliError(f"max_clips_per_class is {self.max_clips_per_class}; it has to be at least 1.")

    def of_tests(self) -> "Subset":
        """What a test leaves out of a training's subset: the same classes and keys, but no share of the clips."""
        return replace(self, fraction=1.0, max_clips_per_class=None)

    def in_words(self) -> str:
        """What it asks for: ``classes a and b; 10 % of each class``."""
        said = []
        if self.classes:
            said.append(f"only {len(self.classes)} classes ({_some(self.classes)})")
        if self.fraction < 1:
            said.append(f"{100 * self.fraction:g} % of each class")
        if self.max_clips_per_class is not None:
            said.append(f"at most {self.max_clips_per_class} of each class")
        if self.only_keys:
            said.append(f"only {len(self.only_keys)} listed clips")
        if self.exclude_keys:
            said.append(f"without {len(self.exclude_keys)} listed clips")
        return ", ".join(said)


WHOLE = Subset()
"""All clips."""


def read_keys(path: Path) -> tuple[str, ...]:
    """Keys or names of clips, one a line; empty lines are passed over.

    Raises:
        ActcliError: The file cannot be read.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ActcliError(f"{path} cannot be read ({error}). It has to name a clip or a key a line.") from error
    return tuple(line.strip() for line in lines if line.strip())


def select_shards(roots: Sequence[str | Path], subset: Subset = WHOLE, labelled_as: Sequence[str] = ()) -> ShardSet:
    """The shards in ``roots`` as one, with the clips that ``subset`` takes.

    Classes are joined by name: those of the first folder, then the new ones of the next. Keys of the n-th folder,
    from 0, have n * 100,000,000 added. A mirrored clip never gets the label of a class that is left out.

    Args:
        roots: Folders or URLs; several have to be folders.
        subset: Which clips.
        labelled_as: Class list to count labels by, which may hold more classes; those that are there unless given.

    Raises:
        ActcliError: A class or key is unknown, nothing is left, or the folders contradict each other.
    """
    if not roots:
        raise ActcliError("name at least one folder of shards.")
    parts = tuple(ShardSet.open(str(root)) for root in roots)
    if len(parts) == 1 and subset == replace(WHOLE, seed=subset.seed) and not labelled_as:
        return parts[0]
    _check_joinable(parts, subset)
    classes = _chosen_classes(parts, subset)
    sides = _sides(parts)
    chosen = {side: _choose(parts, side, classes, subset) for side in sides}
    _check_excluded(parts, sides, subset)
    if len(parts) > 1:
        _check_overlaps(parts, chosen)
    card = replace(_card(parts, classes, chosen, subset), classes=tuple(labelled_as) or classes)
    root = parts[0].root if len(parts) == 1 else "/"
    return Selection(root, card, parts, subset, chosen, {side: _total(parts, side) for side in sides})


@dataclass(frozen=True)
class _Side:
    """One split of one split set."""

    split_id: str
    split: str
    names: tuple[str, ...]
    """What each folder calls it; empty where it has no such split."""


@dataclass(frozen=True)
class Selection(ShardSet):
    """A ``ShardSet`` of which some clips are seen; made by ``select_shards``."""

    parts: tuple[ShardSet, ...]
    subset: Subset
    chosen: Mapping[_Side, tuple[Rows, ...]] = field(repr=False)
    totals: Mapping[_Side, int] = field(repr=False)

    def index(self, split: str, split_id: str = "1") -> ShardIndex:
        """The chosen clips of one split."""
        side = self._side(split, split_id)
        found = []
        for number, (part, name, rows) in enumerate(zip(self.parts, side.names, self.chosen[side], strict=True)):
            if name:
                index = _taken(part.index(name, split_id), rows)
                found.append(self._renamed(index, part, number))
        return _joined(found, "flow" in self.card.modalities)

    def clip_names(self, split: str, split_id: str = "1") -> tuple[str, ...]:
        """Names of the chosen clips, in the order of ``index``."""
        side = self._side(split, split_id)
        names: list[str] = []
        for part, name, rows in zip(self.parts, side.names, self.chosen[side], strict=True):
            if name:
                all_names = part.clip_names(name, split_id)
                names += [all_names[row] for row in rows]
        return tuple(names)

    def left_out(self, split: str, split_id: str = "1") -> str:
        """``40 of 98 clips of train are used: 50 % of each class``."""
        side = self._side(split, split_id)
        kept, total = self.card.split_sets[split_id][split], self.totals[side]
        if kept == total:
            return ""
        return f"{total - kept} of {total} clips of {split} ({self.subset.in_words()})"

    def _side(self, split: str, split_id: str) -> _Side:
        self.card.index_name(split, split_id)  # refuses what does not exist
        return next(side for side in self.chosen if (side.split_id, side.split) == (split_id, split))

    def _renamed(self, index: ShardIndex, part: ShardSet, number: int) -> ShardIndex:
        """Keys, labels and tars of one folder as they are called here."""
        names = index.shard_names
        if len(self.parts) > 1:
            names = tuple(str(Path(part.root).absolute() / name) for name in names)
        labels = _label_map(part.card.classes, self.card.classes)[index.labels]
        return replace(index, keys=index.keys + number * KEYS_OF_FOLDER, labels=labels, shard_names=names)


def _check_joinable(parts: Sequence[ShardSet], subset: Subset) -> None:
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
            raise ActcliError(
                f"{first.root} holds {first.card.payload}, {other.root} {other.card.payload}. Write both with the same "
                f"payload: actcli shard --payload …"
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
            raise ActcliError(
                f"mirrored clips of {differing[0]!r} are of class {_mirrored(one.card, differing[0])!r} in {one.root} "
                f"and {_mirrored(other.card, differing[0])!r} in {other.root}; such folders cannot be joined."
            )


def _mirrored(card: ShardCard, name: str) -> str | None:
    """The class of a mirrored clip of class ``name``; None where clips must not be mirrored."""
    if card.flip == "forbidden":
        return None
    pairs = [pair for pair in card.flip_swaps if name in pair]
    return next((b if a == name else a for a, b in pairs), name)


def _chosen_classes(parts: Sequence[ShardSet], subset: Subset) -> tuple[str, ...]:
    known = tuple(dict.fromkeys(name for part in parts for name in part.card.classes))
    unknown = [name for name in subset.classes if name not in known]
    if unknown:
        close = difflib.get_close_matches(unknown[0], known, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"its classes are: {_some(known)}."
        name = "+".join(part.card.name for part in parts)
        raise ActcliError(f"{name} has no class {unknown[0]!r}; {hint}")
    return tuple(name for name in known if not subset.classes or name in subset.classes)


def _sides(parts: Sequence[ShardSet]) -> tuple[_Side, ...]:
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
                found.append(
                    _Side(split_id, split, tuple(_name_in(part, split, split_id, evaluated) for part in parts))
                )
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


def _choose(parts: Sequence[ShardSet], side: _Side, classes: tuple[str, ...], subset: Subset) -> tuple[Rows, ...]:
    """The rows of each folder's index that are taken, ascending."""
    excluded, only = frozenset(subset.exclude_keys), frozenset(subset.only_keys)
    labels, order, places = [], [], []
    for number, (part, name) in enumerate(zip(parts, side.names, strict=True)):
        index = part.index(name, side.split_id) if name else None
        if index is None or not len(index):
            continue
        if int(index.keys.max()) >= KEYS_OF_FOLDER and len(parts) > 1:
            raise ActcliError(f"{part.root} has keys above {KEYS_OF_FOLDER:,}; such folders cannot be joined.")
        keys = index.keys + number * KEYS_OF_FOLDER
        mapped = _label_map(part.card.classes, classes)[index.labels]
        rows = np.flatnonzero((mapped >= 0) | ((index.labels < 0) & (not subset.classes)))
        if excluded or only:
            names = part.clip_names(name, side.split_id)
            called = [frozenset((names[row], f"{keys[row]:09d}")) for row in rows]
            wanted = [not called[n] & excluded and bool(not only or called[n] & only) for n in range(len(rows))]
            rows = rows[np.array(wanted, bool)]
        labels.append(mapped[rows])
        order.append(_shuffled(keys[rows], subset.seed))
        places.append(np.stack([np.full(len(rows), number), rows], axis=1))
    kept = _fewer(_flat(labels), _flat(order), subset)
    chosen = np.concatenate(places)[kept] if places else np.empty((0, 2), np.int64)
    return tuple(np.sort(chosen[chosen[:, 0] == number, 1]).astype(np.int64) for number in range(len(parts)))


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def _shuffled(keys: Array, seed: int) -> Array:
    """A number for each key that hangs on key and seed alone, so that other clips do not change which are kept.

    Source: splitmix64, Steele et al., "Fast splittable pseudorandom number generators", 2014.
    """
    z = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def _fewer(labels: Array, order: Array, subset: Subset) -> Rows:
    """Positions of the clips that fraction and maximum leave: the first of each class in ``order``."""
    if subset.fraction == 1 and subset.max_clips_per_class is None:
        return np.arange(len(labels))
    kept = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(np.ceil(subset.fraction * len(members) - 1e-9))
        count = min(count, subset.max_clips_per_class or count)
        kept.append(members[np.argsort(order[members], kind="stable")[:count]])
    return np.sort(_flat(kept)).astype(np.int64)


def _check_excluded(parts: Sequence[ShardSet], sides: Sequence[_Side], subset: Subset) -> None:
    """Refuse a list of which no clip is there: it belongs to other shards."""
    if not subset.exclude_keys:
        return
    known: set[str] = set()
    for side in sides:
        for number, (part, name) in enumerate(zip(parts, side.names, strict=True)):
            if name:
                known.update(part.clip_names(name, side.split_id))
                known.update(f"{key + number * KEYS_OF_FOLDER:09d}" for key in part.index(name, side.split_id).keys)
    if known.isdisjoint(subset.exclude_keys):
        raise ActcliError(
            f"none of the {len(subset.exclude_keys)} clips to leave out is there, such as {subset.exclude_keys[0]!r}. "
            f"Name keys (9 digits) or clips as in scores.parquet, one a line."
        )


def _check_overlaps(parts: Sequence[ShardSet], chosen: Mapping[_Side, tuple[Rows, ...]]) -> None:
    """Refuse the same clip of one family of datasets in several folders; names of different datasets mean nothing."""
    for split_id in {side.split_id for side in chosen}:
        seen: dict[tuple[str, str], str] = {}
        for side in (side for side in chosen if side.split_id == split_id):
            for part, name, rows in zip(parts, side.names, chosen[side], strict=True):
                names = part.clip_names(name, split_id) if name else ()
                for clip in (names[row] for row in rows):
                    place = f"{side.split} of {part.root}"
                    before = seen.setdefault((_family(part.card.name), clip), place)
                    if before != place:
                        raise ActcliError(
                            f"clip {clip!r} is in {before} and in {place}. Leave it out of one with exclude_keys "
                            f"(--exclude-keys)."
                        )


def _family(dataset: str) -> str:
    return "kinetics" if dataset.startswith("kinetics") else dataset


def _total(parts: Sequence[ShardSet], side: _Side) -> int:
    counts = (part.card.split_sets[side.split_id][name] for part, name in zip(parts, side.names, strict=True) if name)
    return sum(counts)


def _label_map(own: Sequence[str], classes: Sequence[str]) -> Array:
    """``[len(own) + 1]`` int32: label of each own label, −1 for a class left out and (the last) for −1."""
    places = {name: label for label, name in enumerate(classes)}
    return np.array([*(places.get(name, -1) for name in own), -1], np.int32)


def _card(
    parts: Sequence[ShardSet], classes: tuple[str, ...], chosen: Mapping[_Side, tuple[Rows, ...]], subset: Subset
) -> ShardCard:
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
        coverage={key: sum(part.card.coverage[key] for part in parts) for key in parts[0].card.coverage},
        split_coverage=coverage,
        source_digest=hashlib.sha256(identity.encode()).hexdigest(),
        shards=tuple(shard for part in parts for shard in part.card.shards),
        files=(),
    )


def _covered(parts: Sequence[ShardSet], side: _Side) -> Coverage:
    """Coverage of the official lists, whatever was left out of what they have."""
    found = [p.card.split_coverage[side.split_id][name] for p, name in zip(parts, side.names, strict=True) if name]
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


def _taken(index: ShardIndex, rows: Rows) -> ShardIndex:
    """Some rows of an index."""
    return replace(
        index,
        rgb=_taken_frames(index.rgb, rows),
        flow=_taken_frames(index.flow, rows) if index.flow else None,
        **{name: getattr(index, name)[rows] for name in _COLUMNS},
    )


_COLUMNS = (
    "keys",
    "labels",
    "shard_ids",
    "payload_bytes",
    "num_frames",
    "widths",
    "heights",
    "fps",
    "flow_num_frames",
    "flow_bounds",
)
"""Columns of ``ShardIndex`` with a number for each clip."""


def _taken_frames(table: FrameTable, rows: Rows) -> FrameTable:
    lengths = np.diff(table.starts)[rows]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    # place of each wanted picture in the old table: old start of its clip, plus its number in the clip
    places = np.repeat(table.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
    crcs = table.crcs[places] if len(table.crcs) else table.crcs
    return FrameTable(table.offsets[rows], starts, table.sizes[places], crcs)


def _joined(indexes: Sequence[ShardIndex], with_flow: bool) -> ShardIndex:
    """The rows of all indexes, one after the other."""
    if len(indexes) == 1:
        return indexes[0] if with_flow else replace(indexes[0], flow=None)
    offsets = np.cumsum([0, *(len(index.shard_names) for index in indexes)])
    columns = {name: np.concatenate([getattr(index, name) for index in indexes]) for name in _COLUMNS}
    columns["shard_ids"] = np.concatenate(
        [index.shard_ids + np.int32(offset) for index, offset in zip(indexes, offsets[:-1], strict=True)]
    )
    flows = [index.flow for index in indexes if index.flow is not None]
    return ShardIndex(
        shard_names=tuple(name for index in indexes for name in index.shard_names),
        rgb=_joined_frames([index.rgb for index in indexes]),
        flow=_joined_frames(flows) if with_flow else None,
        **columns,
    )


def _joined_frames(tables: Sequence[FrameTable]) -> FrameTable:
    lengths = np.concatenate([np.diff(table.starts) for table in tables])
    return FrameTable(
        np.concatenate([table.offsets for table in tables]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        np.concatenate([table.sizes for table in tables]),
        np.concatenate([table.crcs for table in tables]),
    )


def _some(names: Sequence[str]) -> str:
    """The first few, in quotes."""
    more = len(names) - _NUM_NAMED
    return ", ".join(map(repr, names[:_NUM_NAMED])) + (f" and {more} more" if more > 0 else "")
