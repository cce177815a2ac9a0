"""A few clips first: of some classes, or a balanced number of them."""

from collections.abc import Mapping, Sequence
from itertools import islice, zip_longest

from actcli.errors import ActcliError
from actcli.ingest.records import ClipRecord, Listing, shown_names


def choose_clips(
    listing: Listing, located: Mapping[str, str], classes: Sequence[str] = (), sample: int | None = None
) -> dict[str, str]:
    """The entries of ``located`` (source id to path) that an extraction is to take.

    Args:
        listing: The official list.
        located: Where the clips are that are on disk.
        classes: Names of the classes to take; all of them when empty.
        sample: So many clips, in turn from each class of each split in the order of the list; all of them when None.

    Raises:
        ActcliError: There is no such class.
    """
    unknown = sorted(set(classes) - set(listing.classes))
    if unknown:
        raise ActcliError(
            f"--classes names {shown_names(unknown)}, which the dataset does not have. Its classes begin with "
            f"{shown_names(listing.classes)}"
        )
    chosen = [
        record
        for record in listing.records
        if record.source_id in located and (not classes or record.class_name in classes)
    ]
    if sample is not None:
        chosen = list(islice(_in_turn(chosen), sample))
    return {record.source_id: located[record.source_id] for record in chosen}


def _in_turn(records: Sequence[ClipRecord]) -> list[ClipRecord]:
    """One of each class of each split, then a second of each, and so on."""
    groups: dict[tuple[str, ...], list[ClipRecord]] = {}
    for record in records:
        groups.setdefault((record.class_name, *sorted(record.splits.values())), []).append(record)
    rounds = zip_longest(*groups.values())
    return [record for one_of_each in rounds for record in one_of_each if record is not None]
