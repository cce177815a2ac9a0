"""Dividing an own dataset into train and val: by class, for good, and with recordings kept whole."""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import write_text_whole
from actcli.ingest.records import ClipRecord, Listing, shown_names
from actcli.words import counted

SPLITS_NAME = "splits.json"


@dataclass(frozen=True)
class SplitRule:
    """How clips that come without a split are divided."""

    val_fraction: float = 0.2
    """Share of each class that goes to val, between 0 and 1."""
    group_by: str = ""
    """Regular expression over the path; clips for which its group (or all it matches) is equal stay together."""

    def group_of(self, source_id: str) -> str:
        """The recording that a clip is from; the clip itself where the expression finds nothing."""
        match = re.search(self.group_by, source_id) if self.group_by else None
        if match is None:
            return f"clip {source_id}"
        return "group " + "/".join(part or "" for part in match.groups() or (match[0],))

    def problems(self) -> Iterator[str]:
        """What is wrong with the rule, in sentences."""
        if not 0 < self.val_fraction < 1:
            yield f"--val-fraction is {self.val_fraction:g}; use a number between 0 and 1, for example 0.2."
        try:
            re.compile(self.group_by)
        except re.error as error:
            yield f"--group-by {self.group_by!r} is not a regular expression: {error}."


def divide(listing: Listing, rule: SplitRule, frames_dir: Path) -> Listing:
    """Give every clip of a listing that has no splits its place in train or val; it stays marked as divided by us.

    Clips that ``splits.json`` in ``frames_dir`` places stay there, whatever is added. New clips go to the side that
    their recording is on, or else fill up their class: about ``val_fraction`` of it, at least one clip, never all.

    Raises:
        ActcliError: The clips there were divided by another rule, or the expression fits no clip.
    """
    known = _read(frames_dir, rule)
    if rule.group_by and not any(re.search(rule.group_by, record.source_id) for record in listing.records):
        raise ActcliError(
            f"--group-by {rule.group_by!r} fits no path, for example not {listing.records[0].source_id!r}."
        )
    split_of = _divided(listing.records, rule, known)
    return replace(
        listing,
        records=tuple(replace(record, splits={"1": split_of[record.source_id]}) for record in listing.records),
        split_sets={"1": ("train", "val")},
    )


def _divided(records: Sequence[ClipRecord], rule: SplitRule, known: Mapping[str, str]) -> dict[str, str]:
    """Source id to split."""
    groups: dict[str, list[ClipRecord]] = {}
    for record in records:
        groups.setdefault(rule.group_of(record.source_id), []).append(record)
    sides = _Sides(Counter(record.label for record in records), rule.val_fraction)
    fresh = []
    for name, members in groups.items():
        earlier = Counter(known[record.source_id] for record in members if record.source_id in known)
        if earlier:
            side = earlier.most_common(1)[0][0]
            sides.place([record for record in members if known.get(record.source_id, side) == "val"], "val")
            sides.place([record for record in members if known.get(record.source_id, side) == "train"], "train")
        else:
            fresh.append((name, members))
    fresh.sort(key=lambda group: (-len(group[1]), _hash(group[0])))
    for _, members in fresh:
        sides.place(members, "val" if sides.leaves_train(members) and sides.gain(members) > 0 else "train")
    for _, members in reversed(fresh):  # a class that is in no small enough recording: the smallest will do
        if sides.lacks_val(members) and sides.leaves_train(members):
            sides.place(members, "val")
    return sides.split_of


class _Sides:
    """Which clips are on which side so far."""

    def __init__(self, clips_of: Mapping[int, int], val_fraction: float) -> None:
        self._clips_of = clips_of
        self._wanted = {label: _wanted_in_val(count, val_fraction) for label, count in clips_of.items()}
        self._in_val: Counter[int] = Counter()
        self.split_of: dict[str, str] = {}
        """Source id to split."""

    def place(self, members: Sequence[ClipRecord], side: str) -> None:
        if side == "val":
            self._in_val.update(record.label for record in members)
        self.split_of |= dict.fromkeys((record.source_id for record in members), side)

    def leaves_train(self, members: Sequence[ClipRecord]) -> bool:
        """Whether every class keeps a training clip if these go to val."""
        counts = Counter(record.label for record in members)
        return all(self._in_val[label] + count < self._clips_of[label] for label, count in counts.items())

    def gain(self, members: Sequence[ClipRecord]) -> int:
        """By how many clips the classes come nearer to their share if these go to val."""
        counts = Counter(record.label for record in members)
        return sum(
            abs(self._in_val[label] - self._wanted[label]) - abs(self._in_val[label] + count - self._wanted[label])
            for label, count in counts.items()
        )

    def lacks_val(self, members: Sequence[ClipRecord]) -> bool:
        """Whether these are in train, and of a class that has nothing in val."""
        return any(not self._in_val[record.label] for record in members)


def _wanted_in_val(num_clips: int, fraction: float) -> int:
    return min(max(1, round(num_clips * fraction)), num_clips - 1)


def _hash(name: str) -> bytes:
    return hashlib.sha256(os.fsencode(name)).digest()


def _read(frames_dir: Path, rule: SplitRule) -> dict[str, str]:
    """Source id to the split that an earlier run gave it."""
    path = frames_dir / SPLITS_NAME
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text("utf-8"))
        before = SplitRule(value["val_fraction"], value["group_by"])
        known = {str(name): {"train": "train", "val": "val"}[split] for name, split in value["splits"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ActcliError(
            f"{path} is damaged ({error!r}). Bring it back from a copy; without it clips may change sides."
        ) from None
    if before != rule:
        raise ActcliError(
            f"{frames_dir} was divided with --val-fraction {before.val_fraction:g} --group-by {before.group_by!r}: "
            "continue with these, or choose another folder with --frames-dir."
        )
    return known


def write_splits(frames_dir: Path, records: Iterable[ClipRecord], rule: SplitRule) -> None:
    """Note for later runs which side every clip is on; clips that are not listed now keep their note."""
    known = _read(frames_dir, rule)
    splits = known | {record.source_id: record.splits["1"] for record in records}
    if splits != known:
        value = {"val_fraction": rule.val_fraction, "group_by": rule.group_by, "splits": splits}
        write_text_whole(frames_dir / SPLITS_NAME, json.dumps(value, indent=0) + "\n")


def torn_groups(records: Iterable[ClipRecord], rule: SplitRule) -> list[str]:
    """Recordings that lie on several sides of the first split set."""
    sides: dict[str, set[str]] = {}
    for record in records if rule.group_by else ():
        sides.setdefault(rule.group_of(record.source_id), set()).update(record.splits.values())
    return sorted(name.removeprefix("group ") for name, splits in sides.items() if len(splits) > 1)


def untaught_classes(classes: Sequence[str], records: Iterable[ClipRecord], split: str) -> list[str]:
    """Classes without a clip in a split."""
    found = {record.label for record in records if split in record.splits.values()}
    return [name for label, name in enumerate(classes) if label not in found]


def split_problems(listing: Listing) -> Iterator[str]:
    """Classes that nothing could be learnt about."""
    if len(listing.classes) < 2:
        yield (
            f"All clips are of one class, {listing.classes[0] if listing.classes else ''!r}. A class is a folder "
            "directly under the raw folder, or under its train, val and test folders; name the folder above the "
            "classes with --raw-dir."
        )
    elif missing := untaught_classes(listing.classes, listing.records, "train"):
        yield (
            f"{len(missing)} of {len(listing.classes)} classes have no clip for training: {shown_names(missing)}. "
            "Move some of their clips to the training split, or take the classes out."
        )


def loss_warnings(listing: Listing, kept: Collection[str]) -> Iterator[str]:
    """Classes that had clips in the list and have none among those kept or left for later, given by source id."""
    left = [record for record in listing.records if record.source_id in kept]
    for split, purpose in (("train", "training"), ("val", "validation")):
        before = set(untaught_classes(listing.classes, listing.records, split))
        if lost := [name for name in untaught_classes(listing.classes, left, split) if name not in before]:
            classes = counted(len(lost), "class")
            yield f"None of the clips for {purpose} of {classes} could be extracted: {shown_names(lost)}."


def split_warnings(listing: Listing, rule: SplitRule) -> Iterator[str]:
    """Classes that could not be judged, and recordings on both sides."""
    if "val" in listing.split_sets["1"] and (missing := untaught_classes(listing.classes, listing.records, "val")):
        yield f"{counted(len(missing), 'class')} without a clip for validation: {shown_names(missing)}."
    elif {"val", "test"}.isdisjoint(listing.split_sets["1"]):
        yield "There is no clip for validation: training will not be judged."
    if torn := torn_groups(listing.records, rule):
        yield f"{len(torn)} recordings by --group-by lie in several splits: {shown_names(torn)}."
