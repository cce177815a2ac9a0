"""Copy finished shards to a URL and back: every file with its checksum, the card last.

A target without ``dataset.json`` is unfinished, for every reader. The same call goes on where an earlier one stopped:
``.actcli-pushed.json`` at the target names the files that arrived whole, until the card takes its place.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from actcli.errors import ActcliError
from actcli.files import check_writable, folder_lock, remove_leftovers, written_whole
from actcli.remote import insist, is_local, open_filesystem
from actcli.shards.card import SHARD_FORMAT_VERSION, ShardCard
from actcli.shards.checksum import FileSeal, difference
from actcli.shards.reader import CARD_NAME, ShardSet, read_whole
from actcli.shards.stream import RetryingReader, read_through

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

PUSHED_NAME = ".actcli-pushed.json"
PAGE_MARK = "<!-- written by actcli push, and again with the next; without this line the page is yours -->"
Report = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


@dataclass(frozen=True)
class TransferSummary:
    """What a transfer came to."""

    num_files: int
    """Files of the shards, the card included."""
    num_sent: int
    """Those that were copied now; the others were there, whole."""
    num_bytes: int
    """Bytes that were copied now."""


def push_shards(folder: Path, url: str, *, overwrite: bool = False, progress: Report | None = None) -> TransferSummary:
    """Copy the shards in ``folder`` to ``url`` (``s3://``, ``gs://``, ``hf://datasets/…``, any that fsspec writes).

    Args:
        folder: Finished shards.
        url: Where their files go.
        overwrite: Replace other shards there.
        progress: Called with (bytes done, bytes in all).

    Where the shards at the target are those that these were made of by adding clips, what is new is copied: tars first,
    while the old card stays; then the old card goes, and the indexes and the new card come.

    Raises:
        ActcliError: A file here is not what the card says, other shards are there, or the target cannot be written to.
    """
    if is_local(url):
        raise ActcliError(f"{url} is no URL. Name one such as s3://bucket/sthv2; folders are copied with: cp -r")
    card = ShardSet.open(folder).card
    filesystem, base = open_filesystem(url)
    outgrown = _clear_target(url, card, filesystem, base, overwrite)
    files = (*card.shards, *card.files)
    there = _pushed(url)
    done, sent, total = 0, [], sum(file.bytes for file in files)
    for file in files:
        if outgrown and file.name.endswith(".parquet"):
            outgrown = _take_away(filesystem, base, there)
        if there.get(file.name) != file.checksum or _remote_size(filesystem, f"{base}/{file.name}") != file.bytes:
            problem = difference(folder / file.name, file.bytes, file.checksum)
            if problem:
                raise ActcliError(f"{folder / file.name}: {problem}. Nothing more was sent; look at: actcli verify")
            _put(filesystem, folder / file.name, f"{base}/{file.name}", file.bytes)
            there[file.name] = file.checksum
            _pipe(filesystem, f"{base}/{PUSHED_NAME}", json.dumps(there).encode())
            sent.append(file)
        done += file.bytes
        if progress:
            progress(done, total)
    if url.startswith("hf://"):
        _put_page(filesystem, f"{base}/README.md", card)
    _put(filesystem, folder / CARD_NAME, f"{base}/{CARD_NAME}", (folder / CARD_NAME).stat().st_size)
    _remove(filesystem, f"{base}/{PUSHED_NAME}")
    return TransferSummary(len(files) + 1, len(sent) + 1, sum(file.bytes for file in sent))


def hub_page(card: ShardCard) -> str:
    """The dataset page of the Hugging Face Hub: what is in the shards, and how to read them. It names no licence.

    Its header tells ``datasets.load_dataset`` which tars are which split: by itself it would take the indexes for data.
    """
    num_clips = sum(file.num_clips for file in card.shards)
    groups = sorted({file.name.rpartition("-")[0] for file in card.shards})
    named = [{"split": "clips" if group == "all" else group, "path": f"{group}-*.tar"} for group in groups]
    head = {
        "pretty_name": card.name,
        "task_categories": ["video-classification"],
        "tags": ["webdataset", "action-recognition", "actcli"],
        "configs": [{"config_name": "default", "data_files": named}],
    }
    splits = "\n".join(
        f"| {split_id} | {split} | {count} |"
        for split_id, splits in card.split_sets.items()
        for split, count in splits.items()
    )
    return (
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n{PAGE_MARK}\n\n# {card.name}\n\n"
        f"{num_clips} clips of {len(card.classes)} classes in {len(card.shards)} WebDataset tars, "
        f"{sum(file.bytes for file in card.shards) / 1e9:.2f} GB, written by actcli "
        f"(format {SHARD_FORMAT_VERSION}).\n\n"
        f"| split set | split | clips |\n|---|---|---|\n{splits}\n\n"
        "```\nactcli pull hf://datasets/<owner>/<name>\n"
        "actcli train --model tsm --shards-dir hf://datasets/<owner>/<name>\n```\n"
    )


def _put_page(filesystem: "AbstractFileSystem", path: str, card: ShardCard) -> None:
    """Write the page of the Hub, unless somebody has made it theirs."""
    if not filesystem.exists(path) or PAGE_MARK.encode() in filesystem.cat_file(path):
        _pipe(filesystem, path, hub_page(card).encode())


def _clear_target(url: str, card: ShardCard, filesystem: "AbstractFileSystem", base: str, overwrite: bool) -> bool:
    """Refuse a target that holds other shards, or delete those: the card first, then what it names.

    Returns:
        Whether shards are there that clips were added to here.
    """
    try:
        there = ShardSet.open(url).card
    except ActcliError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return False
        raise
    if there.source_digest == card.source_digest:
        return False
    if has_grown(there, card):
        return True
    if not overwrite:
        raise ActcliError(
            f"{url} holds other shards, of {there.name} ({sum(file.num_clips for file in there.shards)} clips). Choose "
            "another URL, or replace them with: --overwrite"
        )
    for name in (CARD_NAME, *(file.name for file in (*there.shards, *there.files))):
        _remove(filesystem, f"{base}/{name}")
    return False


def has_grown(before: ShardCard, after: ShardCard) -> bool:
    """Whether shards are others with clips added: all tars of these are among theirs."""
    return before.source_digest in after.extends and set(before.shards) <= set(after.shards)


def _take_away(filesystem: "AbstractFileSystem", base: str, there: Mapping[str, str]) -> bool:
    """Remove the card of shards whose indexes are about to be exchanged; what has arrived is noted first."""
    _pipe(filesystem, f"{base}/{PUSHED_NAME}", json.dumps(there).encode())
    _remove(filesystem, f"{base}/{CARD_NAME}")
    return False


def _pushed(url: str) -> dict[str, str]:
    """Name and checksum of the files that arrived before."""
    for name in (PUSHED_NAME, CARD_NAME):
        try:
            data = read_whole(url, name)
            if name == CARD_NAME:
                card = ShardCard.from_json(data, f"{url}/{name}")
                return {file.name: file.checksum for file in (*card.shards, *card.files)}
            return {str(key): str(checksum) for key, checksum in json.loads(data).items()}
        except ActcliError as error:
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
        except (ValueError, AttributeError):
            continue
    return {}


def _remote_size(filesystem: "AbstractFileSystem", path: str) -> int | None:
    def ask() -> int | None:
        filesystem.invalidate_cache()
        try:
            return int(filesystem.info(path)["size"])
        except (FileNotFoundError, KeyError, TypeError):
            return None

    return insist(ask, f"{path} cannot be looked up")


def _put(filesystem: "AbstractFileSystem", source: Path, path: str, size: int) -> None:
    """Copy a file and look whether all of it arrived."""

    def put() -> None:
        filesystem.put_file(str(source), path)
        if (found := _remote_size(filesystem, path)) != size:
            raise OSError(f"{found} of {size} bytes arrived")

    insist(put, f"{path} cannot be written")


def _pipe(filesystem: "AbstractFileSystem", path: str, data: bytes) -> None:
    insist(lambda: filesystem.pipe_file(path, data), f"{path} cannot be written")


def _remove(filesystem: "AbstractFileSystem", path: str) -> None:
    def remove() -> None:
        if filesystem.exists(path):
            filesystem.rm_file(path)

    insist(remove, f"{path} cannot be deleted")


def pull_shards(url: str, folder: Path, *, progress: Report | None = None) -> TransferSummary:
    """Copy the shards behind ``url`` into ``folder``; the checksum of each file is compared before it gets its name.

    Args:
        url: Where shards are.
        folder: A new folder, one that an earlier call left unfinished, or one of shards that clips were added to there.
        progress: Called with (bytes done, bytes in all).

    Raises:
        ActcliError: There are no shards behind the URL, other shards in the folder, or a file is not what the card
            says.
    """
    shards = ShardSet.open(url)
    files = (*shards.card.shards, *shards.card.files)
    total = sum(file.bytes for file in files)
    check_writable(folder)
    with folder_lock(folder, "Another program"):
        outgrown = _check_folder(folder, shards.card)
        remove_leftovers(folder)
        missing = [file for file in files if difference(folder / file.name, file.bytes, file.checksum)]
        check_writable(folder, sum(file.bytes for file in missing))
        done = total - sum(file.bytes for file in missing)
        reader = RetryingReader(shards.root)
        for file in missing:
            if outgrown and file.name.endswith(".parquet"):
                (folder / CARD_NAME).unlink()
                outgrown = False
            _fetch(reader, file, folder)
            done += file.bytes
            if progress:
                progress(done, total)
        with written_whole(folder / CARD_NAME) as partial:
            partial.write_bytes(read_whole(shards.root, CARD_NAME))
    return TransferSummary(len(files) + 1, len(missing) + 1, sum(file.bytes for file in missing))


def _check_folder(folder: Path, card: ShardCard) -> bool:
    """Refuse a folder of other shards; whether it holds those that clips were added to."""
    if not (folder / CARD_NAME).exists():
        return False
    here = ShardSet.open(folder).card
    if here.source_digest == card.source_digest:
        return False
    if not has_grown(here, card):
        raise ActcliError(f"{folder} holds other shards. Choose another folder with --shards-dir.")
    return True


def _fetch(reader: RetryingReader, file: FileSeal, folder: Path) -> None:
    digest = hashlib.sha256()
    with written_whole(folder / file.name) as partial:
        with partial.open("wb") as out:
            for piece in read_through(reader, file):
                digest.update(piece)
                out.write(piece)
        if digest.hexdigest() != file.checksum:
            raise ActcliError(f"{file.name} is not the one that the card names (its sha256 differs). Push it again.")
