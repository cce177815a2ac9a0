"""Write shards: a plan that fixes every byte, then one tar at a time, then indexes and card.

The plan is a pure function of manifest and settings, so a run that was killed continues with the tars it lacks, and
the result is the same to the byte as that of an undisturbed run. What an earlier run left is kept if its sha256 is the
one that was noted when it was written.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from actcli.errors import ActcliError
from actcli.ingest.card import DatasetCard
from actcli.shards import _folder
from actcli.shards._folder import Journal
from actcli.shards.card import ShardCard, ShardFile, dali_index_name, flip_policy
from actcli.shards.checksum import FileSeal, sha256_of
from actcli.shards.clip import NO_SIZES, Sizes, StoredClip
from actcli.shards.index import frame_crcs, write_index
from actcli.shards.manifest import Clip, Payload, read_clips
from actcli.shards.note import seal, write_note
from actcli.shards.reader import CARD_NAME
from actcli.shards.video import encode_video, video_size

BLOCK = 512
"""Tar's block size: a header takes one block, data is padded to whole blocks."""
TAR_END = 10_240
"""A tar ends with empty blocks that fill it up to a multiple of this."""
SETTINGS = ("seed", "shard_bytes", "payload", "short_side")

Crcs = dict[str, Sizes]
"""CRC-32 of each JPEG, or of the one video, by member name."""


@dataclass(frozen=True)
class ShardOptions:
    """What to pack, where to, and how."""

    frames_dir: Path
    """``frames/<dataset>`` as the extraction left it."""
    shards_dir: Path
    """``shards/<dataset>``."""
    seed: int = 0
    """Seed of the order of clips in the tars."""
    shard_bytes: int = 256_000_000
    """A tar is closed before it would grow beyond this; a larger clip gets a tar of its own."""
    payload: Literal["mjpeg", "video"] = "mjpeg"
    """Frames as they are, or re-encoded as H.264."""
    short_side: int = 0
    """With ``payload="video"``: pixels of the shorter side, 0 keeps the size."""
    workers: int = 2
    """Tars written, or clips encoded, at a time."""
    overwrite: bool = False
    """Write anew where shards of other frames or settings are."""


@dataclass(frozen=True)
class ShardProgress:
    """How far the writing is."""

    stage: Literal["check", "encode", "write"]
    done: int
    """Clips done."""
    total: int
    """Clips to do."""


@dataclass(frozen=True)
class ShardSummary:
    """What a run wrote."""

    card: ShardCard
    """The card of the finished shards."""
    num_written: int
    """Tars written by this run; the others were whole already."""
    was_whole: bool = False
    """Whether every file was there already, with its checksum."""


@dataclass(frozen=True)
class PlannedTar:
    """One tar: its name and what goes into it."""

    name: str
    clips: tuple[Clip, ...]

    def members(self) -> "Iterator[tuple[Clip, str, Payload | bytes, int]]":
        """Clip, member name, content and the offset of its first byte, for each member in order."""
        position = 0
        for clip in self.clips:
            for suffix, content, size in _contents(clip):
                yield clip, f"{clip.key}.{suffix}", content, position + BLOCK
                position += BLOCK + _padded(size)

    def num_bytes(self) -> int:
        """Size of the tar."""
        data = sum(BLOCK + _padded(size) for clip in self.clips for _, _, size in _contents(clip))
        return -(-(data + 2 * BLOCK) // TAR_END) * TAR_END


@dataclass(frozen=True)
class Source:
    """What is packed: the extracted frames and what is known of them."""

    card: DatasetCard
    clips: list[Clip]
    coverage: dict[str, int]
    digest: str
    """sha256 over frames and settings."""


def write_shards(options: ShardOptions, *, progress: Callable[[ShardProgress], None] | None = None) -> ShardSummary:
    """Pack the extracted frames of one dataset into shards.

    Raises:
        ActcliError: Frames are missing or changed, the disk is too small or fails, or other files are in the way.
    """
    report = progress or (lambda _: None)
    with _folder.plain_errors(options.shards_dir):
        _folder.check_place(options.shards_dir)
        source = read_source(options)
        options.shards_dir.mkdir(parents=True, exist_ok=True)
        with _folder.locked(options.shards_dir):
            return _write(options, source, report)


def read_source(options: ShardOptions) -> Source:
    """The extracted frames, checked as far as that goes without reading them."""
    card = DatasetCard.read(options.frames_dir)
    _check_layout(options.frames_dir, card)
    clips, coverage = read_clips(options.frames_dir, card)
    if not clips:
        raise ActcliError(f"{options.frames_dir} has no extracted clip: see the reasons with: actcli inspect")
    return Source(card, clips, coverage, _digest(options, card, clips, coverage))


def _write(options: ShardOptions, source: Source, report: Callable[[ShardProgress], None]) -> ShardSummary:
    folder = options.shards_dir
    journal = Journal.read(folder)
    owned = _folder.ours(folder, journal)
    plan = plan_tars(source.clips, source.card, options)  # of video, what there is before it is encoded
    _folder.refuse_foreign(folder, [CARD_NAME, *output_names(plan, source.card)], owned)
    finished = _finished_card(options, source.digest) if CARD_NAME in owned else None
    known = {} if options.overwrite else _known_shards(finished, journal, source.digest)
    whole = _whole_shards(folder, known, options.workers, report)
    if finished is not None and _is_whole(folder, finished, whole):
        _tidy(folder)
        return ShardSummary(finished, 0, was_whole=True)
    _check_disk(folder, plan, whole)
    if options.payload == "video":
        source = replace(source, clips=_encode_all(options, source, report))
        plan = plan_tars(source.clips, source.card, options)
    names = {CARD_NAME, *output_names(plan, source.card)}
    _folder.refuse_foreign(folder, names, owned)
    whole = {shard.name: whole[shard.name] for shard in plan if shard.name in whole}
    Journal(source.digest, owned | names, whole).write(folder)
    _folder.remove(folder, [CARD_NAME, *(owned - {CARD_NAME} - set(whole))])
    files, crcs, num_written = _write_all(plan, whole, options, report)
    card = _card(source, options, files)
    card = replace(card, files=tuple(_write_indexes(folder, plan, crcs, card)))
    with _folder.replacing(folder / CARD_NAME) as file:
        file.write(card.to_json().encode())
    _tidy(folder)
    return ShardSummary(card, num_written)


def _tidy(folder: Path) -> None:
    """Remove what only an unfinished run needs."""
    _folder.remove_cache(folder)
    _folder.remove(folder, [_folder.JOURNAL_NAME])


def _is_whole(folder: Path, card: ShardCard, whole: Mapping[str, ShardFile]) -> bool:
    return len(whole) == len(card.shards) and all(_folder.is_whole(folder, file) for file in card.files)


def output_names(plan: Sequence[PlannedTar], source: DatasetCard) -> list[str]:
    """Every file that the plan makes, apart from the card."""
    tars = [shard.name for shard in plan]
    return [*tars, *map(dali_index_name, tars), *_index_names(source).values()]


def _index_names(source: DatasetCard) -> dict[tuple[str, str], str]:
    """The index of each split set and split."""
    several = len(source.split_sets) > 1
    return {
        (split_id, split): f"{split}{split_id if several else ''}.index.parquet"
        for split_id, splits in source.split_sets.items()
        for split in splits
    }


def _known_shards(finished: ShardCard | None, journal: Journal, digest: str) -> dict[str, ShardFile]:
    """Tars of the same frames and settings that an earlier run says to have finished."""
    if finished is not None:
        return {shard.name: shard for shard in finished.shards}
    return journal.shards if journal.digest == digest else {}


def _whole_shards(
    folder: Path, known: Mapping[str, ShardFile], workers: int, report: Callable[[ShardProgress], None]
) -> dict[str, ShardFile]:
    """Those of the tars that still are what was written."""
    total, done = sum(shard.num_clips for shard in known.values()), 0
    whole = {}
    with ThreadPoolExecutor(workers) as pool:
        checks = pool.map(lambda shard: _folder.is_whole(folder, shard), known.values())
        for shard, good in zip(known.values(), checks, strict=True):
            done += shard.num_clips
            report(ShardProgress("check", done, total))
            if good:
                whole[shard.name] = shard
    return whole


def group_names(split_sets: Iterable[str], clip: Clip) -> str:
    """Which tars a clip goes to: those of its split, or ``all`` where the dataset has several split sets."""
    return clip.splits.get("1", "none") if set(split_sets) == {"1"} else "all"


def plan_tars(clips: Sequence[Clip], source: DatasetCard, options: ShardOptions) -> list[PlannedTar]:
    """Which clips go into which tar, in which order."""
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(group_names(source.split_sets, clip), []).append(clip)
    plan = []
    for name in sorted(groups):
        seed = [options.seed, *name.encode()]
        order = np.random.default_rng(seed).permutation(len(groups[name]))
        tars = _pack([groups[name][i] for i in order], options.shard_bytes)
        plan += [PlannedTar(f"{name}-{number:06d}.tar", tuple(tar)) for number, tar in enumerate(tars)]
    return plan


def _pack(clips: Iterable[Clip], shard_bytes: int) -> Iterator[list[Clip]]:
    tar: list[Clip] = []
    size = 0
    for clip in clips:
        clip_bytes = sum(BLOCK + _padded(size) for _, _, size in _contents(clip))
        if tar and size + clip_bytes > shard_bytes:
            yield tar
            tar, size = [], 0
        tar.append(clip)
        size += clip_bytes
    yield tar


def _contents(clip: Clip) -> "Iterator[tuple[str, Payload | bytes, int]]":
    description = _describe(clip)
    yield "json", description, len(description)
    for payload in clip.payloads:
        yield payload.suffix, payload, payload.bytes


def _describe(clip: Clip) -> bytes:
    return write_note(stored(clip).note())


def stored(clip: Clip) -> StoredClip:
    """What is known of a clip before it has a place in a tar."""
    rgb, flow = clip.rgb, clip.flow
    return StoredClip(
        key=clip.key,
        source_id=clip.source_id,
        label=clip.label,
        class_name=clip.class_name,
        splits=clip.splits,
        bytes=rgb.bytes if rgb else 0,
        num_frames=rgb.num_frames if rgb else 0,
        width=clip.width,
        height=clip.height,
        fps=clip.fps,
        frame_sizes=_sizes(rgb),
        flow_num_frames=flow.num_frames if flow else 0,
        flow_bound=flow.bound if flow else 0.0,
        flow_frame_sizes=_sizes(flow),
    )


def _sizes(payload: Payload | None) -> Sizes:
    return np.array(index_sizes(payload), np.uint32) if payload else NO_SIZES


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _write_all(
    plan: list[PlannedTar],
    whole: Mapping[str, ShardFile],
    options: ShardOptions,
    report: Callable[[ShardProgress], None],
) -> tuple[list[ShardFile], Crcs, int]:
    total = sum(len(shard.clips) for shard in plan)
    crcs: Crcs = {}
    done, files, num_written = 0, [], 0

    def write(shard: PlannedTar) -> tuple[ShardFile, Crcs, bool]:
        kept = _crcs_of(shard, options.shards_dir) if shard.name in whole else None
        if kept is not None:
            return whole[shard.name], kept, False
        return *_write_shard(shard, options.shards_dir), True

    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for shard, (file, shard_crcs, written) in zip(plan, pool.map(write, plan), strict=True):
                if written:
                    Journal.add(options.shards_dir, file)
                files.append(file)
                crcs |= shard_crcs
                num_written += written
                done += len(shard.clips)
                report(ShardProgress("write", done, total))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return files, crcs, num_written


def _write_shard(shard: PlannedTar, folder: Path) -> tuple[ShardFile, Crcs]:
    crcs: Crcs = {}
    with _folder.replacing(folder / shard.name) as raw:
        file = _HashingWriter(raw)
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            for clip in shard.clips:
                payloads = {f"{clip.key}.{payload.suffix}": load(payload) for payload in clip.payloads}
                for payload, (name, data) in zip(clip.payloads, payloads.items(), strict=True):
                    crcs[name] = frame_crcs(data, index_sizes(payload))
                note = seal(_describe(clip), payloads.values())
                for name, data in {f"{clip.key}.json": note, **payloads}.items():
                    member = tarfile.TarInfo(name)
                    member.size, member.mode = len(data), 0o644
                    tar.addfile(member, io.BytesIO(data))
    return ShardFile(shard.name, file.size, file.digest(), len(shard.clips)), crcs


def _crcs_of(shard: PlannedTar, folder: Path) -> Crcs | None:
    """The checksums of a tar that an earlier run wrote; ``None`` where another encoder gave other videos."""
    crcs: Crcs = {}
    with (folder / shard.name).open("rb") as tar:
        for _, name, content, offset in shard.members():
            if isinstance(content, Payload):
                tar.seek(offset)
                data = tar.read(content.bytes)
                if content.checksum and hashlib.sha256(data).hexdigest() != content.checksum:
                    return None
                crcs[name] = frame_crcs(data, index_sizes(content))
    return crcs


def index_sizes(payload: Payload) -> tuple[int, ...]:
    """Bytes of each JPEG; a video counts as one."""
    return payload.frame_sizes or (payload.bytes,)


def load(payload: Payload) -> bytes:
    """The bytes of a payload, which are those that were extracted."""
    data = payload.path.read_bytes()
    if len(data) != payload.bytes or (payload.checksum and hashlib.sha256(data).hexdigest() != payload.checksum):
        raise ActcliError(
            f"{payload.path} changed since it was extracted. Delete that file, and this restores it alone: "
            f"{payload.restore}"
        )
    return data


class _HashingWriter:
    """A file that is written front to back and hashed on the way."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self.size += len(data)
        return int(self._raw.write(data))

    def digest(self) -> str:
        return self._hash.hexdigest()


def _encode_all(options: ShardOptions, source: Source, report: Callable[[ShardProgress], None]) -> list[Clip]:
    cache = options.shards_dir / _folder.CACHE_NAME / source.digest[:16]

    def encode(clip: Clip) -> Clip:
        if clip.rgb is None:
            return clip
        target, checksum = _encoded(options, clip, clip.rgb, cache / f"{int(clip.key) // 1000}")
        width, height = video_size(target)
        video = replace(
            clip.rgb, suffix="mp4", path=target, bytes=target.stat().st_size, checksum=checksum, frame_sizes=()
        )
        return replace(clip, rgb=video, width=width, height=height)

    encoded = []
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for clip in pool.map(encode, source.clips):
                encoded.append(clip)
                report(ShardProgress("encode", len(encoded), len(source.clips)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return encoded


def _encoded(options: ShardOptions, clip: Clip, frames: Payload, folder: Path) -> tuple[Path, str]:
    """The clip as video and its sha256, which is part of its name; that of a killed run is kept if it is unchanged."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(f"{clip.key}.*.mp4"):
        checksum = path.name.split(".")[1]
        if FileSeal.of(path).checksum == checksum:
            return path, checksum
        path.unlink()
    load(frames)
    partial = _folder.temporary_name(folder / f"{clip.key}.mp4")
    try:
        encode_video(frames.path, partial, fps=clip.fps, num_frames=frames.num_frames, short_side=options.short_side)
        with partial.open("rb") as file:
            checksum = sha256_of(file)
        return partial.replace(folder / f"{clip.key}.{checksum}.mp4"), checksum
    finally:
        partial.unlink(missing_ok=True)


def _write_indexes(folder: Path, plan: list[PlannedTar], crcs: Crcs, card: ShardCard) -> Iterator[FileSeal]:
    """Write DALI's index of each tar and the index of each split."""
    for shard in plan:
        yield _write_small(folder / dali_index_name(shard.name), _dali_index(shard).encode())
    clips = sorted((clip for shard in plan for clip in _placed(shard, crcs)), key=lambda clip: clip.key)
    for split_id, splits in card.split_sets.items():
        for split in splits:
            sink = pa.BufferOutputStream()
            chosen = [clip for clip in clips if clip.splits.get(split_id) == split]
            write_index(sink, chosen, with_flow="flow" in card.modalities)
            yield _write_small(folder / card.index_name(split, split_id), memoryview(sink.getvalue()))


def _write_small(path: Path, data: bytes | memoryview) -> FileSeal:
    with _folder.replacing(path) as file:
        file.write(data)
    return FileSeal(path.name, len(data), hashlib.sha256(data).hexdigest())


def _placed(shard: PlannedTar, crcs: Crcs) -> Iterator[StoredClip]:
    """The clips of a tar with their places in it."""
    offsets = {name: offset for _, name, _, offset in shard.members()}
    for clip in shard.clips:
        rgb = f"{clip.key}.{clip.rgb.suffix}" if clip.rgb else ""
        flow = f"{clip.key}.{clip.flow.suffix}" if clip.flow else ""
        yield replace(
            stored(clip),
            shard=shard.name,
            offset=offsets.get(rgb, 0),
            frame_crcs=crcs.get(rgb, NO_SIZES),
            flow_offset=offsets.get(flow, 0),
            flow_frame_crcs=crcs.get(flow, NO_SIZES),
        )


def _dali_index(shard: PlannedTar) -> str:
    """DALI's index of a tar: a line per clip with suffix, offset, size and name of each member (wds2idx, v1.2)."""
    lines: dict[str, list[str]] = {}
    for clip, name, content, offset in shard.members():
        size = content.bytes if isinstance(content, Payload) else len(content)
        lines.setdefault(clip.key, []).append(f"{name.split('.', 1)[1]} {offset} {size} {name}")
    return f"v1.2 {len(lines)}\n" + "".join(f"{' '.join(parts)}\n" for parts in lines.values())


def _card(source: Source, options: ShardOptions, files: list[ShardFile]) -> ShardCard:
    described, clips = source.card, source.clips
    counts = {
        split_id: {split: sum(clip.splits.get(split_id) == split for clip in clips) for split in splits}
        for split_id, splits in described.split_sets.items()
    }
    modalities = {"rgb": any(clip.rgb for clip in clips), "flow": any(clip.flow for clip in clips)}
    return ShardCard(
        name=described.name,
        classes=tuple(described.classes),
        flip=flip_policy(described.flip),
        flip_swaps=tuple((a, b) for a, b in described.flip_swaps),
        payload="mp4" if options.payload == "video" else "mjpeg",
        modalities=tuple(name for name, present in modalities.items() if present),
        split_sets=counts,
        coverage=source.coverage,
        extraction=dict(described.extraction),
        settings={name: getattr(options, name) for name in SETTINGS},
        source_digest=source.digest,
        shards=tuple(files),
    )


def _digest(options: ShardOptions, source: DatasetCard, clips: list[Clip], coverage: dict[str, int]) -> str:
    digest = hashlib.sha256()
    settings = {name: getattr(options, name) for name in SETTINGS}
    description = [settings, coverage, list(source.classes), source.flip, [list(pair) for pair in source.flip_swaps]]
    digest.update(json.dumps(description, sort_keys=True).encode())
    for clip in clips:
        digest.update(_describe(clip))
        digest.update(",".join(payload.checksum for payload in clip.payloads).encode())
    return digest.hexdigest()


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


def _check_layout(frames_dir: Path, source: DatasetCard) -> None:
    for modality, extraction in source.extraction.items():
        if extraction.get("settings", {}).get("layout") == "folders":
            raise ActcliError(
                f"the {modality} of {frames_dir} was extracted with --layout folders, for other tools. "
                f"For shards extract it as mjpeg into another folder: --frames-dir."
            )


def _check_disk(folder: Path, plan: list[PlannedTar], whole: Mapping[str, ShardFile]) -> None:
    needed = sum(shard.num_bytes() for shard in plan if shard.name not in whole)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ActcliError(
            f"{folder} has {free / 1e6:,.1f} MB free, the shards need about {needed / 1e6:,.1f} MB. "
            f"Make room or choose another disk with --shards-dir."
        )
