"""Write shards: a plan that fixes every byte, then one tar at a time, then indexes and card.

The plan is a pure function of manifest and settings, so a run that was killed continues with the tars it lacks, and
the result is the same to the byte as that of an undisturbed run. What an earlier run left is kept if its sha256 is the
one that was noted when it was written.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from actcli.errors import ActcliError
from actcli.files import folder_lock, write_whole
from actcli.shards import _folder
from actcli.shards.card import ShardCard, ShardFile, StoredPayload, dali_index_name
from actcli.shards.checksum import FileSeal, seal_of
from actcli.shards.fetching import fetched_ahead
from actcli.shards.growth import Growth, damaged, find_growth
from actcli.shards.index_file import split_indexes
from actcli.shards.journal import JOURNAL_NAME, Journal
from actcli.shards.manifest import Source, read_source
from actcli.shards.mend import mend_shards
from actcli.shards.options import ShardOptions
from actcli.shards.plan import PlannedTar, output_names, plan_tars
from actcli.shards.reader import CARD_NAME
from actcli.shards.scan import scan_tar
from actcli.shards.tar import WrittenTar, write_tar
from actcli.shards.video_cache import encode_clips, remove_cache


@dataclass(frozen=True)
class ShardProgress:
    """How far the writing is."""

    stage: Literal["check", "encode", "write", "index"]
    """What is being done."""
    done: int
    """Clips done; of indexes, files."""
    total: int
    """Clips, or files, to do."""


Report = Callable[[ShardProgress], None]


@dataclass(frozen=True)
class ShardSummary:
    """What a run wrote."""

    card: ShardCard
    """The card of the finished shards."""
    num_written: int
    """Tars written by this run; the others were whole already."""
    was_whole: bool = False
    """Whether every file was there already, with its checksum."""
    num_added: int = 0
    """Clips that were added to shards, whose tars were left as they are."""


def write_shards(options: ShardOptions, *, progress: Report | None = None) -> ShardSummary:
    """Pack the extracted frames of one dataset into shards.

    Raises:
        ActcliError: Frames are missing or changed, the disk is too small or fails, or other files are in the way.
    """
    report = progress or (lambda _: None)
    with _folder.plain_errors(options.shards_dir):
        _folder.check_place(options.shards_dir)
        source = read_source(options.frames_dir)
        options.shards_dir.mkdir(parents=True, exist_ok=True)
        with folder_lock(options.shards_dir, "another run"):
            return _write(options, source, report)


def _write(options: ShardOptions, source: Source, report: Report) -> ShardSummary:
    options = source.settle(options)
    folder, split_sets = options.shards_dir, source.card.split_sets
    journal = Journal.read(folder)
    owned = _folder.ours(folder, journal)
    base = None if options.overwrite else _folder.base_card(folder, owned)
    growth = find_growth(options, source, base)
    kept = [tar.name for tar in growth.kept]
    plan = plan_tars(growth.clips, split_sets, options, kept)  # of video, what there is before it is encoded
    _folder.refuse_foreign(folder, [CARD_NAME, *output_names(plan, source.card)], owned)
    known = {} if options.overwrite else journal.shards if journal.digest == growth.digest else {}
    if base is not None and growth.digest == base.source_digest:
        known = _whole_tars(folder, base, options.workers, report)
        if len(known) == len(base.shards) and all(_folder.is_whole(folder, file) for file in base.files):
            _tidy(folder)
            return ShardSummary(base, 0, was_whole=True)
        if base.extends:  # which clips each of its tars has is not told by the frames
            return _mend(options, base)
    card = describe(source, options, growth)
    whole = _scan_tars(folder, {**{tar.name: tar for tar in growth.kept}, **known}, card, options.workers, report)
    _check_kept(folder, growth, whole)
    _check_disk(folder, plan, whole)
    if options.payload == "video":
        clips = encode_clips(growth.clips, options, growth.digest, lambda *done: report(ShardProgress("encode", *done)))
        plan = plan_tars(clips, split_sets, options, kept)
    names = {CARD_NAME, *output_names(plan, source.card), *kept, *map(dali_index_name, kept)}
    _folder.refuse_foreign(folder, names, owned)
    whole = {name: whole[name] for name in (*kept, *(tar.name for tar in plan if _holds(whole.get(tar.name), tar)))}
    Journal(growth.digest, owned | names, {name: tar.file for name, tar in whole.items()}).write(folder)
    _make_room(folder, owned, whole, growth)
    tars = [*(whole[name] for name in kept), *_write_tars(plan, whole, options, report)]
    num_files = len(tars) + sum(map(len, card.split_sets.values()))
    files: list[FileSeal] = []
    for file in _write_indexes(folder, tars, card, growth):
        files.append(file)
        report(ShardProgress("index", len(files), num_files))
    card = replace(card, shards=tuple(tar.file for tar in tars), files=tuple(files))
    _write_small(folder / CARD_NAME, card.to_json().encode())
    _tidy(folder)
    return ShardSummary(card, len(tars) - len(whole), num_added=len(growth.clips) if kept else 0)


def _mend(options: ShardOptions, base: ShardCard) -> ShardSummary:
    """Write damaged files again, each as it was."""
    folder = options.shards_dir
    mended = mend_shards(folder, base, options.frames_dir, lambda done, total: None)
    for finding in mended.left:
        raise ActcliError(
            f"{folder / finding.file}: {finding.problem}. Copy it from where it is whole with: actcli pull URL; or "
            "write all tars anew with --overwrite."
        )
    _tidy(folder)
    return ShardSummary(mended.card, sum(finding.file.endswith(".tar") for finding in mended.mended))


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    remove_cache(folder)
    _folder.remove(folder, [_folder.ASIDE_NAME, JOURNAL_NAME])


def _make_room(folder: Path, owned: frozenset[str], whole: Mapping[str, WrittenTar], growth: Growth) -> None:
    """Remove what is written anew. Shards that clips are added to stay readable, card and all, until that is done."""
    cards = (CARD_NAME, _folder.ASIDE_NAME)
    if growth.base is None:
        _folder.remove(folder, [*cards, *(owned - set(cards) - whole.keys())])
    else:
        stay = {file.name for file in (*growth.base.shards, *growth.base.files)}
        _folder.remove(folder, owned - set(cards) - whole.keys() - stay)


def _whole_tars(folder: Path, card: ShardCard, workers: int, report: Report) -> dict[str, ShardFile]:
    """Those of the tars of a card that still are what was written."""
    total, done = sum(tar.num_clips for tar in card.shards), 0
    whole = {}
    with ThreadPoolExecutor(workers) as pool:
        checks = pool.map(partial(_folder.is_whole, folder), card.shards)
        for tar, is_good in zip(card.shards, checks, strict=True):
            done += tar.num_clips
            report(ShardProgress("check", done, total))
            if is_good:
                whole[tar.name] = tar
    return whole


def _scan_tars(
    folder: Path, known: Mapping[str, ShardFile], card: ShardCard, workers: int, report: Report
) -> dict[str, WrittenTar]:
    """What is in those tars that an earlier run says to have finished and that still are what was written."""
    total, done = sum(tar.num_clips for tar in known.values()), 0
    whole = {}
    with ThreadPoolExecutor(workers) as pool:
        for tar in pool.map(partial(_scanned, folder, card), known.values()):
            if tar is not None:
                whole[tar.file.name] = tar
                done += len(tar.clips)
                report(ShardProgress("check", done, total))
    return whole


def _scanned(folder: Path, card: ShardCard, listed: ShardFile) -> WrittenTar | None:
    try:
        tar = scan_tar(folder / listed.name, card).written
    except (ActcliError, OSError):
        return None
    return tar if tar.file == listed else None


def _holds(tar: WrittenTar | None, planned: PlannedTar) -> bool:
    """Whether a tar that is there has the clips that were planned; those of another video encoder may be others."""
    return tar is not None and [clip.key for clip in tar.clips] == [clip.key for clip in planned.clips]


def _check_kept(folder: Path, growth: Growth, whole: Mapping[str, WrittenTar]) -> None:
    for tar in growth.kept:
        if tar.name not in whole:
            raise damaged(folder / tar.name, "is not the tar that the card names")


def _write_tars(
    plan: Sequence[PlannedTar], whole: Mapping[str, WrittenTar], options: ShardOptions, report: Report
) -> list[WrittenTar]:
    """Write the tars that are not whole; each is noted in the journal once it is."""
    total, done = sum(len(tar.clips) for tar in plan), 0
    results = []
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            tars = pool.map(lambda tar: whole.get(tar.name) or _write_tar(tar, options.shards_dir), plan)
            for planned, tar in zip(plan, tars, strict=True):
                if planned.name not in whole:
                    Journal.add(options.shards_dir, tar.file)
                results.append(tar)
                done += len(planned.clips)
                report(ShardProgress("write", done, total))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _write_tar(tar: PlannedTar, folder: Path) -> WrittenTar:
    with fetched_ahead(tar.clips) as clips:
        return write_tar(replace(tar, clips=clips), folder)


def _write_indexes(folder: Path, tars: Sequence[WrittenTar], card: ShardCard, growth: Growth) -> Iterator[FileSeal]:
    """Write DALI's index of each tar and the index of each split."""
    kept = {tar.name for tar in growth.kept}
    for tar in tars:
        name, text = dali_index_name(tar.file.name), tar.dali_index.encode()
        yield seal_of(name, text) if tar.file.name in kept else _write_small(folder / name, text)
    if kept and (folder / CARD_NAME).exists():
        (folder / CARD_NAME).replace(folder / _folder.ASIDE_NAME)
    for name, data in split_indexes(card, [clip for tar in tars for clip in tar.clips]):
        yield _write_small(folder / name, data)


def _write_small(path: Path, data: bytes | memoryview) -> FileSeal:
    write_whole(path, data)
    return seal_of(path.name, data)


def describe(source: Source, options: ShardOptions, growth: Growth) -> ShardCard:
    """The card of what is packed, without the files of that."""
    described, clips = source.card, source.clips
    counts = {
        split_id: {split: coverage.ok for split, coverage in splits.items()}
        for split_id, splits in source.split_coverage.items()
    }
    modalities = {"rgb": any(clip.rgb for clip in clips), "flow": any(clip.flow for clip in clips)}
    return ShardCard(
        name=described.name,
        classes=tuple(described.classes),
        flip=described.flip,
        flip_swaps=tuple((a, b) for a, b in described.flip_swaps),
        payload=_STORED[options.payload or "mjpeg"],
        modalities=tuple(name for name, present in modalities.items() if present),
        split_sets=counts,
        coverage=source.coverage,
        split_coverage=source.split_coverage,
        extraction=dict(described.extraction),
        settings=options.settings(),
        source_digest=growth.digest,
        extends=growth.extends,
    )


_STORED: dict[str, StoredPayload] = {"mjpeg": "mjpeg", "video": "mp4", "source": "source"}
"""What the card calls a payload."""


def _check_disk(folder: Path, plan: Sequence[PlannedTar], whole: Mapping[str, WrittenTar]) -> None:
    needed = sum(tar.num_bytes() for tar in plan if tar.name not in whole)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ActcliError(
            f"{folder} has {free / 1e6:,.1f} MB free, the shards need about {needed / 1e6:,.1f} MB. "
            f"Make room or choose another disk with --shards-dir."
        )
