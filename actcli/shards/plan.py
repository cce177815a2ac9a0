"""The plan of the shards: which clip goes into which tar, and which byte of it lies where.

A pure function of clips and settings. Each member of a tar is a header of one block and its data, padded to blocks:

    | header | key.json … | header | key.mjpeg … | header | next key.json … |
    0        512          ·        ^ offset of the payload, as the index has it
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actcli.facts import NO_SIZES, Sizes
from actcli.ingest.card import DatasetCard
from actcli.shards.card import dali_index_name, index_name
from actcli.shards.clip import StoredClip
from actcli.shards.dali import Member, write_dali_index
from actcli.shards.manifest import Clip
from actcli.shards.note import write_note
from actcli.shards.options import ShardOptions

BLOCK = 512
"""Tar's block size: a header takes one block, data is padded to whole blocks."""
TAR_END = 10_240
"""A tar ends with empty blocks that fill it up to a multiple of this."""

Crcs = Mapping[str, Sizes]
"""CRC-32 of each JPEG, or of the one video, by member name."""


@dataclass(frozen=True)
class PlannedTar:
    """One tar: its name and what goes into it."""

    name: str
    """``train-000000.tar``."""
    clips: tuple[Clip, ...]
    """In the order of the tar."""

    def members(self) -> Iterator[Member]:
        """Every member, in order."""
        position = 0
        for clip in self.clips:
            for suffix, size in _contents(clip):
                yield Member(clip.key, suffix, position + BLOCK, size)
                position += BLOCK + _padded(size)

    def num_bytes(self) -> int:
        """Size of the tar."""
        data = sum(_tar_bytes(clip) for clip in self.clips)
        return -(-(data + 2 * BLOCK) // TAR_END) * TAR_END

    def stored_clips(self, crcs: Crcs) -> Iterator[StoredClip]:
        """The clips with their places in this tar."""
        offsets = {f"{member.key}.{member.suffix}": member.offset for member in self.members()}
        for clip in self.clips:
            rgb, flow = clip.member_name(clip.rgb), clip.member_name(clip.flow)
            yield replace(
                clip.stored(),
                shard=self.name,
                offset=offsets.get(rgb, 0),
                frame_crcs=crcs.get(rgb, NO_SIZES),
                flow_offset=offsets.get(flow, 0),
                flow_frame_crcs=crcs.get(flow, NO_SIZES),
            )

    def dali_index(self) -> str:
        """DALI's index."""
        return write_dali_index(self.members())


def plan_tars(
    clips: Sequence[Clip], split_sets: Iterable[str], options: ShardOptions, before: Sequence[str] = ()
) -> list[PlannedTar]:
    """Which clips go into which tar, in which order.

    Args:
        clips: What is packed.
        split_sets: Names of the split sets.
        options: Seed and size.
        before: Tars that are there and stay; the new ones are numbered from theirs on.
    """
    taken = Counter(name.rpartition("-")[0] for name in before)
    groups: dict[str, list[Clip]] = {}
    has_one_set = set(split_sets) == {"1"}
    for clip in clips:
        groups.setdefault(clip.splits.get("1", "none") if has_one_set else "all", []).append(clip)
    plan = []
    for name in sorted(groups):
        seed = [options.seed, *name.encode()]
        order = np.random.default_rng(seed).permutation(len(groups[name]))
        tars = _packed([groups[name][i] for i in order], options.shard_bytes)
        plan += [PlannedTar(f"{name}-{number:06d}.tar", tuple(tar)) for number, tar in enumerate(tars, taken[name])]
    return plan


def output_names(plan: Sequence[PlannedTar], source: DatasetCard) -> list[str]:
    """Every file that the plan makes, apart from the card."""
    tars = [tar.name for tar in plan]
    indexes = [
        index_name(split, split_id, len(source.split_sets))
        for split_id, splits in source.split_sets.items()
        for split in splits
    ]
    return [*tars, *map(dali_index_name, tars), *indexes]


def _packed(clips: Iterable[Clip], shard_bytes: int) -> Iterator[list[Clip]]:
    """Clips tar by tar; one that is larger than a tar may be gets its own."""
    tar: list[Clip] = []
    size = 0
    for clip in clips:
        clip_bytes = _tar_bytes(clip)
        if tar and size + clip_bytes > shard_bytes:
            yield tar
            tar, size = [], 0
        tar.append(clip)
        size += clip_bytes
    yield tar


def _tar_bytes(clip: Clip) -> int:
    return sum(BLOCK + _padded(size) for _, size in _contents(clip))


def _contents(clip: Clip) -> Iterator[tuple[str, int]]:
    """Suffix and bytes of each member of a clip."""
    yield "json", len(write_note(clip.stored().note()))
    for payload in clip.payloads:
        yield payload.suffix, payload.bytes


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
