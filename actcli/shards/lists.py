"""Shards as frame folders or MP4 files, with the annotation lists of other projects.

Sources: TSM ``ops/dataset.py`` (``path num_frames label``, pictures ``img_00001.jpg``), MMAction2 "Prepare dataset"
(``path label`` for videos, ``directory total_frames label`` for frames), SlowFast ``slowfast/datasets/DATASET.md`` and
VideoMAE ``DATASET.md`` (``train.csv``, ``val.csv``, ``test.csv`` of ``path label``), V-JEPA 2
``src/datasets/video_dataset.py`` (the same, without a test list). All of them split lines at spaces.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from actcli.errors import ActcliError
from actcli.files import open_regular, write_text_whole, written_whole
from actcli.shards.clip import StoredClip
from actcli.shards.index import frame_crcs
from actcli.shards.reader import ShardReader, ShardSet
from actcli.shards.video import encode_video

Project = Literal["tsm", "mmaction2", "slowfast", "videomae", "vjepa2"]
Media = Literal["frames", "mp4"]
_MEDIA_FOLDERS = ("frames", "videos")
_MARK = ".actcli-lists"
_MAX_MARK = 1000  # bytes; a digest has 64


@dataclass(frozen=True)
class ListForm:
    """How a project reads a dataset."""

    media: tuple[Media, ...]
    """What it reads, the usual first."""
    list_name: str
    """Name of the list of a split."""
    absolute: bool
    """Whether paths begin at the root of the disk; they begin at the list's folder otherwise."""
    test_repeats_val: bool = False
    """Whether a test list is expected too, which is that of the validation where there is no labelled test split."""


FORMS: dict[Project, ListForm] = {
    "tsm": ListForm(("frames",), "{split}_videofolder.txt", absolute=False),
    "mmaction2": ListForm(("mp4", "frames"), "{split}.txt", absolute=False),
    "slowfast": ListForm(("mp4",), "{split}.csv", absolute=True, test_repeats_val=True),
    "videomae": ListForm(("mp4",), "{split}.csv", absolute=True, test_repeats_val=True),
    "vjepa2": ListForm(("mp4",), "{split}.csv", absolute=True),
}
"""Form of the lists, by project."""


@dataclass(frozen=True)
class WrittenLists:
    """What ``export_lists`` wrote."""

    lists: tuple[Path, ...]
    """The annotation lists."""
    num_clips: int
    """Clips in them."""
    num_unlabelled: int
    """Clips without a class, which no list can hold."""


@dataclass(frozen=True)
class _Entry:
    split: str
    path: Path
    """Below the folder of the lists."""
    clip: StoredClip


def export_lists(
    shards: ShardSet,
    project: Project,
    out_dir: Path,
    *,
    media: Media | None = None,
    split_id: str = "1",
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> WrittenLists:
    """Write frame folders or MP4 files of all clips, and the lists that ``project`` reads.

    Args:
        shards: What to write out.
        project: Whose lists.
        out_dir: Folder of the lists; files that are there already are kept, so that a killed run continues.
        media: ``frames`` or ``mp4``; what the project usually reads unless given.
        split_id: Split set.
        workers: Clips at a time.
        progress: Called with (clips done, clips).

    Raises:
        ActcliError: The project reads no such files, the path has a space in it, or a clip cannot be read or written.
    """
    form = _form(project, media, out_dir)
    chosen = media or form.media[0]
    if not shards.card.modalities or "rgb" not in shards.card.modalities:
        raise ActcliError(f"{shards.card.name} holds flow only; lists are written for RGB.")
    if shards.card.payload == "source":
        raise ActcliError(
            "these shards hold the videos themselves, which the lists of other projects can name where they were "
            "downloaded to. For lists from shards, write these of frames (extract --payload mjpeg)."
        )
    if chosen == "frames" and shards.card.payload == "mp4":
        raise ActcliError("these shards hold videos, not frames. Choose media mp4, or write them with --payload mjpeg.")
    entries = list(_entries(shards, split_id, chosen))
    labelled = [entry for entry in entries if entry.clip.label >= 0]
    try:
        _claim(shards, out_dir)
        _write_media(shards, labelled, out_dir, workers, progress)
        lists = _write_lists(shards, form, chosen, labelled, out_dir)
    except OSError as error:
        raise ActcliError(f"{out_dir} cannot be written ({error.strerror or error}).") from error
    return WrittenLists(tuple(lists), len(labelled), len(entries) - len(labelled))


def _form(project: str, media: str | None, out_dir: Path) -> ListForm:
    if project not in get_args(Project):
        raise ActcliError(f"project is {project!r}; allowed are: {', '.join(get_args(Project))}.")
    form = FORMS[project]  # type: ignore[index]
    if media is not None and media not in form.media:
        raise ActcliError(f"{project} does not read {media}; allowed are: {', '.join(form.media)}.")
    if form.absolute and any(character.isspace() for character in str(out_dir.absolute())):
        raise ActcliError(
            f"{out_dir.absolute()} has a space in it, where {project} divides a line. Choose another folder."
        )
    return form


def _claim(shards: ShardSet, out_dir: Path) -> None:
    """Mark the folder as that of these shards: files of theirs that are there already are kept."""
    mark, card = out_dir / _MARK, shards.card
    found = ""
    if mark.exists():
        with open_regular(mark) as file:
            found = file.read(_MAX_MARK).decode("ascii", "replace")
    has_media = any((out_dir / name).exists() for name in _MEDIA_FOLDERS)
    if has_media and found not in (card.source_digest, *card.extends):
        raise ActcliError(
            f"{out_dir} holds frames or videos that are not of these shards. Choose another folder (--out-dir), or "
            f"remove {' and '.join(_MEDIA_FOLDERS)} there."
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    write_text_whole(mark, card.source_digest)


def _entries(shards: ShardSet, split_id: str, media: Media) -> Iterator[_Entry]:
    for split, count in shards.card.splits(split_id).items():
        index = shards.index(split, split_id) if count else None
        for row in range(len(index) if index else 0):
            assert index is not None
            clip = index.clip(row)
            place = Path("videos") / f"{clip.key}.mp4" if media == "mp4" else Path("frames") / clip.key
            yield _Entry(split, place, clip)


def _write_media(
    shards: ShardSet, entries: list[_Entry], out_dir: Path, workers: int, progress: Callable[[int, int], None] | None
) -> None:
    def write(entry: _Entry) -> None:
        target = out_dir / entry.path
        if target.suffix == ".mp4":
            _write_mp4(shards, entry.clip, target)
        else:
            _write_frames(shards, entry.clip, target)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for done, _ in enumerate(pool.map(write, entries), 1):
            if progress:
                progress(done, len(entries))


def _payload(shards: ShardSet, clip: StoredClip) -> bytes:
    data = ShardReader(shards.root).read(clip.shard, clip.offset, clip.bytes)
    if len(clip.frame_crcs) and not (frame_crcs(data, clip.frame_sizes) == clip.frame_crcs).all():
        raise ActcliError(f"clip {clip.key} in {clip.shard} is damaged: its CRC-32 is another. Run: actcli verify")
    return data


def _write_frames(shards: ShardSet, clip: StoredClip, folder: Path) -> None:
    if folder.is_dir() and len(list(folder.iterdir())) == clip.num_frames:
        return
    folder.mkdir(parents=True, exist_ok=True)
    data, begin = _payload(shards, clip), 0
    for number, size in enumerate(clip.frame_sizes.tolist(), 1):
        with written_whole(folder / f"img_{number:05d}.jpg") as partial:
            partial.write_bytes(data[begin : begin + size])
        begin += size


def _write_mp4(shards: ShardSet, clip: StoredClip, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    data = _payload(shards, clip)
    with written_whole(target) as partial:
        if shards.card.payload == "mp4":
            partial.write_bytes(data)
            return
        with tempfile.TemporaryDirectory(prefix="actcli-") as folder:
            frames = Path(folder) / "clip.mjpeg"
            frames.write_bytes(data)
            encode_video(frames, partial, fps=clip.fps, num_frames=clip.num_frames)


def _write_lists(
    shards: ShardSet, form: ListForm, media: Media, entries: list[_Entry], out_dir: Path
) -> Iterator[Path]:
    lines: dict[str, list[str]] = {}
    for entry in entries:
        path = (out_dir / entry.path).absolute() if form.absolute else entry.path
        counted = f" {entry.clip.num_frames}" if media == "frames" else ""
        lines.setdefault(entry.split, []).append(f"{os.fspath(path)}{counted} {entry.clip.label}\n")
    if form.test_repeats_val and "test" not in lines and "val" in lines:
        lines["test"] = lines["val"]
    for split, texts in lines.items():
        path = out_dir / form.list_name.format(split=split)
        write_text_whole(path, "".join(texts))
        yield path
    names = out_dir / ("category.txt" if media == "frames" else "classes.txt")
    write_text_whole(names, "".join(f"{name}\n" for name in shards.card.classes))
