"""Augmentation: what is drawn, what it does, and that OpenCV and torch do the same."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from actcli.errors import ActcliError
from actcli.loaders import Augmentation, ColourJitter, augment, open_loader
from actcli.loaders.backends._pixels import apply_torch

from .conftest import picture

CLIP = np.stack([cv2.resize(picture(1, frame), (48, 40)) for frame in range(3)])


def applied(*operations):
    clip = CLIP.copy()
    augment.apply_numpy(clip, operations)
    return clip


def operation_of_every_kind():
    rng = np.random.default_rng(0)
    makers = [make(0.7, sign) for make in augment._RAND_AUGMENT for sign in (1.0, -1.0)]
    return [*makers, augment.hue(0.2), augment.gamma(1.4), augment._draw_erase(rng)]


@pytest.mark.parametrize("operation", operation_of_every_kind(), ids=lambda operation: operation[0])
def test_torch_changes_pixels_as_opencv_does(operation):
    ours = applied(operation).astype(int)
    theirs = apply_torch(torch.from_numpy(CLIP), (operation,)).numpy()
    # warpAffine rounds positions to 1/32 pixel, transform its sums to fixed point
    assert np.abs(ours - theirs).mean() < (1.0 if operation[0] == "affine" else 0.15)
    assert np.abs(ours - theirs).max() <= (130 if operation[0] == "affine" else 1)


def pillow(change):
    return np.stack([np.array(change(Image.fromarray(frame))) for frame in CLIP]).astype(int)


@pytest.mark.parametrize(
    ("operation", "change"),
    [
        (augment.brightness(1.3), lambda image: ImageEnhance.Brightness(image).enhance(1.3)),
        (augment.saturation(1.6), lambda image: ImageEnhance.Color(image).enhance(1.6)),
        (("sharpen", (1.8,)), lambda image: ImageEnhance.Sharpness(image).enhance(1.8)),
        (("autocontrast", ()), ImageOps.autocontrast),
        (augment._RAND_AUGMENT[2](0.9, 1.0), ImageOps.invert),
        (augment._RAND_AUGMENT[4](0.9, 1.0), lambda image: ImageOps.posterize(image, 3)),
        (augment._RAND_AUGMENT[5](0.9, 1.0), lambda image: ImageOps.solarize(image, 230)),
    ],
    ids=["brightness", "saturation", "sharpen", "autocontrast", "invert", "posterise", "solarise"],
)
def test_an_operation_is_that_of_pillow(operation, change):
    inner = (slice(None), slice(1, -1), slice(1, -1))  # Pillow leaves the border unsharpened
    assert np.abs(applied(operation)[inner] - pillow(change)[inner]).max() <= 2


def test_a_translation_moves_the_picture_and_fills_the_rest():
    moved = applied(augment._RAND_AUGMENT[13](1 / 0.45 / 4, 1.0))  # a quarter of 48 pixels
    np.testing.assert_array_equal(moved[:, :, :36], CLIP[:, :, 12:])
    assert (moved[:, :, 37:] == augment.FILL).all()


def test_hue_keeps_grey_grey():
    clip = np.full((1, 4, 4, 3), 90, np.uint8)
    augment.apply_numpy(clip, (augment.hue(0.3),))
    assert (clip == 90).all()


def test_every_frame_of_a_clip_is_changed_alike():
    clip = np.repeat(CLIP[:1], 3, axis=0)
    rng = np.random.default_rng(2)
    for _ in range(20):
        augment.apply_numpy(clip, Augmentation(rand_augment=(2, 9), erasing=1.0).draw_operations(rng))
    assert (clip == clip[:1]).all()


def test_jitter_draws_each_property_with_its_chance():
    jitter = ColourJitter(brightness=(0.5, 2), saturation=(0.5, 3), gamma=(0.8, 1.2), hue=(-0.5, 0.5), probability=0.1)
    rng = np.random.default_rng(0)
    counts = [len(Augmentation(colour_jitter=jitter).draw_operations(rng)) for _ in range(4000)]
    assert 0.36 < np.mean(counts) < 0.44


def test_rand_augment_applies_half_of_its_operations():
    rng = np.random.default_rng(0)
    counts = [len(Augmentation(rand_augment=(2, 9)).draw_operations(rng)) for _ in range(2000)]
    assert 0.95 < np.mean(counts) < 1.05


def test_an_erased_box_stays_inside_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(500):
        rows, columns = augment.erased_box(augment._draw_erase(rng)[1], 40, 48)
        assert 0 <= rows.start < rows.stop <= 40
        assert 0 <= columns.start < columns.stop <= 48


def test_the_originals_train_with_their_own_augmentation(make_shards):
    root = make_shards()
    made = {
        name: open_loader(root, sampling=name, size=40, batch_size=2).settings.augmentation
        for name in ("tsm", "gsf", "tokshift")
    }
    assert made["tsm"] == Augmentation()
    assert made["gsf"].rand_augment == (2, 9.0)
    assert made["tokshift"].crop == "short_side"


@pytest.mark.parametrize("wrong", [{"flip": 1.5}, {"erasing": -0.1}, {"rand_augment": (2, 11.0)}])
def test_numbers_outside_their_range_are_refused(wrong):
    with pytest.raises(ActcliError, match="must lie in"):
        Augmentation(**wrong)


def test_an_unknown_crop_is_refused():
    with pytest.raises(ActcliError, match=r"unknown crop 'centre'.*center"):
        Augmentation(crop="centre")
