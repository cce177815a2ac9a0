"""DALI's own index of a tar: a line per clip with suffix, offset, bytes and name of each member (wds2idx, v1.2)."""

from collections.abc import Iterable
from itertools import groupby
from typing import NamedTuple

_HEAD = "v1.2"


class Member(NamedTuple):
    """One file of a clip in a tar."""

    key: str
    """Of the clip."""
    suffix: str
    """``json``, or that of a payload."""
    offset: int
    """First byte of its data in the tar."""
    size: int
    """Bytes."""


def write_dali_index(members: Iterable[Member]) -> str:
    """The text of the index; members of a clip stand next to each other."""
    lines = [
        " ".join(f"{suffix} {offset} {size} {key}.{suffix}" for _, suffix, offset, size in clip)
        for key, clip in groupby(members, lambda member: member.key)
    ]
    return "".join(f"{line}\n" for line in (f"{_HEAD} {len(lines)}", *lines))


def read_dali_keys(text: str) -> list[str]:
    """The keys of the clips of an index that is whole, in the order of the tar."""
    return [line.rpartition(" ")[2].partition(".")[0] for line in text.splitlines()[1:]]
