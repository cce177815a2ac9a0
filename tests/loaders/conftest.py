"""Small shard sets of made clips, written file by file so that every byte is known."""

import io
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import simplejpeg

from actcli.shards import ShardCard, ShardFile
from actcli.shards.checksum import FileSeal
from actcli.shards.clip import StoredClip
from actcli.shards.index_file import write_index
from actcli.shards.note import seal, write_note

CLASSES = ("push left to right", "push right to left", "wave")


def picture(clip, frame, width=96, height=64):
    """A smooth coloured picture that differs from clip to clip and from frame to frame."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    phase = clip * 1.7 + frame * 0.4
    waves = [np.sin(x / 17 + phase), np.cos(y / 11 - phase), np.sin((x + y) / 23 + 2 * phase)]
    return np.clip(128 + 90 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def jpeg(pixels):
    if pixels.ndim == 2:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels[..., None]), quality=92, colorspace="GRAY")
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=92, colorsubsampling="420")


def flow_picture(clip, field, axis, width=96, height=64):
    """A smooth grey picture that differs from field to field and from axis to axis."""
    return picture(clip * 2 + axis, field, width, height)[..., 0]


class ShardMaker:
    """Writes a shard folder clip by clip."""

    def __init__(self, root: Path, num_shards: int = 1, flow: bool = False) -> None:
        self.root, self.flow, self.clips = root, flow, []
        root.mkdir(parents=True, exist_ok=True)
        self.names = [f"train-{number:06d}.tar" for number in range(num_shards)]
        self.tars = [tarfile.open(root / name, "w") for name in self.names]  # noqa: SIM115  closed by finish
        self.num_clips = 0

    def add(self, jpegs, flow_jpegs=(), label=None, width=96, height=64, payload=None):
        key, shard = self.num_clips, self.num_clips % len(self.names)
        self.num_clips += 1
        tar = self.tars[shard]
        label = key % len(CLASSES) if label is None else label
        data = b"".join(jpegs) if payload is None else payload[0]
        pictures = jpegs if payload is None else [payload[0]]
        clip = StoredClip(
            key=f"{key:09d}",
            source_id=f"clip {key}",
            label=label,
            shard=self.names[shard],
            bytes=len(data),
            num_frames=len(jpegs) if payload is None else payload[1],
            width=width,
            height=height,
            fps=25.0,
            frame_sizes=np.array([len(picture) for picture in pictures], np.uint32),
            frame_crcs=np.array([zlib.crc32(picture) for picture in pictures], np.uint32),
            flow_num_frames=len(flow_jpegs) // 2,
            flow_bound=20.0,
            flow_frame_sizes=np.array([len(picture) for picture in flow_jpegs], np.uint32),
            flow_frame_crcs=np.array([zlib.crc32(picture) for picture in flow_jpegs], np.uint32),
        )
        note = seal(write_note(clip.note()), [b"".join(flow_jpegs), data])
        self._member(tar, f"{clip.key}.json", note)
        flow_offset = self._member(tar, f"{clip.key}.flow.mjpeg", b"".join(flow_jpegs)) if flow_jpegs else 0
        offset = self._member(tar, f"{clip.key}.{'mjpeg' if payload is None else 'mp4'}", data)
        self.clips.append(replace(clip, offset=offset, flow_offset=flow_offset))

    def _member(self, tar, name, data):
        info = tarfile.TarInfo(name)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        return tar.offset - -(-len(data) // 512) * 512

    def _shard_file(self, name):
        num_clips = sum(clip.shard == name for clip in self.clips)
        return ShardFile(**vars(FileSeal.of(self.root / name)), num_clips=num_clips)

    def finish(self, split="train", flip="allowed", payload="mjpeg"):
        for tar in self.tars:
            tar.close()
        write_index(str(self.root / f"{split}.index.parquet"), self.clips, with_flow=self.flow)
        card = ShardCard(
            name="made",
            classes=CLASSES,
            flip=flip,
            flip_swaps=((CLASSES[0], CLASSES[1]),) if flip == "swap" else (),
            payload=payload,
            modalities=("rgb", "flow") if self.flow else ("rgb",),
            split_sets={"1": {split: len(self.clips)}},
            coverage={},
            extraction={},
            settings={},
            source_digest=f"{len(self.clips)} clips",
            shards=tuple(self._shard_file(name) for name in self.names),
            files=(FileSeal.of(self.root / f"{split}.index.parquet"),),
        )
        (self.root / "dataset.json").write_text(card.to_json())
        return self.root


@pytest.fixture
def make_shards(tmp_path):
    """``make_shards(num_clips, ...)`` writes a folder and returns it."""

    def make(
        num_clips=6, num_frames=12, num_shards=2, flow=False, split="train", flip="allowed", name="shards", sizes=()
    ):
        maker = ShardMaker(tmp_path / name, num_shards, flow)
        for clip in range(num_clips):
            width, height = sizes[clip] if sizes else (96, 64)
            length = num_frames(clip) if callable(num_frames) else num_frames
            jpegs = [jpeg(picture(clip, frame, width, height)) for frame in range(length)]
            fields = range(length - 1) if flow and clip % 4 != 3 else ()
            flow_jpegs = [jpeg(flow_picture(clip, field, axis, width, height)) for field in fields for axis in (0, 1)]
            maker.add(jpegs, flow_jpegs, width=width, height=height)
        return maker.finish(split, flip)

    return make


def real_frames(path, num_frames, step=3):
    """Every ``step``-th frame of a video file, 256 pixels high at least."""
    frames = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % step == 0:
                scale = 256 / min(frame.width, frame.height)
                size = (round(frame.width * scale), round(frame.height * scale))
                frames.append(cv2.resize(frame.to_ndarray(format="rgb24"), size, interpolation=cv2.INTER_AREA))
            if len(frames) == num_frames:
                return frames
    return frames


@pytest.fixture(scope="session")
def real_shards(clips_dir, tmp_path_factory):
    """A folder of shards with a few frames of real clips."""
    maker = ShardMaker(tmp_path_factory.mktemp("real"))
    for name in ("arm_wrestling_h264.mp4", "kinetics_flipping_pancake.mkv", "street_h264.mp4", "v2d_test.mp4"):
        frames = [jpeg(frame) for frame in real_frames(clips_dir / name, 6)]
        height, width = simplejpeg.decode_jpeg(frames[0]).shape[:2]
        maker.add(frames, width=width, height=height)
    return maker.finish()
