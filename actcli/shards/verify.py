"""Check shards byte for byte against their card and indexes."""

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from actcli.errors import ActcliError
from actcli.shards.card import ShardCard, ShardFile, dali_index_name
from actcli.shards.checksum import difference
from actcli.shards.index import FrameTable, ShardIndex, frame_crcs
from actcli.shards.reader import ShardSet, is_local
from actcli.shards.stream import DAMAGE, RetryingReader, read_member, read_through


@dataclass(frozen=True)
class Finding:
    """Something that is not as the card or an index says."""

    file: str
    """The tar or index."""
    problem: str
    """What is wrong, in one sentence."""


def verify_shards(root: str | Path, *, progress: Callable[[int, int], None] | None = None) -> list[Finding]:
    """Compare all files with the card (size, sha256), and tars with indexes (clips, offsets, checksum of every frame).

    Args:
        root: A shard folder, or a URL, of whose files the checksums alone are compared.
        progress: Called with (bytes checked, bytes in all).

    Returns:
        What is wrong; empty when all is well.

    Raises:
        ActcliError: The folder holds no shards, or the card itself is damaged.
    """
    shard_set = ShardSet.open(root)
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
        findings += _verify_shard(folder, shard, rows.get(shard.name, {}))
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


def _verify_shard(folder: Path, shard: ShardFile, rows: dict[str, tuple[ShardIndex, int]]) -> Iterator[Finding]:
    path = folder / shard.name
    problem = difference(path, shard.bytes, shard.checksum)
    if problem:
        yield Finding(shard.name, problem)
        if "sha256" not in problem:
            return
    seen: set[str] = set()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                yield from _verify_member(tar, member, shard.name, rows, seen)
    except (*DAMAGE, OSError) as error:
        yield Finding(shard.name, f"cannot be read to its end ({error})")
    if len(seen) != shard.num_clips:
        yield Finding(shard.name, f"{len(seen)} clips, the card says {shard.num_clips}")
    for key in sorted(set(rows) - seen):
        yield Finding(shard.name, f"clip {key} of the index is not in the tar")


def _verify_member(
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    shard_name: str,
    rows: dict[str, tuple[ShardIndex, int]],
    seen: set[str],
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
        yield from _verify_frames(data, table, row, shard_name, member.name)


def _verify_frames(data: bytes, table: FrameTable, row: int, shard_name: str, name: str) -> Iterator[Finding]:
    sizes, crcs = table.of(row)
    total = int(sizes.sum(dtype=np.int64))
    if total != len(data):
        yield Finding(shard_name, f"{name}: {len(data)} bytes, its frames add up to {total}")
        return
    for number in np.flatnonzero(frame_crcs(data, sizes) != crcs):
        yield Finding(shard_name, f"{name}: frame {number} is not the one that was packed (its CRC-32 differs)")
