"""Repair a folder of shards: the card first, from frames and tars that prove each other, then all that it names."""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from actcli.errors import ActcliError
from actcli.files import folder_lock, open_regular, remove_leftovers, write_whole
from actcli.shards import _folder
from actcli.shards.card import SHARD_FORMAT, ShardCard, dali_index_name, our_names
from actcli.shards.checksum import difference, seal_of
from actcli.shards.growth import find_growth
from actcli.shards.index_file import split_indexes
from actcli.shards.journal import JOURNAL_NAME
from actcli.shards.manifest import Clip, read_source
from actcli.shards.mend import Mended, Report, mend_shards
from actcli.shards.options import ShardOptions
from actcli.shards.plan import PlannedTar, plan_tars
from actcli.shards.reader import CARD_NAME, MAX_CARD_BYTES, ShardSet
from actcli.shards.tar import WrittenTar, pack_tar, write_tar
from actcli.shards.verify import Finding, verify_shards
from actcli.shards.video_cache import encode_clips, remove_cache
from actcli.shards.writer import describe


def repair_shards(folder: Path, frames_dir: Path, *, report: Report | None = None) -> Mended:
    """Make card, tars and indexes what they were, as far as that can be proved.

    Args:
        folder: The shards.
        frames_dir: The frames that they were packed from; needed only where the card or clips of a tar are damaged.
        report: Called with (bytes checked, bytes in all), once for checksums and once for what is in the tars.

    Returns:
        What was mended, and what could not be: also what has the card's checksum and is not what the indexes say.

    Raises:
        ActcliError: The card is damaged or gone, and frames and tars do not prove what it was; or the disk fails.
    """
    if not folder.is_dir():
        raise ActcliError(f"there is no folder {folder}. Name one of shards with --shards-dir.")
    with _folder.plain_errors(folder), folder_lock(folder, "another run"):
        remove_leftovers(folder)
        aside = folder / _folder.ASIDE_NAME
        if aside.exists() and not os.path.lexists(folder / CARD_NAME):
            aside.replace(folder / CARD_NAME)
        restored: tuple[Finding, ...] = ()
        try:
            card = ShardSet.open(folder).card
        except ActcliError as error:
            card, restored = _restored_card(folder, frames_dir, error)
        report = report or (lambda done, total: None)
        mended = mend_shards(folder, card, frames_dir, report)
        left = mended.left or tuple(verify_shards(folder, progress=report))
        return replace(mended, mended=(*restored, *mended.mended), left=left)


def _restored_card(folder: Path, frames_dir: Path, error: ActcliError) -> tuple[ShardCard, tuple[Finding, ...]]:
    """Write a card again, and what it names: the tars have to be those that frames and settings give.

    The settings are those of the damaged card, and then one tar that is the one they give proves them. Where there is
    none, they are the usual ones, and every tar has to be the one that they give.
    """
    text = _card_text(folder)
    _refuse_another_state(folder, text, error)
    options = _options(text, frames_dir, folder)
    try:
        source = read_source(frames_dir)
    except ActcliError as reason:
        raise ActcliError(f"{_sentence(error)} The card can be made again from the frames, but {reason}") from reason
    options = source.settle(options)
    growth = find_growth(options, source, None)
    clips: Sequence[Clip] = growth.clips
    if options.payload == "video":
        clips = encode_clips(clips, options, growth.digest, lambda done, total: None)
    plan = plan_tars(clips, source.card.split_sets, options)
    tars = _would_be(plan, options.workers)
    hurt = {tar.file.name for tar in tars if difference(folder / tar.file.name, tar.file.bytes, tar.file.checksum)}
    named = {name for name in our_names(text) or () if name.endswith(".tar")}
    if len(hurt) == len(tars) or (hurt and named != {tar.file.name for tar in tars}) or b'"extends"' in text:
        settings = ", ".join(f"{name} {value}" for name, value in options.settings().items())
        differing = sorted(hurt)[0] if hurt else "the order of tars that clips were added to"
        raise ActcliError(
            f"{_sentence(error)} The card cannot be made again: {differing} is not what {frames_dir} gives with "
            f"the settings {settings}. Write the shards into another folder with: actcli shard --shards-dir; or "
            "copy them with: actcli pull URL"
        )
    card = describe(source, options, growth)
    made: dict[str, bytes | memoryview] = {dali_index_name(tar.file.name): tar.dali_index.encode() for tar in tars}
    made |= split_indexes(card, [clip for tar in tars for clip in tar.clips])
    files = tuple(seal_of(name, data) for name, data in made.items())
    changed = [file.name for file in files if difference(folder / file.name, file.bytes, file.checksum)]
    _folder.refuse_foreign(folder, {CARD_NAME, *hurt, *changed}, _named_by(text))
    for planned in (planned for planned in plan if planned.name in hurt):
        write_tar(planned, folder)
    for name in changed:
        write_whole(folder / name, made[name])
    card = replace(card, shards=tuple(tar.file for tar in tars), files=files)
    write_whole(folder / CARD_NAME, card.to_json().encode())
    remove_cache(folder)
    written = (Finding(name, "was not what the frames give") for name in (*sorted(hurt), *changed))
    return card, (Finding(CARD_NAME, str(error)), *written)


def _sentence(error: ActcliError) -> str:
    return f"{str(error).rstrip('.')}."


def _card_text(folder: Path) -> bytes:
    """What is left of the card."""
    if not os.path.lexists(folder / CARD_NAME):
        return b""
    with open_regular(folder / CARD_NAME) as file:
        return file.read(MAX_CARD_BYTES)


def _refuse_another_state(folder: Path, text: bytes, error: ActcliError) -> None:
    """Leave alone what is not damaged: unfinished shards, and those of another version of the format."""
    if not text and (folder / JOURNAL_NAME).exists():
        raise ActcliError(f"{folder} holds shards that a run did not finish; this continues it: actcli shard")
    if "has format version" in str(error):
        raise error


def _options(text: bytes, frames_dir: Path, folder: Path) -> ShardOptions:
    settings = _settings(text)
    return ShardOptions.of_settings(settings, frames_dir, folder) if settings else ShardOptions(frames_dir, folder)


def _settings(text: bytes) -> Mapping[str, object]:
    """The settings that a damaged card names; empty where they cannot be read, or cannot be."""
    try:
        settings: Mapping[str, object] = json.loads(text)["settings"]
        is_possible = ShardOptions.of_settings(settings, Path(), Path()).seed >= 0
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
    return settings if is_possible else {}


def _would_be(plan: Sequence[PlannedTar], workers: int) -> list[WrittenTar]:
    """The tars as they would be written."""

    def packed(tar: PlannedTar) -> WrittenTar:
        with open(os.devnull, "wb") as nowhere:
            return pack_tar(tar, nowhere)

    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(packed, plan))


def _named_by(text: bytes) -> frozenset[str]:
    """The files that a damaged card makes ours: itself where it still says what it is, and those that it names."""
    is_ours = f'"{SHARD_FORMAT}"'.encode() in text
    return (our_names(text) or frozenset()) | ({CARD_NAME} if is_ours else frozenset())
