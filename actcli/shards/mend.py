"""Make the files of shards what their card says they are.

Indexes are made from the tars. A tar is written again from what is sound in it and, for the clips that are hurt, from
the frames. Nothing takes the place of a file before its sha256 is the one that the card names.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import open_regular, write_whole, written_whole
from actcli.ingest.card import DatasetCard
from actcli.shards.card import ShardCard, ShardFile, dali_index_name
from actcli.shards.checksum import FileSeal, difference, seal_of
from actcli.shards.dali import Member, read_dali_keys
from actcli.shards.index import ShardIndex
from actcli.shards.index_file import split_indexes
from actcli.shards.manifest import Clip, read_clips
from actcli.shards.options import ShardOptions
from actcli.shards.reader import CARD_NAME, ShardSet
from actcli.shards.scan import scan_tar
from actcli.shards.tar import Scratch, TarWriter, clip_members
from actcli.shards.verify import Finding
from actcli.shards.video_cache import encode_clips, remove_cache
from actcli.words import counted

Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""
_NUM_NAMED = 3


@dataclass(frozen=True)
class Mended:
    """What became of damaged files."""

    card: ShardCard
    """The card of the shards; another one only where an index could not be made to the byte."""
    mended: tuple[Finding, ...]
    """Files that are right again, with what was wrong."""
    left: tuple[Finding, ...]
    """Files that are not, with the reason."""


def mend_shards(folder: Path, card: ShardCard, frames_dir: Path, report: Report) -> Mended:
    """Mend what differs from the card; the caller holds the lock of the folder.

    Args:
        folder: The shards.
        card: Their card, which is sound.
        frames_dir: Where frames of hurt clips are, if any are needed.
        report: Told how much has been checked.
    """
    wrong = dict(_wrong_files(folder, card, report))
    frames = _Frames(frames_dir, folder, card)
    done: list[Finding] = []
    left: list[Finding] = []
    for tar in (tar for tar in card.shards if tar.name in wrong):
        reason = _mend_tar(folder, tar, card, frames)
        (left if reason else done).append(Finding(tar.name, reason or wrong[tar.name]))
    remove_cache(folder)
    names = [name for name in wrong if not name.endswith(".tar")]
    made = _indexes(folder, card, {finding.file for finding in left}) if names else {}
    card = _put_indexes(folder, card, {name: made[name] for name in names if name in made})
    for name in names:
        reason = f"{wrong[name]}; it is made from tars that are not whole"
        (done if name in made else left).append(Finding(name, wrong[name] if name in made else reason))
    return Mended(card, tuple(done), tuple(left))


def _wrong_files(folder: Path, card: ShardCard, report: Report) -> Iterator[tuple[str, str]]:
    """Name of each file that is not what the card says, and in what it differs."""
    files = (*card.shards, *card.files)
    done, total = 0, sum(file.bytes for file in files)
    with ThreadPoolExecutor(_num_threads()) as pool:
        for file, problem in zip(files, pool.map(partial(_difference, folder), files), strict=True):
            done += file.bytes
            report(done, total)
            if problem:
                yield file.name, problem


def _difference(folder: Path, file: FileSeal) -> str | None:
    return difference(folder / file.name, file.bytes, file.checksum)


def _num_threads() -> int:
    return min(8, os.cpu_count() or 1)


# --- Tars -------------------------------------------------------------------------------------------------------------


class _Frames:
    """The frames that hurt clips are packed from; read once one is needed."""

    def __init__(self, frames_dir: Path, folder: Path, card: ShardCard) -> None:
        self._frames_dir, self._folder, self._card = frames_dir, folder, card
        self._clips: dict[str, Clip] | None = None
        self._scratch = Scratch()

    def members(self, key: str) -> dict[str, bytes | memoryview]:
        """What a tar holds of a clip, by name; good until the next call.

        Raises:
            ActcliError: There are no such frames, or they have changed.
        """
        if self._clips is None:
            read = read_clips(self._frames_dir, DatasetCard.read(self._frames_dir))
            self._clips = {clip.key: clip for clip in read.clips}
        if key not in self._clips:
            raise ActcliError(f"{self._frames_dir} has no frames of clip {key}")
        clip = self._clips[key]
        if self._card.payload == "mp4":
            options = ShardOptions.of_settings(self._card.settings, self._frames_dir, self._folder)
            (clip,) = encode_clips([clip], options, self._card.source_digest, lambda done, total: None)
        try:
            return clip_members(clip, self._scratch)
        except OSError as error:
            raise ActcliError(f"{error.filename}: {error.strerror}") from error


def _mend_tar(folder: Path, tar: ShardFile, card: ShardCard, frames: _Frames) -> str | None:
    """Write a tar again; the reason where that cannot be done."""
    path = folder / tar.name
    if path.is_dir():
        return "is a folder where a file belongs; move it away, and type the same command again"
    sound, places = _found_in(path, card)
    order = _order(folder, tar, card, places)
    if len(order) != tar.num_clips:
        return f"{len(order)} of its {counted(tar.num_clips, 'clip')} can be named: the indexes are damaged too"
    hurt = [key for key in order if key not in sound]
    try:
        with written_whole(path) as partial_path, partial_path.open("wb") as raw:
            writer = TarWriter(raw)
            for key in order:
                writer.add(_read_members(path, sound[key]) if key in sound else frames.members(key))
            writer.close()
            if writer.file(tar.name) != tar:
                raise ActcliError("the frames are not those that were packed")
    except ActcliError as error:
        more = "" if len(hurt) <= _NUM_NAMED else ", …"
        return f"{counted(len(hurt), 'clip')} hurt ({', '.join(hurt[:_NUM_NAMED])}{more}): {error}"
    return None


def _order(folder: Path, tar: ShardFile, card: ShardCard, found: Mapping[str, int]) -> list[str]:
    """The keys of the clips of a tar in their order, as far as whole indexes and what was found in it tell."""
    dali = card.file(dali_index_name(tar.name))
    if dali and _difference(folder, dali) is None:
        return read_dali_keys((folder / dali.name).read_text())
    places = dict(found)
    for index in _whole_indexes(folder, card):
        clips = (index.clip(row) for row in range(len(index)) if index.shard_name(row) == tar.name)
        places |= {clip.key: clip.offset or clip.flow_offset for clip in clips}
    return sorted(places, key=lambda key: places[key])


def _whole_indexes(folder: Path, card: ShardCard) -> Iterator[ShardIndex]:
    for split_id, splits in card.split_sets.items():
        for split in splits:
            with suppress(ActcliError):
                yield ShardSet(str(folder), card).index(split, split_id)


def _found_in(path: Path, card: ShardCard) -> tuple[dict[str, tuple[Member, ...]], dict[str, int]]:
    """Where the sound clips of a tar lie in it, and where any clip does; none where it cannot be read."""
    try:
        scanned = scan_tar(path, card)
    except (OSError, ActcliError):
        return {}, {}
    return scanned.members, scanned.places


def _read_members(path: Path, members: Sequence[Member]) -> dict[str, bytes | memoryview]:
    with open_regular(path) as file:
        return {f"{m.key}.{m.suffix}": os.pread(file.fileno(), m.size, m.offset) for m in members}


# --- Indexes ----------------------------------------------------------------------------------------------------------


def _indexes(folder: Path, card: ShardCard, lost: Set[str]) -> dict[str, bytes | memoryview]:
    """The bytes of every index that can be made from the tars that are not lost, by name."""
    tars = [tar for tar in card.shards if tar.name not in lost]
    with ThreadPoolExecutor(_num_threads()) as pool:
        found = [scanned.written for scanned in pool.map(lambda tar: scan_tar(folder / tar.name, card), tars)]
    made: dict[str, bytes | memoryview] = {
        dali_index_name(tar.file.name): tar.dali_index.encode() for tar in found if tar.file in tars
    }
    if found and [tar.file for tar in found] == list(card.shards):
        made |= split_indexes(card, [clip for tar in found for clip in tar.clips])
    return made


def _put_indexes(folder: Path, card: ShardCard, made: Mapping[str, bytes | memoryview]) -> ShardCard:
    """Write indexes; the card with their seals.

    Parquet files of another version of Arrow say the same with other bytes: then the card is written again as well.
    """
    seals = {name: seal_of(name, data) for name, data in made.items()}
    for name, data in made.items():
        write_whole(folder / name, data)
    if all(card.file(name) == seal for name, seal in seals.items()):
        return card
    card = replace(card, files=tuple(seals.get(file.name, file) for file in card.files))
    write_whole(folder / CARD_NAME, card.to_json().encode())
    return card
