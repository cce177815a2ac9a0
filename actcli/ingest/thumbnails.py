"""Pictures of extracted clips, for the page about a dataset."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from actcli.errors import ActcliError
from actcli.files import open_regular
from actcli.ingest.card import DatasetCard
from actcli.ingest.decode import planes_to_rgb
from actcli.ingest.flow import dequantise, flow_to_colour
from actcli.ingest.layout import modality_file
from actcli.ingest.manifest import ManifestRow, manifest_rows, read_manifest
from actcli.ingest.packets import read_planes
from actcli.ingest.store import FrameStore, read_parts
from actcli.ingest.video_index import VideoIndex
from actcli.pages import MAX_PICTURES, FilmStrip, contact_sheet, film_strip
from actcli.pages.strips import Picture
from actcli.remote import Unreachable

MAX_CLASSES = 1000
"""Classes with a contact sheet."""
_MAX_FILMS = 24
_MAX_TILES = 2400  # of all contact sheets together, which bounds the page
_MIN_TILES_OF_CLASS, _MAX_TILES_OF_CLASS = 2, 6
_MIN_DECODED = 96  # pixels; libjpeg shrinks while it decodes


@dataclass(frozen=True)
class ClipFilms:
    """Film strips of one clip."""

    source_id: str
    class_name: str
    films: tuple[FilmStrip, ...]
    """A strip for each modality."""


@dataclass(frozen=True)
class ClassSheet:
    """Middle frames of some clips of a class."""

    class_name: str
    num_clips: int
    """Clips of the class that were extracted."""
    sheet: FilmStrip


def clip_films(frames_dir: Path, card: DatasetCard, kept: Sequence[ManifestRow]) -> Iterator[ClipFilms]:
    """The first clip of each class, or of every n-th where there are many; flow, where there is any, below."""
    store, flow_store = FrameStore.of(frames_dir, card, "rgb"), FrameStore.of(frames_dir, card, "flow")
    first: dict[int, ManifestRow] = {}
    for row in kept:
        if row.label >= 0:
            first.setdefault(row.label, row)
    labelled = [first[label] for label in sorted(first)]
    flows = _flow_rows(frames_dir, card)
    for row in labelled[:: max(1, -(-len(labelled) // _MAX_FILMS))]:
        strips = []
        if "rgb" in card.extraction:
            strips.append(film_strip(list(_rgb_pictures(store, row, _spread(row.num_frames)))))
        if flow := flows.get(row.key):
            strips.append(film_strip(list(_flow_pictures(flow_store, flow))))
        yield ClipFilms(row.source_id, row.class_name, tuple(strip for strip in strips if strip))


def class_sheets(frames_dir: Path, card: DatasetCard, kept: Sequence[ManifestRow]) -> Iterator[ClassSheet]:
    """A contact sheet for each class that has clips; fewer clips of each where there are many classes."""
    if "rgb" not in card.extraction:
        return
    members: dict[int, list[ManifestRow]] = {}
    for row in kept:
        members.setdefault(row.label, []).append(row)
    store = FrameStore.of(frames_dir, card, "rgb")
    labels = [label for label in sorted(members) if label >= 0][:MAX_CLASSES]
    most = int(np.clip(_MAX_TILES // max(len(labels), 1), _MIN_TILES_OF_CLASS, _MAX_TILES_OF_CLASS))
    for label in labels:
        rows = members[label]
        places = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int).tolist()
        pictures = [
            picture for place in places for picture in _rgb_pictures(store, rows[place], [rows[place].num_frames // 2])
        ]
        if sheet := contact_sheet(pictures):
            yield ClassSheet(card.classes[label], len(rows), sheet)


def jpegs_at(store: FrameStore, row: ManifestRow, indices: Sequence[int]) -> Iterator[bytes]:
    """Some JPEGs of a clip, 0-based, ascending.

    Raises:
        ValueError: What is kept of it is the video.
        OSError: Its file is gone, or cannot be read.
        Unreachable: It lies behind a URL that does not answer.
    """
    if row.video:
        raise ValueError(f"clip {row.key} is kept as a video")
    file = store.file(row.key)
    if store.layout == "folders" and isinstance(file, Path):
        names = sorted(file.iterdir(), key=lambda file: (file.stem[-5:], file.stem))  # x and y of a field together
        yield from (names[index].read_bytes() for index in indices)
        return
    ends = np.cumsum(row.frame_sizes, dtype=np.int64)
    sizes = [int(row.frame_sizes[index]) for index in indices]
    offsets = [int(ends[index]) - size for index, size in zip(indices, sizes, strict=True)]
    yield from read_parts(file, offsets, sizes)


def _flow_rows(frames_dir: Path, card: DatasetCard) -> dict[str, ManifestRow]:
    if "flow" not in card.extraction or not modality_file(frames_dir, "manifest", "flow", ".parquet").is_file():
        return {}
    return {row.key: row for row in manifest_rows(read_manifest(frames_dir, "flow")) if row.is_ok}


def _rgb_pictures(store: FrameStore, row: ManifestRow, frames: Sequence[int]) -> Iterator[Picture]:
    """Frames of a clip; none where its file is gone or damaged since it was written.

    Raises:
        Unreachable: It lies behind a URL that does not answer.
    """
    try:
        if row.video:
            yield from _video_pictures(store, row, row.video, frames)
            return
        for jpeg in jpegs_at(store, row, frames):
            yield simplejpeg.decode_jpeg(jpeg, "RGB", min_height=_MIN_DECODED, min_width=_MIN_DECODED)
    except Unreachable:
        raise
    except (ActcliError, OSError, ValueError, IndexError):
        return


def _video_pictures(store: FrameStore, row: ManifestRow, video: VideoIndex, frames: Sequence[int]) -> Iterator[Picture]:
    path = store.file(row.key)
    if not isinstance(path, Path):
        raise ValueError(f"clip {row.key} is a video behind a URL")
    with open_regular(path) as file:

        def read(offset: int, count: int) -> bytes:
            file.seek(offset)
            return file.read(count)

        for planes in read_planes(video, row.frame_sizes, frames, (row.width, row.height), read):
            yield planes_to_rgb(planes)


def _flow_pictures(store: FrameStore, row: ManifestRow) -> Iterator[Picture]:
    """Fields of a clip as colours: x and y of a field are two grey JPEGs."""
    places = [2 * place + axis for place in _spread(row.num_frames) for axis in (0, 1)]
    try:
        greys = [simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0] for jpeg in jpegs_at(store, row, places)]
    except Unreachable:
        raise
    except (OSError, ValueError, IndexError):
        return
    for x, y in zip(greys[::2], greys[1::2], strict=True):
        yield flow_to_colour(dequantise(x, y, row.bound))


def _spread(num_frames: int) -> list[int]:
    """``MAX_PICTURES`` frames at equal distances from the first to the last: 22 -> [0, 3, 6, 9, 12, 15, 18, 21]."""
    return [round(place) for place in np.linspace(0, num_frames - 1, min(MAX_PICTURES, num_frames))]
