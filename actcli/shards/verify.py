"""Check shards byte for byte against their card and indexes."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import simplejpeg

from actcli.errors import ActcliError
from actcli.remote import Unreachable, is_local
from actcli.shards.card import ShardCard, ShardFile, dali_index_name
from actcli.shards.checksum import difference
from actcli.shards.index import FrameTable, ShardIndex, frame_crcs
from actcli.shards.reader import ShardSet
from actcli.shards.source_video import video_frames
from actcli.shards.stream import DAMAGE, RetryingReader, read_member, read_through
from actcli.words import counted


@dataclass(frozen=True)
class Finding:
    """Something that is not as the card or an index says."""

    file: str
    """The tar or index."""
    problem: str
    """What is wrong, in one sentence."""


def verify_shards(
    root: str | Path, *, deep: bool = False, progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Compare all files with the card (size, sha256), and tars with indexes (clips, offsets, checksum of every frame).

    Args:
        root: A shard folder, or a URL, of whose files the checksums alone are compared.
        deep: Decode every frame as well, which finds what was damaged before its checksum was taken.
        progress: Called with (bytes checked, bytes in all).

    Returns:
        What is wrong; empty when all is well.

    Raises:
        ActcliError: The folder holds no shards, or the card itself is damaged; or ``deep`` at a URL.
        Unreachable: A URL did not answer to the end.
    """
    shard_set = ShardSet.open(root)
    if deep and not is_local(shard_set.root):
        raise ActcliError(f"frames are decoded (--deep) in a local folder only. Get one with: actcli pull {root}")
    report = progress or (lambda done, total: None)
    if not is_local(shard_set.root):
        return list(_verify_remote(shard_set, report))
    folder = Path(shard_set.root)
    total = sum(shard.bytes for shard in shard_set.card.shards)
    findings: list[Finding] = []
    done = 0
    rows = _rows_by_shard(shard_set, findings)
    for shard in shard_set.card.shards:
        findings += _verify_dali_index(folder, shard, shard_set.card)
        findings += _verify_shard(folder, shard, rows.get(shard.name, {}), deep=deep)
        done += shard.bytes
        report(done, total)
    return findings


def _verify_remote(shard_set: ShardSet, report: Callable[[int, int], None]) -> Iterator[Finding]:
    """Read every file through and compare its sha256; equal ones hold what was packed."""
    files = (*shard_set.card.shards, *shard_set.card.files)
    reader, done, total = RetryingReader(shard_set.root), 0, sum(file.bytes for file in files)
    for file in files:
        digest = hashlib.sha256()
        try:
            for piece in read_through(reader, file):
                digest.update(piece)
        except Unreachable:  # which says nothing of the file
            raise
        except ActcliError as error:
            yield Finding(file.name, str(error))
            continue
        if digest.hexdigest() != file.checksum:
            yield Finding(file.name, "its sha256 is not the card's: bytes have changed")
        done += file.bytes
        report(done, total)


def _rows_by_shard(shard_set: ShardSet, findings: list[Finding]) -> dict[str, dict[str, tuple[ShardIndex, int]]]:
    rows: dict[str, dict[str, tuple[ShardIndex, int]]] = {}
    for split_id, splits in shard_set.card.split_sets.items():
        for split in splits:
            name = shard_set.card.index_name(split, split_id)
            try:
                index = shard_set.index(split, split_id)
            except ActcliError as error:
                findings.append(Finding(name, str(error)))
                continue
            for row in range(len(index)):
                rows.setdefault(index.shard_name(row), {})[f"{index.keys[row]:09d}"] = (index, row)
    return rows


def _verify_dali_index(folder: Path, shard: ShardFile, card: ShardCard) -> Iterator[Finding]:
    name = dali_index_name(shard.name)
    seal = card.file(name)
    problem = difference(folder / name, seal.bytes, seal.checksum) if seal else "is not listed in the card"
    if problem:
        yield Finding(name, problem)


def _verify_shard(
    folder: Path, shard: ShardFile, rows: dict[str, tuple[ShardIndex, int]], *, deep: bool
) -> Iterator[Finding]:
    path = folder / shard.name
    problem = difference(path, shard.bytes, shard.checksum)
    if problem:
        yield Finding(shard.name, problem)
        if "sha256" not in problem:
            return
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r:") as tar:  # as it is: a tar never is compressed
            for member in tar:
                yield from _verify_member(tar, member, shard.name, rows, seen, deep=deep)
    except (*DAMAGE, OSError) as error:
        yield Finding(shard.name, f"cannot be read to its end ({error})")
    if len(seen) != shard.num_clips:
        yield Finding(shard.name, f"{counted(len(seen), 'clip')}, the card says {shard.num_clips}")
    for key in sorted(set(rows) - seen):
        yield Finding(shard.name, f"clip {key} of the index is not in the tar")


def _verify_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    shard_name: str,
    rows: dict[str, tuple[ShardIndex, int]],
    seen: set[str],
    *,
    deep: bool,
) -> Iterator[Finding]:
    key, suffix, data = read_member(tar, member)
    seen.add(key)
    if suffix == "json":
        label = json.loads(data)["label"]
        if key in rows and label != rows[key][0].labels[rows[key][1]]:
            yield Finding(shard_name, f"clip {key} has label {label}, the index says otherwise")
        return
    if key not in rows:
        return  # a clip that no split set uses
    index, row = rows[key]
    table = index.flow if suffix == "flow.mjpeg" else index.rgb
    if table is None or table.offsets[row] != member.offset_data:
        yield Finding(shard_name, f"clip {key}: {member.name} is not where the index says")
    else:
        is_source = index.videos is not None and suffix != "flow.mjpeg"
        problems = _source_problems(data, index, row) if is_source else _frame_problems(data, table, row)
        yield from (Finding(shard_name, f"{member.name}: {problem}") for problem in problems)
        if deep:
            problems = _deep_problems(data, suffix, table, index, row, is_source=is_source)
            yield from (Finding(shard_name, f"{member.name}: {problem}") for problem in problems)


def _deep_problems(
    data: bytes, suffix: str, table: FrameTable, index: ShardIndex, row: int, *, is_source: bool
) -> Iterator[str]:
    if is_source:
        return _source_frame_problems(data, index, row)
    return _video_problems(data, index, row) if suffix == "mp4" else _picture_problems(data, table, index, row)


def _frame_problems(data: bytes, table: FrameTable, row: int) -> Iterator[str]:
    sizes, crcs = table.of(row)
    total = int(sizes.sum(dtype=np.int64))
    if total != len(data):
        yield f"{len(data)} bytes, its frames add up to {total}"
        return
    for number in np.flatnonzero(frame_crcs(data, sizes) != crcs):
        yield f"frame {number} is not the one that was packed (its CRC-32 differs)"


def _source_problems(data: bytes, index: ShardIndex, row: int) -> Iterator[str]:
    """What differs in the packets of a video; the bytes between them are in the sha256 of the tar."""
    if len(data) != index.payload_bytes[row]:
        yield f"{len(data)} bytes, the index says {index.payload_bytes[row]}"
        return
    try:
        clip = index.clip(row)
    except ActcliError as error:
        yield str(error)
        return
    for number in np.flatnonzero(frame_crcs(data, clip.frame_sizes, clip.video) != clip.frame_crcs):
        yield f"packet {number} is not the one that was packed (its CRC-32 differs)"


def _source_frame_problems(data: bytes, index: ShardIndex, row: int) -> Iterator[str]:
    """What is wrong with the frames of a video, each of them decoded."""
    try:
        clip = index.clip(row)
        for _ in video_frames(clip, range(clip.num_frames), lambda offset, size: data[offset : offset + size]):
            pass
    except ActcliError as error:
        yield str(error)


def _picture_problems(data: bytes, table: FrameTable, index: ShardIndex, row: int) -> Iterator[str]:
    """What is wrong with the pictures of a clip, each of them decoded."""
    sizes, _ = table.of(row)
    ends = np.cumsum(sizes, dtype=np.int64)
    expected = (int(index.heights[row]), int(index.widths[row]))
    for number, (end, size) in enumerate(zip(ends.tolist(), sizes.tolist(), strict=True)):
        try:
            height, width = simplejpeg.decode_jpeg(data[end - size : end], "GRAY").shape[:2]
        except ValueError as error:
            yield f"frame {number} cannot be decoded ({error})"
            continue
        if (height, width) != expected:
            yield f"frame {number} is {width} x {height}, the index says {expected[1]} x {expected[0]}"


def _video_problems(data: bytes, index: ShardIndex, row: int) -> Iterator[str]:
    try:
        with av.open(io.BytesIO(data), "r", format="mp4") as container:
            found = [(frame.width, frame.height) for frame in container.decode(video=0)]
    except (av.FFmpegError, IndexError) as error:
        yield f"the video cannot be decoded ({error})"
        return
    expected = (int(index.widths[row]), int(index.heights[row]))
    if found != [expected] * int(index.num_frames[row]):
        size = f"{expected[0]} x {expected[1]}"
        yield f"it decodes to {len(found)} frames, the index says {index.num_frames[row]} of {size}"
