"""Write shards: a plan that fixes every byte, then one tar at a time, then indexes and card.

The plan is a pure function of manifest and settings, so a run that was killed continues with the tars it lacks, and
the result is the same to the byte as that of an undisturbed run.
"""

import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.ingest.card import DatasetCard, write_atomically
from actcli.shards.card import ShardCard, ShardFile, flip_policy
from actcli.shards.index import frame_crcs, write_index
from actcli.shards.manifest import Clip, Payload, read_clips
from actcli.shards.reader import CARD_NAME
from actcli.shards.video import encode_video, video_size

BLOCK = 512
"""Tar's block size: a header takes one block, data is padded to whole blocks."""
JOURNAL_NAME = ".writing.jsonl"
VIDEO_CACHE_NAME = ".video"
OUR_FILES = re.compile(r"(\w+-\d{6}\.(tar|idx)|\w+\.index\.parquet|\.\w+-\d{6}\.tar\.tmp)")
SETTINGS = ("seed", "shard_bytes", "payload", "short_side")

Crcs = dict[str, NDArray[np.uint32]]
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

    stage: Literal["encode", "write"]
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


@dataclass(frozen=True)
class _PlannedShard:
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


def write_shards(options: ShardOptions, *, progress: Callable[[ShardProgress], None] | None = None) -> ShardSummary:
    """Pack the extracted frames of one dataset into shards.

    Raises:
        ActcliError: Frames are missing or changed, the disk is too small, or other shards are in the way.
    """
    report = progress or (lambda _: None)
    source = DatasetCard.read(options.frames_dir)
    _check_layout(options.frames_dir, source)
    clips, coverage = read_clips(options.frames_dir)
    if not clips:
        raise ActcliError(f"{options.frames_dir} has no extracted clip: see the reasons with: actcli inspect")
    digest = _digest(options, source, clips, coverage)
    options.shards_dir.mkdir(parents=True, exist_ok=True)
    with _locked(options.shards_dir):
        finished = _finished_card(options, digest)
        if finished is not None:
            return ShardSummary(finished, 0)
        _check_disk(options.shards_dir, clips)
        journal = _Journal(options.shards_dir, digest)
        if options.payload == "video":
            clips = _encode_all(options, clips, digest, report)
        plan = _plan(clips, source, options)
        files, crcs, num_written = _write_all(plan, journal, options, report)
        card = _card(source, clips, coverage, options, digest, files)
        _finish(options.shards_dir, plan, crcs, card)
        journal.remove()
    return ShardSummary(card, num_written)


def group_names(split_sets: Iterable[str], clip: Clip) -> str:
    """Which tars a clip goes to: those of its split, or ``all`` where the dataset has several split sets."""
    return clip.splits.get("1", "none") if set(split_sets) == {"1"} else "all"


def _plan(clips: Sequence[Clip], source: DatasetCard, options: ShardOptions) -> list[_PlannedShard]:
    groups: dict[str, list[Clip]] = {}
    for clip in clips:
        groups.setdefault(group_names(source.split_sets, clip), []).append(clip)
    plan = []
    for name in sorted(groups):
        seed = [options.seed, *name.encode()]
        order = np.random.default_rng(seed).permutation(len(groups[name]))
        tars = _pack([groups[name][i] for i in order], options.shard_bytes)
        plan += [_PlannedShard(f"{name}-{number:06d}.tar", tuple(tar)) for number, tar in enumerate(tars)]
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
    value: dict[str, Any] = {
        "key": clip.key,
        "source_id": clip.source_id,
        "label": clip.label,
        "class_name": clip.class_name,
        "splits": dict(sorted(clip.splits.items())),
        "num_frames": clip.rgb.num_frames if clip.rgb else 0,
        "width": clip.width,
        "height": clip.height,
        "fps": clip.fps,
        "frame_sizes": clip.rgb.frame_sizes if clip.rgb else (),
    }
    if clip.flow is not None:
        value["flow_num_frames"] = clip.flow.num_frames
        value["flow_bound"] = clip.flow.bound
        value["flow_frame_sizes"] = clip.flow.frame_sizes
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _write_all(
    plan: list[_PlannedShard], journal: "_Journal", options: ShardOptions, report: Callable[[ShardProgress], None]
) -> tuple[list[ShardFile], Crcs, int]:
    total = sum(len(shard.clips) for shard in plan)
    known = journal.whole_shards()
    crcs: Crcs = {}
    done, files, num_written = 0, [], 0

    def write(shard: _PlannedShard) -> tuple[ShardFile, Crcs, bool]:
        if shard.name in known:
            return known[shard.name], _crcs_of(shard, options.shards_dir), False
        return *_write_shard(shard, options.shards_dir), True

    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for shard, (file, shard_crcs, written) in zip(plan, pool.map(write, plan), strict=True):
                if written:
                    journal.add(file)
                files.append(file)
                crcs |= shard_crcs
                num_written += written
                done += len(shard.clips)
                report(ShardProgress("write", done, total))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return files, crcs, num_written


def _write_shard(shard: _PlannedShard, folder: Path) -> tuple[ShardFile, Crcs]:
    partial = folder / f".{shard.name}.tmp"
    crcs: Crcs = {}
    with partial.open("wb") as raw:
        file = _HashingWriter(raw)
        with tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            for _, name, content, _ in shard.members():
                data = _load(content) if isinstance(content, Payload) else content
                if isinstance(content, Payload):
                    crcs[name] = frame_crcs(data, _index_sizes(content))
                member = tarfile.TarInfo(name)
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
        raw.flush()
        os.fsync(raw.fileno())
    partial.replace(folder / shard.name)
    return ShardFile(shard.name, file.size, file.digest(), len(shard.clips)), crcs


def _crcs_of(shard: _PlannedShard, folder: Path) -> Crcs:
    """The checksums of a tar that an earlier run wrote."""
    crcs: Crcs = {}
    with (folder / shard.name).open("rb") as tar:
        for _, name, content, offset in shard.members():
            if isinstance(content, Payload):
                tar.seek(offset)
                crcs[name] = frame_crcs(tar.read(content.bytes), _index_sizes(content))
    return crcs


def _index_sizes(payload: Payload) -> tuple[int, ...]:
    """Bytes of each JPEG; a video counts as one."""
    return payload.frame_sizes or (payload.bytes,)


def _load(payload: Payload) -> bytes:
    data = payload.path.read_bytes()
    if payload.checksum and hashlib.sha256(data).hexdigest() != payload.checksum:
        raise ActcliError(
            f"{payload.path} changed since it was extracted. Delete it and extract again: "
            f"actcli extract --dataset {payload.path.parents[1].name} --retry-failed"
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


class _Journal:
    """Names the tars of an unfinished run that are whole, so that the next run keeps them."""

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder = folder
        self._path = folder / JOURNAL_NAME
        lines = self._read()
        if not lines or lines[0].get("digest") != digest:
            _remove_ours(folder, keep=set())
            self._path.write_text(json.dumps({"digest": digest}) + "\n")

    def whole_shards(self) -> dict[str, ShardFile]:
        """Tars that are on disk with the size that was written."""
        files = [ShardFile(**line) for line in self._read()[1:]]
        return {file.name: file for file in files if _size(self._folder / file.name) == file.bytes}

    def add(self, file: ShardFile) -> None:
        with self._path.open("a") as journal:
            journal.write(json.dumps(file.__dict__) + "\n")

    def remove(self) -> None:
        self._path.unlink()

    def _read(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    lines.append(json.loads(line))
                except json.JSONDecodeError:
                    break  # the line that was being written when the run was killed
        return lines


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else -1


def _remove_ours(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if OUR_FILES.fullmatch(path.name) and path.name not in keep:
            path.unlink()


def _encode_all(
    options: ShardOptions, clips: list[Clip], digest: str, report: Callable[[ShardProgress], None]
) -> list[Clip]:
    cache = options.shards_dir / VIDEO_CACHE_NAME / digest[:16]

    def encode(clip: Clip) -> Clip:
        if clip.rgb is None:
            return clip
        target = cache / f"{int(clip.key) // 1000}" / f"{clip.key}.mp4"
        if not target.exists():
            _load(clip.rgb)
            encode_video(
                clip.rgb.path, target, fps=clip.fps, num_frames=clip.rgb.num_frames, short_side=options.short_side
            )
        width, height = video_size(target)
        video = Payload("mp4", target, target.stat().st_size, "", (), clip.rgb.num_frames)
        return replace(clip, rgb=video, width=width, height=height)

    encoded = []
    with ThreadPoolExecutor(options.workers) as pool:
        try:
            for clip in pool.map(encode, clips):
                encoded.append(clip)
                report(ShardProgress("encode", len(encoded), len(clips)))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return encoded


def _finish(folder: Path, plan: list[_PlannedShard], crcs: Crcs, card: ShardCard) -> None:
    """Write the indexes, remove what is left of earlier runs, and write the card last of all."""
    for shard in plan:
        write_atomically(folder / f"{Path(shard.name).stem}.idx", _dali_index(shard))
    rows = [row for shard in plan for row in _index_rows(shard, crcs)]
    with_flow = "flow" in card.modalities
    names = {f"{Path(shard.name).stem}.idx" for shard in plan} | {shard.name for shard in plan}
    for split_id, splits in card.split_sets.items():
        for split in splits:
            name = card.index_name(split, split_id)
            partial = folder / f".{name}.tmp"
            chosen = [row for row in rows if row["splits"].get(split_id) == split]
            write_index(os.fspath(partial), sorted(chosen, key=lambda row: row["key"]), with_flow=with_flow)
            partial.replace(folder / name)
            names.add(name)
    _remove_ours(folder, keep=names)
    shutil.rmtree(folder / VIDEO_CACHE_NAME, ignore_errors=True)
    write_atomically(folder / CARD_NAME, card.to_json())


def _index_rows(shard: _PlannedShard, crcs: Crcs) -> Iterator[dict[str, Any]]:
    offsets = {(clip.key, name): offset for clip, name, _, offset in shard.members()}
    for clip in shard.clips:
        rgb, flow = clip.rgb, clip.flow
        yield {
            "key": clip.key,
            "label": clip.label,
            "splits": clip.splits,
            "shard": shard.name,
            "offset": offsets[clip.key, f"{clip.key}.{rgb.suffix}"] if rgb else 0,
            "bytes": rgb.bytes if rgb else 0,
            "num_frames": rgb.num_frames if rgb else 0,
            "width": clip.width,
            "height": clip.height,
            "fps": clip.fps,
            "frame_sizes": _index_sizes(rgb) if rgb else (),
            "frame_crcs": crcs[f"{clip.key}.{rgb.suffix}"] if rgb else (),
            "flow_offset": offsets[clip.key, f"{clip.key}.flow.mjpeg"] if flow else 0,
            "flow_num_frames": flow.num_frames if flow else 0,
            "flow_bound": flow.bound if flow else 0.0,
            "flow_frame_sizes": flow.frame_sizes if flow else (),
            "flow_frame_crcs": crcs[f"{clip.key}.flow.mjpeg"] if flow else (),
        }


def _dali_index(shard: _PlannedShard) -> str:
    """DALI's index of a tar: a line per clip with suffix, offset, size and name of each member (wds2idx, v1.2)."""
    lines: dict[str, list[str]] = {}
    for clip, name, content, offset in shard.members():
        size = content.bytes if isinstance(content, Payload) else len(content)
        lines.setdefault(clip.key, []).append(f"{name.split('.', 1)[1]} {offset} {size} {name}")
    return f"v1.2 {len(lines)}\n" + "".join(f"{' '.join(parts)}\n" for parts in lines.values())


def _card(
    source: DatasetCard,
    clips: list[Clip],
    coverage: dict[str, int],
    options: ShardOptions,
    digest: str,
    files: list[ShardFile],
) -> ShardCard:
    counts = {
        split_id: {split: sum(clip.splits.get(split_id) == split for clip in clips) for split in splits}
        for split_id, splits in source.split_sets.items()
    }
    modalities = {"rgb": any(clip.rgb for clip in clips), "flow": any(clip.flow for clip in clips)}
    return ShardCard(
        name=source.name,
        classes=tuple(source.classes),
        flip=flip_policy(source.flip),
        flip_swaps=tuple((a, b) for a, b in source.flip_swaps),
        payload="mp4" if options.payload == "video" else "mjpeg",
        modalities=tuple(name for name, present in modalities.items() if present),
        split_sets=counts,
        coverage=coverage,
        extraction=dict(source.extraction),
        settings={name: getattr(options, name) for name in SETTINGS},
        source_digest=digest,
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
    path = options.shards_dir / CARD_NAME
    if not path.exists():
        return None
    card = ShardCard.from_json(path.read_bytes(), os.fspath(path)) if not options.overwrite else None
    if card is not None and card.source_digest == digest:
        return card
    if not options.overwrite:
        raise ActcliError(
            f"{options.shards_dir} holds shards of other frames or settings. "
            f"Write them anew with --overwrite, or elsewhere with --shards-dir."
        )
    path.unlink()
    return None


def _check_layout(frames_dir: Path, source: DatasetCard) -> None:
    for modality, extraction in source.extraction.items():
        if extraction.get("settings", {}).get("layout") == "folders":
            raise ActcliError(
                f"the {modality} of {frames_dir} was extracted with --layout folders, for other tools. "
                f"For shards extract it as mjpeg into another folder: --frames-dir."
            )


def _check_disk(folder: Path, clips: list[Clip]) -> None:
    needed = sum(payload.bytes for clip in clips for payload in clip.payloads)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ActcliError(
            f"{folder} has {free / 1e9:.1f} GB free, the shards need about {needed / 1e9:.1f} GB. "
            f"Make room or choose another disk with --shards-dir."
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ActcliError(f"another run is writing to {folder}; wait for it to end.") from error
        yield
