"""Turn the manifests of an extraction into the clips that go into shards."""

import hashlib
import json
import os
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa

from actcli.errors import ActcliError
from actcli.facts import NO_SIZES, Sizes
from actcli.ingest import ExtractOptions
from actcli.ingest.card import DatasetCard
from actcli.ingest.layout import Modality, payload_path
from actcli.ingest.manifest import ManifestRow, manifest_rows, read_manifest
from actcli.ingest.outcome import Status
from actcli.ingest.records import shown_names
from actcli.ingest.store import ClipFile, FrameStore, read_into
from actcli.ingest.video_index import VideoIndex
from actcli.shards.bounds import MAX_PIXELS
from actcli.shards.card import Coverage, coverage_json
from actcli.shards.clip import StoredClip
from actcli.shards.index import frame_crcs
from actcli.shards.note import write_note
from actcli.shards.options import ShardOptions

RGB_MANIFEST = "manifest.parquet"
FLOW_MANIFEST = "manifest.flow.parquet"
_KEY = re.compile(r"[0-9]{9}")


@dataclass(frozen=True)
class Payload:
    """One file of a clip, as it goes into a tar."""

    suffix: str
    """Member suffix: ``mjpeg``, ``mp4`` or ``flow.mjpeg``, or that of the video itself."""
    file: ClipFile
    """The file."""
    bytes: int
    """Its size."""
    checksum: str
    """Its sha256, in hex; empty where the manifest has none."""
    frame_sizes: Sizes
    """Bytes of each JPEG; a video is one entry, or one for each packet that is listed."""
    num_frames: int
    """Frames, or flow fields."""
    bound: float
    """Flow quantisation bound in pixels."""
    restore: str
    """The command that extracts the file again once it is gone."""
    video: VideoIndex | None = None
    """How frames are read from it, where it is the video itself."""


def payload_crcs(payload: Payload, data: bytes | memoryview) -> Sizes:
    """CRC-32 of each picture, or packet, in the bytes of a payload."""
    return frame_crcs(data, payload.frame_sizes, payload.video)


@dataclass(frozen=True)
class Clip:
    """One clip that goes into the shards."""

    key: str
    source_id: str
    label: int
    class_name: str
    splits: Mapping[str, str]
    width: int
    height: int
    fps: float
    rgb: Payload | None
    flow: Payload | None

    @property
    def payloads(self) -> list[Payload]:
        """The files of the clip, in the order in which they stand in the tar."""
        return [payload for payload in (self.rgb, self.flow) if payload is not None]

    def member_name(self, payload: Payload | None) -> str:
        """Name of a payload in a tar; empty where there is none."""
        return f"{self.key}.{payload.suffix}" if payload else ""

    def stored(self) -> StoredClip:
        """What is known of the clip before it has a place in a tar."""
        rgb, flow = self.rgb, self.flow
        return StoredClip(
            key=self.key,
            source_id=self.source_id,
            label=self.label,
            class_name=self.class_name,
            splits=self.splits,
            bytes=rgb.bytes if rgb else 0,
            num_frames=rgb.num_frames if rgb else 0,
            width=self.width,
            height=self.height,
            fps=self.fps,
            frame_sizes=rgb.frame_sizes if rgb else NO_SIZES,
            video=rgb.video if rgb else None,
            flow_num_frames=flow.num_frames if flow else 0,
            flow_bound=flow.bound if flow else 0.0,
            flow_frame_sizes=flow.frame_sizes if flow else NO_SIZES,
        )


@dataclass(frozen=True)
class Source:
    """What is packed: the extracted frames and what is known of them."""

    card: DatasetCard
    """The card of the extraction."""
    clips: Sequence[Clip]
    """Clips with frames, in key order."""
    coverage: Mapping[str, int]
    """What became of the listed clips: listed, ok, failed, missing, and with flow ok_flow."""
    split_coverage: Mapping[str, Mapping[str, Coverage]]
    """The same for each split set and split."""

    @property
    def is_video(self) -> bool:
        """Whether the videos themselves were kept in place of frames."""
        return any(clip.rgb is not None and clip.rgb.video is not None for clip in self.clips)

    def settle(self, options: ShardOptions) -> ShardOptions:
        """The options with a payload that these clips have.

        Raises:
            ActcliError: They were extracted for another one.
        """
        if self.is_video and options.payload not in (None, "source"):
            raise ActcliError(
                f"{options.frames_dir} keeps the videos themselves, not frames. Leave --payload out to store them as "
                "they are, or extract frames into another folder with --frames-dir."
            )
        if options.payload == "source" and not self.is_video:
            raise ActcliError(
                f"{options.frames_dir} holds frames, not the videos themselves. Extract into another folder with: "
                f"actcli extract --dataset {self.card.name} --payload source --frames-dir DIR"
            )
        return replace(options, payload="source" if self.is_video else options.payload or "mjpeg")

    def digest(self, options: ShardOptions, extends: Sequence[str] = ()) -> str:
        """The sha256 over frames and settings, and over the digests of the shards that these are added to."""
        card = self.card
        coverage = [self.coverage, coverage_json(self.split_coverage)]
        swaps = [list(pair) for pair in card.flip_swaps]
        description: list[object] = [options.settings(), coverage, list(card.classes), card.flip, swaps]
        description += [list(extends)] if extends else []
        digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        for clip in self.clips:
            digest.update(write_note(clip.stored().note()))
            digest.update(",".join(payload.checksum for payload in clip.payloads).encode())
        return digest.hexdigest()


def read_source(frames_dir: Path) -> Source:
    """The extracted frames, checked as far as that goes without reading them: each file is there, with its size.

    Raises:
        ActcliError: There is no clip, or something about card, manifest or files is not as it should be.
    """
    card = DatasetCard.read(frames_dir)
    _check_layout(frames_dir, card)
    source = read_clips(frames_dir, card)
    _check_files(frames_dir, card, source.clips)
    if not source.clips:
        raise ActcliError(f"{frames_dir} has no extracted clip: see the reasons with: actcli inspect")
    return source


def read_payload(payload: Payload, into: memoryview | None = None) -> memoryview:
    """The bytes of a payload, which are those that were extracted.

    Args:
        payload: Which.
        into: Where to; as long as the payload.

    Raises:
        ActcliError: The file has changed, or lies behind a URL that does not answer.
    """
    into = memoryview(bytearray(payload.bytes)) if into is None else into
    is_whole = read_into(payload.file, into)
    if not is_whole or (payload.checksum and hashlib.sha256(into).hexdigest() != payload.checksum):
        raise ActcliError(
            f"{payload.file} changed since it was extracted. Delete that file, and this restores it alone: "
            f"{payload.restore}"
        )
    return into


@contextmanager
def payload_on_disk(payload: Payload) -> Iterator[Path]:
    """The file of a payload for programs that read files; one behind a URL is on the disk until the block ends.

    Raises:
        ActcliError: The file has changed, or lies behind a URL that does not answer.
    """
    if isinstance(payload.file, Path):
        read_payload(payload)  # which compares it with its checksum; nothing of it is kept
        yield payload.file
        return
    with tempfile.TemporaryDirectory(prefix="actcli-") as folder:
        path = Path(folder) / os.path.basename(payload.file.name)
        path.write_bytes(read_payload(payload))
        yield path


def read_clips(frames_dir: Path, card: DatasetCard) -> Source:
    """Clips that were extracted, and how many were listed, ok, failed and missing.

    Where flow was extracted too it is joined on the key; a clip without flow keeps its RGB frames.

    Raises:
        ActcliError: There is no manifest, or it is damaged.
    """
    manifests: dict[str, Modality] = {RGB_MANIFEST: "rgb", FLOW_MANIFEST: "flow"}
    tables = {
        name: _read_rows(frames_dir, modality)
        for name, modality in manifests.items()
        if os.path.lexists(frames_dir / name)
    }
    if not tables:
        raise ActcliError(
            f"{frames_dir} has no {RGB_MANIFEST}: extraction did not finish. "
            f"Run it again with: actcli extract --dataset {frames_dir.name}"
        )
    has_rgb = RGB_MANIFEST in tables
    base = tables[RGB_MANIFEST if has_rgb else FLOW_MANIFEST]
    flows = _payloads(frames_dir, card, tables.get(FLOW_MANIFEST), "flow")
    frames = _payloads(frames_dir, card, tables.get(RGB_MANIFEST), "rgb")
    clips = [_clip(frames_dir, row, card, frames.get(row.key), flows.get(row.key)) for row in base if row.is_ok]
    _check_labels(clips)
    whole = asdict(_coverage(base))
    if has_rgb and flows:
        whole["ok_flow"] = sum(clip.flow is not None for clip in clips)
    return Source(_without_place(card), clips, whole, _split_coverage(base, card))


def _without_place(card: DatasetCard) -> DatasetCard:
    """The card without the URL where the frames lie: shards are the same wherever they were."""
    kept = {
        modality: replace(made, settings={name: v for name, v in made.settings.items() if name != "frames_url"})
        for modality, made in card.extraction.items()
    }
    return replace(card, extraction=kept)


def _coverage(rows: Iterable[ManifestRow]) -> Coverage:
    statuses = Counter(row.status for row in rows)
    return Coverage(statuses.total(), **{status: statuses[status] for status in get_args(Status)})


def _split_coverage(rows: Sequence[ManifestRow], card: DatasetCard) -> dict[str, dict[str, Coverage]]:
    return {
        split_id: {split: _coverage(row for row in rows if row.splits.get(split_id) == split) for split in splits}
        for split_id, splits in card.split_sets.items()
    }


def _check_layout(frames_dir: Path, source: DatasetCard) -> None:
    for modality, extraction in source.extraction.items():
        if extraction.settings.get("layout") == "folders":
            raise ActcliError(
                f"the {modality} of {frames_dir} was extracted with --layout folders, for other tools. "
                f"For shards extract it as mjpeg into another folder: --frames-dir."
            )


def _read_rows(frames_dir: Path, modality: Modality) -> list[ManifestRow]:
    """The manifest in key order."""
    table = read_manifest(frames_dir, modality)
    try:
        rows = sorted(manifest_rows(table), key=lambda row: row.key)
    except (pa.ArrowException, LookupError, ValueError, TypeError) as error:
        raise _damaged(frames_dir, str(error)) from error
    if len({row.key for row in rows}) < len(rows) or any(row.status not in get_args(Status) for row in rows):
        raise _damaged(frames_dir, "a key is there twice, or a status is unknown")
    return rows


def _damaged(frames_dir: Path, problem: str) -> ActcliError:
    return ActcliError(
        f"the manifest in {frames_dir} is damaged ({problem}). Make it again, which keeps the frames, with: "
        f"actcli extract --dataset {frames_dir.name}"
    )


def _clip(frames_dir: Path, row: ManifestRow, card: DatasetCard, rgb: Payload | None, flow: Payload | None) -> Clip:
    if not _KEY.fullmatch(row.key) or not -1 <= row.label < len(card.classes):
        raise _damaged(frames_dir, f"clip {row.key!r} has label {row.label}, there are {len(card.classes)} classes")
    if any(split not in card.split_sets.get(split_id, ()) for split_id, split in row.splits.items()):
        raise _damaged(
            frames_dir, f"clip {row.key} is in the splits {row.splits}, the card has {dict(card.split_sets)}"
        )
    if min(row.width, row.height) < 1 or row.width * row.height > MAX_PIXELS:
        raise _damaged(frames_dir, f"clip {row.key} has {row.width} x {row.height} pixels")
    return Clip(
        key=row.key,
        source_id=row.source_id,
        label=row.label,
        class_name=row.class_name,
        splits=row.splits,
        width=row.width,
        height=row.height,
        fps=row.fps,
        rgb=rgb,
        flow=flow,
    )


def extract_command(frames_dir: Path, card: DatasetCard, modality: str) -> str:
    """The command that continues the extraction of a modality: the settings that it was begun with have to be given."""
    settings = card.extraction[modality].settings if modality in card.extraction else {}
    defaults = {field.name: field.default for field in fields(ExtractOptions)} | {"modality": "rgb"}
    words = ["actcli", "extract", "--dataset", card.name]
    if frames_dir.parent.name != "frames" or frames_dir.name != card.name:
        words += ["--frames-dir", str(frames_dir)]
    for name, value in {"modality": modality, **settings}.items():
        flag = f"--{name.replace('_', '-')}"
        if value is not None and value != defaults.get(name, value):
            words += [flag] if value is True else [flag, *str(value).replace(f" {flag} ", f"\0{flag}\0").split("\0")]
    return shlex.join(words)


def _payloads(
    frames_dir: Path, card: DatasetCard, rows: list[ManifestRow] | None, modality: Modality
) -> dict[str, Payload]:
    store, restore = FrameStore.of(frames_dir, card, modality), extract_command(frames_dir, card, modality)
    return {row.key: _payload(frames_dir, store, row, restore) for row in rows or () if row.is_ok}


def _payload(frames_dir: Path, store: FrameStore, row: ManifestRow, restore: str) -> Payload:
    pictures_per_frame = 2 if store.modality == "flow" else 1
    if row.video is not None and _KEY.fullmatch(row.key):
        return _video_payload(frames_dir, row, row.video, restore)
    total = int(row.frame_sizes.sum(dtype=np.int64))
    if not _KEY.fullmatch(row.key) or total != row.bytes or len(row.frame_sizes) != pictures_per_frame * row.num_frames:
        raise _damaged(
            frames_dir,
            f"clip {row.key!r} has {row.num_frames} frames of {row.bytes} bytes, listed are {len(row.frame_sizes)} "
            f"pictures of {total}",
        )
    return Payload(
        suffix="flow.mjpeg" if store.modality == "flow" else "mjpeg",
        file=store.file(row.key),
        bytes=row.bytes,
        checksum=row.checksum,
        frame_sizes=row.frame_sizes,
        num_frames=row.num_frames,
        bound=row.bound,
        restore=restore,
    )


def _video_payload(frames_dir: Path, row: ManifestRow, video: VideoIndex, restore: str) -> Payload:
    try:
        video.check(row.frame_sizes, row.num_frames, row.bytes)
    except ValueError as error:
        raise _damaged(frames_dir, f"clip {row.key}: {error}") from error
    return Payload(
        suffix=video.container,
        file=payload_path(frames_dir, row.key, payload="source"),
        bytes=row.bytes,
        checksum=row.checksum,
        frame_sizes=row.frame_sizes,
        num_frames=row.num_frames,
        bound=0.0,
        restore=restore,
        video=video,
    )


def _check_labels(clips: list[Clip]) -> None:
    """Clips to learn from have a class; only those of test splits may lack one."""
    bare = [clip.source_id for clip in clips if clip.label < 0 and {"train", "val"} & set(clip.splits.values())]
    if bare:
        raise ActcliError(
            f"{len(bare)} clips for training or validation have no class: {shown_names(bare)}. "
            "Mend their rows in the annotations and extract again, which keeps the frames."
        )


def _check_files(frames_dir: Path, card: DatasetCard, clips: Sequence[Clip]) -> None:
    payloads: dict[Modality, dict[str, Payload]] = {
        "rgb": {clip.key: clip.rgb for clip in clips if clip.rgb},
        "flow": {clip.key: clip.flow for clip in clips if clip.flow},
    }
    wrong = [
        found
        for modality, of_clips in payloads.items()
        for found in _problems(FrameStore.of(frames_dir, card, modality), of_clips)
    ]
    if wrong:
        listed = ", ".join(f"{payload.file} ({problem})" for payload, problem in wrong[:5])
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        commands = sorted({payload.restore for payload, _ in wrong})
        raise ActcliError(
            f"frames are not those of the manifest: {listed}{more}. "
            f"Delete what is left of these files, and this restores them alone: {'; '.join(commands)}"
        )


def _problems(store: FrameStore, payloads: Mapping[str, Payload]) -> Iterator[tuple[Payload, str]]:
    """Files that are not there with their size, and why."""
    sizes = store.sizes(payloads)
    for key, payload in payloads.items():
        found = sizes.get(key)
        if found is None:
            yield payload, "gone"
        elif found != payload.bytes:
            yield payload, "no regular file" if found < 0 else f"{found} bytes, not {payload.bytes}"
