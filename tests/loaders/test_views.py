"""Crops: the originals' boxes, and their place on stored frames of any size."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.loaders import views
from actcli.loaders.originals import find_original
from actcli.loaders.views import Crop, Size

TSM, TOKSHIFT = find_original("tsm").rule, find_original("tokshift").rule


@pytest.fixture(scope="module")
def sizes(parity_dir):
    return json.loads((parity_dir / "protocol" / "crops.json").read_text())["sizes"]


def boxes(crops):
    return [[*crop[:4], int(crop.flip)] for crop in crops]


def test_every_test_crop_of_the_tsm_family_is_reproduced(sizes):
    for row in sizes:
        for setting in row["settings"]:
            frame = TSM.resize(Size(row["width"], row["height"]), setting["scale_size"])
            assert list(frame) == setting["resized"]
            expected = {1: [setting["center_crop"]], 3: setting["full_res_3crop"]}
            expected |= {5: setting["oversample_5crop"], 10: setting["oversample_10crop"]}
            for num_crops, wanted in expected.items():
                assert boxes(TSM.crops(frame, setting["crop_size"], num_crops)) == wanted


def test_every_tokshift_crop_is_reproduced(sizes):
    for row in sizes:
        for setting in row["tokshift"]:
            frame = TOKSHIFT.resize(Size(row["width"], row["height"]), setting["short_side"])
            assert list(frame) == setting["resized"]
            three = TOKSHIFT.crops(frame, setting["patch_size"], 3)
            five = TOKSHIFT.crops(frame, setting["patch_size"], 5)
            assert boxes(three) == setting["test_3crop_order_center_left_right"]
            assert boxes(five) == setting["mode5_order_center_tl_tr_bl_br"]
            assert TOKSHIFT.crops(frame, setting["patch_size"], 1) == three[:1]


def test_every_multi_scale_candidate_and_offset_is_reproduced(sizes):
    for row in sizes:
        frame = Size(row["width"], row["height"])
        for setting in row["multi_scale_crop"]:
            crops = views.multi_scale_sizes(frame, setting["input_size"], tuple(setting["scales"]))
            assert [list(crop) for crop in crops] == [[c["crop_w"], c["crop_h"]] for c in setting["candidates"]]
            for crop, candidate in zip(crops, setting["candidates"], strict=True):
                assert [list(at) for at in views.multi_scale_offsets(frame, crop)] == candidate["offsets"]


def test_every_stmulnet_crop_is_reproduced(sizes):
    for row in (row for row in sizes if "error" not in row["stmulnet"]):
        frame = Size(row["width"], row["height"])
        assert boxes([views.center_crop(frame, 256)]) == [row["stmulnet"]["val_center_crop"]]
        for setting in row["stmulnet"]["train_corner_crops"]:
            for position in views.CORNERS:
                crop = views.corner_crop(frame, setting["crop"], position, *setting["border_fraction"])
                assert list(crop[:4]) == setting[position]


def test_a_crop_moves_to_the_stored_frame():
    assert views.stored_box(Crop(58, 16, 224, 224), Size(341, 256), Size(320, 240)) == Crop(54, 15, 210, 210)


def test_a_frame_stored_at_the_scale_keeps_the_original_box():
    crop = Crop(58, 16, 224, 224, True)
    assert views.stored_box(crop, Size(340, 256), Size(340, 256)) == crop


SIDES = st.integers(32, 1200)


@given(SIDES, SIDES, st.integers(16, 400), st.sampled_from([1, 3, 5]), st.sampled_from([TSM, TOKSHIFT]))
def test_test_crops_lie_on_the_stored_frame(width, height, size, num_crops, rule):
    stored = Size(width, height)
    resized = rule.resize(stored, rule.scale_size(size))
    for crop in rule.crops(resized, size, num_crops):
        assert_inside(views.stored_box(crop, resized, stored), stored)


@given(SIDES, SIDES, st.integers(16, 400), st.integers(0, 50))
def test_training_crops_lie_on_the_stored_frame(width, height, size, seed):
    frame, rng = Size(width, height), np.random.default_rng(seed)
    assert_inside(views.multi_scale_crop(frame, size, (1, 0.875, 0.75, 0.66), rng), frame)
    assert_inside(views.random_resized_crop(frame, (0.08, 1.0), (3 / 4, 4 / 3), rng), frame)
    assert_inside(views.short_side_crop(frame, size, (size, size * 3 // 2), rng), frame)
    assert_inside(views.random_corner_crop(frame, size, (0.66, 1.0), 0.25, rng), frame)


def assert_inside(crop, frame):
    assert crop.width >= 1
    assert crop.height >= 1
    assert 0 <= crop.x <= frame.width - crop.width
    assert 0 <= crop.y <= frame.height - crop.height


def test_multi_scale_crop_draws_every_candidate_equally_often():
    frame, rng = Size(340, 256), np.random.default_rng(0)
    drawn = [views.multi_scale_crop(frame, 224, (1, 0.875, 0.75, 0.66), rng)[2:4] for _ in range(5000)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 10
    assert counts.min() > 400


def test_a_frame_one_pixel_smaller_than_the_input_is_not_cropped_outside():
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert_inside(views.multi_scale_crop(Size(223, 300), 224, (1,), rng), Size(223, 300))


def test_short_side_jitter_covers_its_range():
    frame, rng = Size(400, 300), np.random.default_rng(0)
    widths = {views.short_side_crop(frame, 224, (224, 330), rng).width for _ in range(500)}
    assert max(widths) == 301
    assert 200 < min(widths) < 210


def test_a_crop_larger_than_the_frame_is_refused():
    with pytest.raises(ActcliError, match="does not fit"):
        TSM.crops(Size(200, 100), 224, 1)


def test_a_number_of_crops_that_the_original_lacks_is_refused():
    with pytest.raises(ActcliError, match="tokshift tests with 1, 3, 5 crops, not 10"):
        TOKSHIFT.crops(Size(300, 300), 224, 10)


def test_the_scale_before_the_crop_follows_the_original():
    assert [find_original(name).rule.scale_size(229) for name in ("ours", "gsf", "tokshift")] == [261, 261, 229]
    assert find_original("stmulnet").rule.scale_size(112) == 256
