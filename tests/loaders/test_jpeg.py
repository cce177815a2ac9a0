"""Decoding a region gives the pixels of the whole picture, and damage is never passed over."""

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.loaders import open_loader
from actcli.loaders.backends import jpeg
from actcli.loaders.backends.jpeg import JpegDecoder
from actcli.loaders.views import Crop, Size

needs_regions = pytest.mark.skipif(jpeg.nvimgcodec is None, reason="nvImageCodec, which comes with DALI, is missing")
SETUP = {"training": True, "num_frames": 8, "size": 40, "scale_size": 46, "batch_size": 2, "workers": 0}


def decode(decoder, data, crops, *settings):
    [picture] = decoder.decode([data], tuple(crops), *settings)
    return picture


def noisy(height, width, channels=3):
    rng = np.random.default_rng(height * 1000 + width)
    smooth = np.add.outer(np.arange(height) * 2.0, np.arange(width) * 1.5)[..., None]
    return np.clip(smooth + rng.normal(0, 25, (height, width, channels)), 0, 255).astype(np.uint8)


def boxes_within(width, height):
    def box(numbers):
        x, y = (int(at * side) for at, side in zip(numbers[:2], (width, height), strict=True))
        w, h = (max(1, round(part * rest)) for part, rest in zip(numbers[2:], (width - x, height - y), strict=True))
        return Crop(x, y, w, h)

    part = st.floats(0, 1, exclude_max=True)
    return st.tuples(part, part, part, part).map(box)


@needs_regions
@pytest.mark.parametrize("subsampling", ["420", "422", "444", "440", "411"])
@pytest.mark.parametrize(("width", "height"), [(190, 96), (33, 47)])
def test_a_region_has_the_pixels_of_the_whole_picture(subsampling, width, height):
    data = simplejpeg.encode_jpeg(noisy(height, width), quality=90, colorsubsampling=subsampling)
    whole, decoder = simplejpeg.decode_jpeg(data), JpegDecoder("RGB")

    @given(st.lists(boxes_within(width, height), min_size=1, max_size=3))
    def check(crops):
        picture = decode(decoder, data, crops, Size(width, height), 200, True)
        for crop, box in zip(crops, picture.crops, strict=True):
            x, y, w, h, _ = box
            there = whole[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
            assert np.array_equal(picture.pixels[y : y + h, x : x + w], there)

    check()


@needs_regions
def test_only_the_region_is_decoded():
    data = simplejpeg.encode_jpeg(noisy(96, 190), quality=90)
    picture = decode(JpegDecoder("RGB"), data, [Crop(10, 20, 50, 40), Crop(30, 50, 60, 40)], Size(190, 96), 40, True)
    assert picture.pixels.shape == (70, 84, 3)  # two columns more on either side
    assert picture.crops == [Crop(2, 0, 50, 40), Crop(22, 30, 60, 40)]
    corners = [Crop(0, 0, 90, 90), Crop(100, 6, 90, 90)]  # nearly all of it: not worth a region
    picture = decode(JpegDecoder("RGB"), data, corners, Size(190, 96), 40, True)
    assert picture.pixels.shape == (96, 190, 3)
    assert list(picture.crops) == corners


@pytest.mark.parametrize("checked", [True, False])
def test_grey_pictures(checked):
    data = simplejpeg.encode_jpeg(noisy(64, 96, 1), quality=90, colorspace="GRAY")
    pixels, [crop] = decode(JpegDecoder("GRAY"), data, [Crop(9, 7, 50, 41)], Size(96, 64), 40, checked)
    x, y, w, h, _ = crop
    assert np.array_equal(pixels[y : y + h, x : x + w], simplejpeg.decode_jpeg(data, "GRAY")[7:48, 9:59])


@pytest.mark.parametrize("checked", [True, False])
def test_crops_follow_a_picture_that_is_stored_in_another_size(checked):
    data = simplejpeg.encode_jpeg(noisy(32, 48, 1), quality=90, colorspace="GRAY")
    pixels, [crop] = decode(JpegDecoder("GRAY"), data, [Crop(24, 16, 48, 32)], Size(96, 64), 16, checked)
    x, y, w, h, _ = crop
    assert np.array_equal(pixels[y : y + h, x : x + w], simplejpeg.decode_jpeg(data, "GRAY")[8:24, 12:36])


@pytest.mark.parametrize("checked", [True, False])
def test_what_is_no_whole_jpeg_is_refused(checked):
    data = simplejpeg.encode_jpeg(noisy(64, 96), quality=90)
    for broken in (b"", b"no picture at all" * 9, data[:10], data[:300], data[: len(data) // 2]):
        with pytest.raises(ValueError):
            decode(JpegDecoder("RGB"), broken, [Crop(0, 0, 96, 64)], Size(96, 64), 48, checked)


def test_batches_are_the_same_without_nvimagecodec(make_shards, monkeypatch):
    root = make_shards(num_clips=6, flow=True)
    for modality in ("rgb", "flow"):
        with open_loader(root, modality=modality, **SETUP) as loader:
            with_regions = [batch.clips.clone() for batch in loader]
        with monkeypatch.context() as patch:
            patch.setattr(jpeg, "nvimgcodec", None)
            with open_loader(root, modality=modality, **SETUP) as loader:
                whole = [batch.clips.clone() for batch in loader]
        assert all(bool((a == b).all()) for a, b in zip(with_regions, whole, strict=True))


@pytest.mark.parametrize("backend", ["cpu", "dali"])
@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_one_changed_bit_is_found(make_shards, backend, modality):
    """In most places libjpeg decodes it to other pixels without a warning."""
    if backend == "dali":
        pytest.importorskip("nvidia.dali")
    root = make_shards(num_clips=1, num_shards=1, flow=True)
    path = root / "train-000000.tar"
    data = bytearray(path.read_bytes())
    member = b"000000000.mjpeg" if modality == "rgb" else b"000000000.flow.mjpeg"
    data[data.index(b"\xff\xda", data.index(member)) + 200] ^= 4
    path.write_bytes(data)
    setup = SETUP | {"training": False, "num_frames": 12, "batch_size": 1, "backend": backend, "modality": modality}
    message = r"clip 000000000 in shard train-000000\.tar.*frame 0 have changed since they were packed.*actcli verify"
    with open_loader(root, **setup) as loader, pytest.raises(ActcliError, match=message):
        list(loader)
