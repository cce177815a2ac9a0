"""The work on one clip, from its source to its file; runs in any process."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np
import simplejpeg

from actcli.files import file_checksum
from actcli.ingest.decode import DECODER, Plane, VideoClip
from actcli.ingest.failure import ClipFailure, failing_at
from actcli.ingest.flow import FlowMethod, flow_fields, flow_version, quantise
from actcli.ingest.frame_folders import FrameFolder, find_flow
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.payload import PayloadWriter, link_video
from actcli.ingest.records import printable
from actcli.ingest.sizing import DecodeSettings
from actcli.ingest.source import DecodedFrames, index_video
from actcli.ingest.store import FrameStore


@dataclass(frozen=True)
class ClipJob:
    """What is the same for all clips of an extraction."""

    raw_dir: Path
    store: FrameStore
    """Where frames go, of which modality, in which form."""
    decode: DecodeSettings
    quality: int
    keep_partial: bool
    flow_method: FlowMethod
    flow_bound: float
    from_frames: tuple[Path, ...]
    """Roots of the dump that takes the place of the videos, if any."""
    frames_fps: float
    """Frame rate to note down where the source is a folder of frames."""


class ClipTask(NamedTuple):
    """One clip to extract."""

    key: str
    source_id: str
    path: str
    """Relative to the raw folder; absolute where it is a dump's."""
    start: float | None
    end: float | None


class _Reason(TypedDict):
    """Fields of ``ClipOutcome`` that say what is odd about a clip that was kept."""

    stage: str
    error: str
    message: str
    partial: bool


@dataclass
class _Source:
    """The JPEGs of a clip as they come, and what is known of them."""

    jpegs: Iterator[bytes]
    decoder: str
    fps: float
    size: tuple[int, int] = field(default=(0, 0))
    note: str = ""


def extract_clip(job: ClipJob, task: ClipTask) -> ClipOutcome:
    """Extract one clip. Only trouble with the disk, or the URL, that it writes to is raised."""
    return _index_clip(job, task) if job.store.payload == "source" else _extract_frames(job, task)


def _index_clip(job: ClipJob, task: ClipTask) -> ClipOutcome:
    """Look at every frame of a video, and note how single ones are read; the video stays where it is."""
    path, decoded = job.raw_dir / task.path, DecodedFrames()
    try:
        with failing_at("open"):
            _check_is_there(path, task)
            clip = VideoClip(path, job.decode, task.start, task.end)
        with clip:
            failure = _decode(clip, decoded)
        if failure and not (job.keep_partial and decoded.seconds and failure.stage == "decode"):
            raise failure
        with failing_at("index"):
            video, packet_sizes = index_video(path, clip, decoded)
            checksum, num_bytes = file_checksum(path), path.stat().st_size
    except ClipFailure as error:
        return ClipOutcome.lost(task.key, task.source_id, error)
    with job.store.writing(task.key) as target:
        link_video(target, path)
    return ClipOutcome(
        key=task.key,
        source_id=task.source_id,
        status="ok",
        **_reason(failure),
        num_frames=len(decoded.seconds),
        width=decoded.size[0],
        height=decoded.size[1],
        fps=clip.fps,
        frame_sizes=packet_sizes,
        bytes=num_bytes,
        checksum=checksum,
        decoder=DECODER,
        video=video,
    )


def _decode(clip: VideoClip, decoded: DecodedFrames) -> ClipFailure | None:
    """Decode a clip to its end, or to where it breaks."""
    try:
        with failing_at("decode"):
            decoded.read(clip)
            if not decoded.seconds:
                raise ClipFailure("decode", "NoFrames", "the file holds no frame")
    except ClipFailure as failure:
        return failure
    return None


def _check_is_there(path: Path, task: ClipTask) -> None:
    if not path.exists():
        raise ClipFailure("find", "FileNotFoundError", f"there is no {task.path}")


def _reason(failure: ClipFailure | None, note: str = "") -> _Reason:
    """Why a clip that was kept is not whole, if it is not."""
    if failure is None:
        return {"stage": "", "error": "", "message": printable(note), "partial": False}
    return {"stage": failure.stage, "error": failure.error, "message": printable(failure.message), "partial": True}


def _extract_frames(job: ClipJob, task: ClipTask) -> ClipOutcome:
    store = job.store
    with store.writing(task.key) as target, PayloadWriter(target, store.modality, store.layout) as writer:
        source = _Source(iter(()), "", 0.0)
        failure = None
        try:
            with failing_at("open"):
                source = _open_source(job, task)
            for jpeg in _guarded(source.jpegs):
                writer.write(jpeg)
            if not writer.frame_sizes:
                raise ClipFailure("decode", "NoFrames", "the file holds no frame")
        except ClipFailure as error:
            failure = error
        planes = 1 if job.store.modality == "rgb" else 2
        num_frames = len(writer.frame_sizes) // planes
        if failure and not (job.keep_partial and num_frames and failure.stage == "decode"):
            return ClipOutcome.lost(task.key, task.source_id, failure)
        writer.commit()
    return ClipOutcome(
        key=task.key,
        source_id=task.source_id,
        status="ok",
        **_reason(failure, source.note),
        num_frames=num_frames,
        width=source.size[0],
        height=source.size[1],
        fps=source.fps,
        frame_sizes=np.array(writer.frame_sizes, np.uint32),
        bytes=sum(writer.frame_sizes),
        checksum=writer.checksum,
        decoder=source.decoder,
        bound=job.flow_bound if job.store.modality == "flow" else 0.0,
    )


def _guarded(jpegs: Iterator[bytes]) -> Iterator[bytes]:
    """The same, with any error of the source (not of the consumer) as ``ClipFailure``."""
    with failing_at("decode"):
        yield from jpegs


def _open_source(job: ClipJob, task: ClipTask) -> _Source:
    path = job.raw_dir / task.path
    _check_is_there(path, task)
    if job.from_frames and job.store.modality == "flow":
        return _flow_dump_source(job, path)
    return _folder_source(job, path) if path.is_dir() else _video_source(job, task, path)


def _video_source(job: ClipJob, task: ClipTask, path: Path) -> _Source:
    clip = VideoClip(path, job.decode, task.start, task.end)
    source = _Source(iter(()), DECODER, clip.fps)

    def rgb() -> Iterator[bytes]:
        with clip:
            for y, u, v in clip:
                source.size = (y.shape[1], y.shape[0])
                yield simplejpeg.encode_jpeg_yuv_planes(y, u, v, job.quality)

    def luma() -> Iterator[Plane]:
        with clip:
            for y, _, _ in clip:
                yield y

    source.jpegs = rgb() if job.store.modality == "rgb" else _flow_jpegs(job, luma(), source)
    return source


def _folder_source(job: ClipJob, path: Path) -> _Source:
    folder = FrameFolder(path)
    source = _Source(iter(()), "copied", job.frames_fps, note=folder.note)
    if job.store.modality == "rgb":
        source.jpegs = _copied(folder, source)
    else:
        source.jpegs = _flow_jpegs(job, folder.grey(job.decode), source)
    return source


def _flow_dump_source(job: ClipJob, path: Path) -> _Source:
    x, y = find_flow(path, job.from_frames)
    source = _Source(iter(()), "copied", job.frames_fps)
    pairs = zip(_copied(x, source), _copied(y, source), strict=True)
    source.jpegs = (jpeg for pair in pairs for jpeg in pair)
    return source


def _copied(folder: FrameFolder, source: _Source) -> Iterator[bytes]:
    for data, source.size in folder.jpegs():
        yield data


def _flow_jpegs(job: ClipJob, frames: Iterator[Plane], source: _Source) -> Iterator[bytes]:
    source.decoder = " + ".join(filter(None, [source.decoder.replace("copied", ""), flow_version(job.flow_method)]))
    count = 0
    for motion in flow_fields(frames, job.flow_method):
        count += 1
        source.size = (motion.shape[1], motion.shape[0])
        for plane in quantise(motion, job.flow_bound):
            yield simplejpeg.encode_jpeg_yuv_planes(plane, None, None, job.quality)
    if not count:
        raise ClipFailure("flow", "NoMotion", "a clip of one frame has no flow")
