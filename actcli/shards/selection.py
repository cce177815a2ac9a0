"""Some of the clips of one or several folders of shards, as if they were shards of their own; nothing is rewritten."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.shards.index import Rows, ShardIndex
from actcli.shards.joining import Side, all_sides, check_joinable, chosen_classes, joined_card, label_map, num_clips_of
from actcli.shards.reader import ShardSet
from actcli.shards.subset import WHOLE, Subset

KEYS_OF_FOLDER = 100_000_000
"""Keys of the n-th joined folder, from 0, have n times this added, so that none comes twice."""


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
    check_joinable(parts, subset)
    classes = chosen_classes(parts, subset)
    sides = all_sides(parts)
    chosen = {side: _choose(parts, side, classes, subset) for side in sides}
    _check_excluded(parts, sides, subset)
    if len(parts) > 1:
        _check_overlaps(parts, chosen)
    if labelled_as and not set(classes) <= set(labelled_as):
        raise ActcliError(f"the clips are of other classes than the {len(labelled_as)} that labels are to count by.")
    card = replace(joined_card(parts, classes, chosen, subset), classes=tuple(labelled_as) or classes)
    root = parts[0].root if len(parts) == 1 else "/"
    return Selection(root, card, parts, subset, chosen, {side: num_clips_of(parts, side) for side in sides})


@dataclass(frozen=True)
class Selection(ShardSet):
    """A ``ShardSet`` of which some clips are seen; made by ``select_shards``."""

    parts: tuple[ShardSet, ...]
    subset: Subset
    chosen: Mapping[Side, tuple[Rows, ...]] = field(repr=False)
    totals: Mapping[Side, int] = field(repr=False)

    def index(self, split: str, split_id: str = "1") -> ShardIndex:
        """The chosen clips of one split."""
        side = self._side(split, split_id)
        found = []
        for number, (part, name, rows) in enumerate(zip(self.parts, side.names, self.chosen[side], strict=True)):
            if name:
                index = part.index(name, split_id).take(rows)
                found.append(self._renamed(index, part, number))
        return ShardIndex.joined(found, with_flow="flow" in self.card.modalities)

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

    def _side(self, split: str, split_id: str) -> Side:
        self.card.index_name(split, split_id)  # refuses what does not exist
        return next(side for side in self.chosen if (side.split_id, side.split) == (split_id, split))

    def _renamed(self, index: ShardIndex, part: ShardSet, number: int) -> ShardIndex:
        """Keys, labels and tars of one folder as they are called here."""
        names = index.shard_names
        if len(self.parts) > 1:
            names = tuple(str(Path(part.root).absolute() / name) for name in names)
        labels = label_map(part.card.classes, self.card.classes)[index.labels]
        return replace(index, keys=index.keys + number * KEYS_OF_FOLDER, labels=labels, shard_names=names)


def _choose(parts: Sequence[ShardSet], side: Side, classes: tuple[str, ...], subset: Subset) -> tuple[Rows, ...]:
    """The rows of each folder's index that are taken, ascending."""
    excluded, only = frozenset(subset.exclude_keys), frozenset(subset.only_keys)
    labels, order = [np.empty(0, np.int32)], [np.empty(0, np.uint64)]
    places = [np.empty((0, 2), np.int64)]  # number of the folder, row
    for number, (part, name) in enumerate(zip(parts, side.names, strict=True)):
        index = part.index(name, side.split_id) if name else None
        if index is None or not len(index):
            continue
        if int(index.keys.max()) >= KEYS_OF_FOLDER and len(parts) > 1:
            raise ActcliError(f"{part.root} has keys above {KEYS_OF_FOLDER:,}; such folders cannot be joined.")
        keys = index.keys + number * KEYS_OF_FOLDER
        mapped = label_map(part.card.classes, classes)[index.labels]
        rows = np.flatnonzero((mapped >= 0) | ((index.labels < 0) & (not subset.classes)))
        if excluded or only:
            names = part.clip_names(name, side.split_id)
            called = [frozenset((names[row], f"{keys[row]:09d}")) for row in rows]
            wanted = [not called[n] & excluded and bool(not only or called[n] & only) for n in range(len(rows))]
            rows = rows[np.array(wanted, bool)]
        labels.append(mapped[rows])
        order.append(_shuffled(keys[rows], subset.seed))
        places.append(np.stack([np.full(len(rows), number), rows], axis=1))
    kept = _fewer(np.concatenate(labels), np.concatenate(order), subset)
    chosen = np.concatenate(places)[kept]
    return tuple(np.sort(chosen[chosen[:, 0] == number, 1]) for number in range(len(parts)))


def _shuffled(keys: NDArray[np.int64], seed: int) -> NDArray[np.uint64]:
    """A number for each key that hangs on key and seed alone, so that other clips do not change which are kept.

    Source: splitmix64, Steele et al., "Fast splittable pseudorandom number generators", 2014.
    """
    z = keys.astype(np.uint64) + np.uint64((seed * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def _fewer(labels: NDArray[np.int32], order: NDArray[np.uint64], subset: Subset) -> Rows:
    """Positions of the clips that fraction and maximum leave: the first of each class in ``order``."""
    if subset.fraction == 1 and subset.max_clips_per_class is None:
        return np.arange(len(labels))
    kept = [np.empty(0, np.int64)]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = int(np.ceil(subset.fraction * len(members) - 1e-9))
        count = min(count, subset.max_clips_per_class or count)
        kept.append(members[np.argsort(order[members], kind="stable")[:count]])
    return np.sort(np.concatenate(kept))


def _check_excluded(parts: Sequence[ShardSet], sides: Sequence[Side], subset: Subset) -> None:
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


def _check_overlaps(parts: Sequence[ShardSet], chosen: Mapping[Side, tuple[Rows, ...]]) -> None:
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
