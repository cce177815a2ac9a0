"""Made shard sets of the shape of real datasets, and endless batches, for the loader benchmarks."""

import io
import itertools
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from actcli.loaders import Batch, Loader
from actcli.shards import ShardCard, ShardFile, note
from actcli.shards.checksum import FileSeal
from actcli.shards.clip import StoredClip
from actcli.shards.index_file import write_index

CLIPS_PER_SHARD = 64
BANK = 240
LISTED = 4096
"""Clips of an epoch: those that exist, listed again and again, since a real epoch is long too."""


@dataclass(frozen=True)
class Shape:
    """What the clips of a dataset look like once they are extracted."""

    width: int
    height: int
    num_frames: int
    num_clips: int
    source: tuple[int, int]
    """Size of the videos that were extracted."""


SHAPES = {
    "sthv2": Shape(456, 256, 45, 256, source=(427, 240)),
    "kinetics400": Shape(340, 256, 300, 64, source=(340, 256)),
}
"""Something-Something v2 is 427 x 240, Kinetics mostly 340 x 256; both extracted to a short side of 256."""


def frames(shape: Shape, count: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Pictures with the spectrum of real ones: noise of all scales, moving slowly.

    As JPEGs they have 19 and 16 kB; real footage that `actcli extract` cut to these sizes has 18 and 16 kB.
    """
    rng = np.random.default_rng(seed)
    width, height = shape.source
    layers = [
        (cv2.resize(rng.normal(size=(h, w, 3)).astype(np.float32), (width * 2, height * 2)), strength)
        for h, w, strength in ((4, 6, 60), (12, 16, 40), (40, 60, 24), (130, 200, 5), (400, 600, 1.5))
    ]
    for number in range(count):
        picture = np.full((height, width, 3), 118, np.float32)
        for depth, (layer, strength) in enumerate(layers):
            x, y = (number * (depth + 1)) % width, (number * (depth + 2) // 2) % height
            picture += strength * layer[y : y + height, x : x + width]
        pixels = np.clip(picture, 0, 255).astype(np.uint8)
        yield cv2.resize(pixels, (shape.width, shape.height))


def endless(loader: Loader) -> Iterator[Batch]:
    """The batches of one epoch after the other; closes the loader with itself."""
    with loader:
        for epoch in itertools.count():
            loader.set_epoch(epoch)
            yield from loader


def make_shards(root: Path, shape: Shape, folders: Path | None = None) -> None:
    """Writes the shard set and, where ``folders`` is given, a folder of JPEG files per clip with the same pictures."""
    root.mkdir(parents=True, exist_ok=True)
    bank = [simplejpeg.encode_jpeg(f, quality=90, colorsubsampling="420") for f in frames(shape, BANK)]
    rows = []
    for shard in range(-(-shape.num_clips // CLIPS_PER_SHARD)):
        name = f"train-{shard:06d}.tar"
        with tarfile.open(root / name, "w") as tar:
            for key in range(shard * CLIPS_PER_SHARD, min((shard + 1) * CLIPS_PER_SHARD, shape.num_clips)):
                jpegs = [bank[(key * 7 + number) % BANK] for number in range(shape.num_frames)]
                rows.append(_write_clip(tar, name, key, jpegs, shape))
                if folders:
                    _write_folder(folders / f"{key:09d}", jpegs)
    listed = [replace(rows[number % len(rows)], key=f"{number:09d}") for number in range(LISTED)]
    write_index(str(root / "train.index.parquet"), listed, with_flow=False)
    write_index(str(root / "val.index.parquet"), rows[:CLIPS_PER_SHARD], with_flow=False)
    seal(root, {"train": LISTED, "val": min(CLIPS_PER_SHARD, len(rows))})


def seal(root: Path, splits: dict[str, int], made_up: Sequence[str] = ()) -> None:
    """Writes the card of the tars and indexes that lie in a folder, and of tars that do not exist."""
    tars = [ShardFile(**vars(FileSeal.of(path)), num_clips=0) for path in sorted(root.glob("*.tar"))]
    tars += [ShardFile(name, 1 << 50, "0" * 64, 0) for name in made_up]
    indexes = [FileSeal.of(root / f"{split}.index.parquet") for split in splits]
    text = replace(card(splits), shards=tuple(tars), files=tuple(indexes)).to_json()
    (root / "dataset.json").write_text(text)


def card(splits: dict[str, int]) -> ShardCard:
    """The card of a made shard set, without its files."""
    return ShardCard(
        name="made",
        classes=("left", "right"),
        flip="allowed",
        flip_swaps=(),
        payload="mjpeg",
        modalities=("rgb",),
        split_sets={"1": splits},
        coverage={},
        extraction={},
        settings={},
        source_digest="",
    )


def _write_clip(tar: tarfile.TarFile, name: str, key: int, jpegs: list[bytes], shape: Shape) -> StoredClip:
    payload = b"".join(jpegs)
    clip = StoredClip(
        key=f"{key:09d}",
        label=key % 2,
        shard=name,
        bytes=len(payload),
        num_frames=len(jpegs),
        width=shape.width,
        height=shape.height,
        fps=25.0,
        frame_sizes=np.array([len(data) for data in jpegs], np.uint32),
        frame_crcs=np.array([zlib.crc32(data) for data in jpegs], np.uint32),
    )
    _add(tar, f"{clip.key}.json", note.seal(note.write_note(clip.note()), [payload]))
    _add(tar, f"{clip.key}.mjpeg", payload)
    return replace(clip, offset=tar.offset - -(-len(payload) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _write_folder(folder: Path, jpegs: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(jpegs, 1):
        (folder / f"img_{number:05d}.jpg").write_bytes(data)
