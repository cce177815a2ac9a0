"""Write shards: a plan that fixes every byte, then one tar at a time, then indexes and card.

The plan is a pure function of manifest and settings, so a run that was killed continues with the tars it lacks, and
the result is the same to the byte as that of an undisturbed run. What an earlier run left is kept if its sha256 is the
one that was noted when it was written.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa

from actcli.errors import ActcliError
from actcli.files import folder_lock, written_whole
from actcli.shards import _folder
from actcli.shards.card import ShardCard, ShardFile, dali_index_name
from actcli.shards.checksum import FileSeal
from actcli.shards.index_file import write_index
from actcli.shards.journal import JOURNAL_NAME, Journal
from actcli.shards.manifest import Source, read_source
from actcli.shards.options import ShardOptions
from actcli.shards.plan import Crcs, PlannedTar, output_names, plan_tars
from actcli.shards.reader import CARD_NAME
from actcli.shards.tar import WrittenTar, read_crcs, write_tar
from actcli.shards.video_cache import encode_clips, remove_cache


@dataclass(frozen=True)
class ShardProgress:
    """How far the writing is."""

    stage: Literal["check", "encode", "write"]
    """What is being done."""
    done: int
    """Clips done."""
    total: int
    """Clips to do."""


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
    folder, digest = options.shards_dir, source.digest(options)
    journal = Journal.read(folder)
    owned = _folder.ours(folder, journal)
    plan = plan_tars(source.clips, source.card.split_sets, options)  # of video, what there is before it is encoded
    _folder.refuse_foreign(folder, [CARD_NAME, *output_names(plan, source.card)], owned)
    finished = _finished_card(options, digest) if CARD_NAME in owned else None
    known = {} if options.overwrite else _known_tars(finished, journal, digest)
    whole = _whole_tars(folder, known, options.workers, report)
    if finished is not None and _is_whole(folder, finished, whole):
        _tidy(folder)
        return ShardSummary(finished, 0, was_whole=True)
    _check_disk(folder, plan, whole)
    if options.payload == "video":
        clips = encode_clips(source.clips, options, digest, lambda *done: report(ShardProgress("encode", *done)))
        source = replace(source, clips=clips)
        plan = plan_tars(source.clips, source.card.split_sets, options)
    names = {CARD_NAME, *output_names(plan, source.card)}
    _folder.refuse_foreign(folder, names, owned)
    whole = {tar.name: whole[tar.name] for tar in plan if tar.name in whole}
    Journal(digest, owned | names, whole).write(folder)
    _folder.remove(folder, [CARD_NAME, *(owned - {CARD_NAME} - set(whole))])
    written = _write_tars(plan, whole, options, report)
    card = _card(source, options, digest, [tar.file for tar in written])
    card = replace(card, files=tuple(_write_indexes(folder, plan, [tar.crcs for tar in written], card)))
    _write_small(folder / CARD_NAME, card.to_json().encode())
    _tidy(folder)
    return ShardSummary(card, sum(tar.is_new for tar in written))


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    remove_cache(folder)
    _folder.remove(folder, [JOURNAL_NAME])


def _is_whole(folder: Path, card: ShardCard, whole: Mapping[str, ShardFile]) -> bool:
    return len(whole) == len(card.shards) and all(_folder.is_whole(folder, file) for file in card.files)


def _known_tars(finished: ShardCard | None, journal: Journal, digest: str) -> dict[str, ShardFile]:
    """Tars of the same frames and settings that an earlier run says to have finished."""
    if finished is not None:
        return {tar.name: tar for tar in finished.shards}
    return journal.shards if journal.digest == digest else {}


def _whole_tars(folder: Path, known: Mapping[str, ShardFile], workers: int, report: Report) -> dict[str, ShardFile]:
    """Those of the tars that still are what was written."""
    total, done = sum(tar.num_clips for tar in known.values()), 0
    whole = {}
    with ThreadPoolExecutor(workers) as pool:
        checks = pool.map(partial(_folder.is_whole, folder), known.values())
        for tar, is_good in zip(known.values(), checks, strict=True):
            done += tar.num_clips
            report(ShardProgress("check", done, total))
            if is_good:
                whole[tar.name] = tar
    return whole


def _write_tars(
    plan: Sequence[PlannedTar], whole: Mapping[str, ShardFile], options: ShardOptions, report: Report
) -> list[WrittenTar]:
    """Write the tars that are not whole; each is noted in the journal once it is."""
    total, done = sum(len(tar.clips) for tar in plan), 0
    results = []
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            tars = pool.map(lambda tar: _kept_or_written(tar, whole.get(tar.name), options.shards_dir), plan)
            for planned, tar in zip(plan, tars, strict=True):
                if tar.is_new:
                    Journal.add(options.shards_dir, tar.file)
                results.append(tar)
                done += len(planned.clips)
                report(ShardProgress("write", done, total))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _kept_or_written(tar: PlannedTar, whole: ShardFile | None, folder: Path) -> WrittenTar:
    crcs = read_crcs(tar, folder) if whole else None
    return write_tar(tar, folder) if whole is None or crcs is None else WrittenTar(whole, crcs, is_new=False)


def _write_indexes(
    folder: Path, plan: Sequence[PlannedTar], crcs: Sequence[Crcs], card: ShardCard
) -> Iterator[FileSeal]:
    """Write DALI's index of each tar and the index of each split."""
    for tar in plan:
        yield _write_small(folder / dali_index_name(tar.name), tar.dali_index().encode())
    clips = [clip for tar, known in zip(plan, crcs, strict=True) for clip in tar.stored_clips(known)]
    clips.sort(key=lambda clip: clip.key)
    for split_id, splits in card.split_sets.items():
        for split in splits:
            sink = pa.BufferOutputStream()
            chosen = [clip for clip in clips if clip.splits.get(split_id) == split]
            write_index(sink, chosen, with_flow="flow" in card.modalities)
            yield _write_small(folder / card.index_name(split, split_id), memoryview(sink.getvalue()))


def _write_small(path: Path, data: bytes | memoryview) -> FileSeal:
    with written_whole(path) as temporary, temporary.open("wb") as file:
        file.write(data)
    return FileSeal(path.name, len(data), hashlib.sha256(data).hexdigest())


def _card(source: Source, options: ShardOptions, digest: str, tars: Sequence[ShardFile]) -> ShardCard:
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
        payload="mp4" if options.payload == "video" else "mjpeg",
        modalities=tuple(name for name, present in modalities.items() if present),
        split_sets=counts,
        coverage=source.coverage,
        split_coverage=source.split_coverage,
        extraction=dict(described.extraction),
        settings=options.settings(),
        source_digest=digest,
        shards=tuple(tars),
    )


def _finished_card(options: ShardOptions, digest: str) -> ShardCard | None:
    """The card of finished shards of the same frames and settings."""
    path = options.shards_dir / CARD_NAME
    if options.overwrite or not path.exists():
        return None
    card = ShardCard.from_json(path.read_bytes(), os.fspath(path))
    if card.source_digest == digest:
        return card
    raise ActcliError(
        f"{options.shards_dir} holds shards of other frames or settings. "
        f"Write them anew with --overwrite, or elsewhere with --shards-dir."
    )


def _check_disk(folder: Path, plan: Sequence[PlannedTar], whole: Mapping[str, ShardFile]) -> None:
    needed = sum(tar.num_bytes() for tar in plan if tar.name not in whole)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ActcliError(
            f"{folder} has {free / 1e6:,.1f} MB free, the shards need about {needed / 1e6:,.1f} MB. "
            f"Make room or choose another disk with --shards-dir."
        )
