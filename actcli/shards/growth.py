"""What is to be packed into a folder: everything, nothing, or the clips that have come since.

Clips that were repaired or that appeared go into tars of their own after those that are there, which stay as they are.
That is done only where all the others are what they were: the digest of the card says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actcli.errors import ActcliError
from actcli.shards.card import ShardCard, ShardFile, dali_index_name
from actcli.shards.checksum import difference
from actcli.shards.dali import read_dali_keys
from actcli.shards.manifest import Clip, Source
from actcli.shards.options import ShardOptions
from actcli.words import counted


@dataclass(frozen=True)
class Growth:
    """What becomes of a folder."""

    digest: str
    """``source_digest`` of its next card."""
    extends: tuple[str, ...]
    """As in the card: digests of the shards that clips were added to."""
    base: ShardCard | None
    """The shards that clips are added to; their tars stay. None where the folder is written as a whole."""
    clips: Sequence[Clip]
    """Clips that are packed."""

    @property
    def kept(self) -> tuple[ShardFile, ...]:
        """Tars that stay."""
        return self.base.shards if self.base else ()


def find_growth(options: ShardOptions, source: Source, base: ShardCard | None) -> Growth:
    """Compare what was extracted with the finished shards of the folder, if there are any.

    Raises:
        ActcliError: The shards are of other settings, or clips of theirs have changed or are gone.
    """
    if base is None or source.digest(options, base.extends) == base.source_digest:
        extends = base.extends if base else ()
        return Growth(source.digest(options, extends), extends, None, source.clips)
    packed = _packed_keys(options.shards_dir, base)
    before = _as_it_was(source, base, packed)
    if not _goes_on(base, source) or before.digest(options, base.extends) != base.source_digest:
        reason = _what_differs(options, source, base, packed)
        raise ActcliError(
            f"{options.shards_dir} holds shards of other frames or settings ({reason}). "
            f"Write them anew with --overwrite, or elsewhere with --shards-dir."
        )
    extends = (*base.extends, base.source_digest)
    new = [clip for clip in source.clips if clip.key not in packed]
    return Growth(source.digest(options, extends), extends, base, new)


def _packed_keys(folder: Path, base: ShardCard) -> frozenset[str]:
    """The clips in the tars, as DALI's indexes list them."""
    keys: set[str] = set()
    for shard in base.shards:
        path, seal = folder / dali_index_name(shard.name), base.file(dali_index_name(shard.name))
        problem = difference(path, seal.bytes, seal.checksum) if seal else "the card does not list it"
        if problem:
            raise damaged(path, problem)
        keys.update(read_dali_keys(path.read_text()))
    return frozenset(keys)


def damaged(path: Path, problem: str) -> ActcliError:
    """What is said of a file that clips cannot be added to."""
    return ActcliError(
        f"{path}: {problem}. Mend it with: actcli verify --repair --shards-dir {path.parent}; then type the same "
        "command again."
    )


def _goes_on(base: ShardCard, source: Source) -> bool:
    """Whether labels, mirroring and split sets of the shards mean the same now."""
    classes = base.classes
    swaps = {pair for pair in source.card.flip_swaps if pair[0] in classes or pair[1] in classes}
    return (
        tuple(source.card.classes[: len(classes)]) == classes
        and (base.flip, set(base.flip_swaps)) == (source.card.flip, swaps)
        and base.split_sets.keys() == source.card.split_sets.keys()
    )


def _what_differs(options: ShardOptions, source: Source, base: ShardCard, packed: frozenset[str]) -> str:
    """Why clips cannot be added, as far as that can be told."""
    settings = {name: value for name, value in options.settings().items() if base.settings.get(name) != value}
    if settings:
        return ", ".join(f"{name} {base.settings.get(name)}, not {value}" for name, value in settings.items())
    if gone := sorted(packed - {clip.key for clip in source.clips}):
        return f"{counted(len(gone), 'clip')} that they have cannot be packed any more, {gone[0]} first"
    return "clips or classes that they have are others now"


def _as_it_was(source: Source, base: ShardCard, packed: frozenset[str]) -> Source:
    """The source of the shards, as far as it is still there."""
    return Source(
        card=replace(source.card, classes=base.classes, flip_swaps=base.flip_swaps),
        clips=[clip for clip in source.clips if clip.key in packed],
        coverage=base.coverage,
        split_coverage=base.split_coverage,
    )
