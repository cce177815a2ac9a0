import sys

import cv2
import numpy as np
import pytest

from actcli.errors import ActcliError
from actcli.ingest.flow import check_method, dequantise, flow_fields, flow_to_colour, quantise


def moving_texture(dx, dy, count=3, size=64):
    """Grey frames of a texture that moves by (dx, dy) pixels a frame."""
    rng = np.random.default_rng(0)
    canvas = cv2.GaussianBlur(rng.integers(0, 256, (size * 2, size * 2), np.uint8), (0, 0), 2)
    canvas = cv2.normalize(canvas, None, 0, 255, cv2.NORM_MINMAX)
    start = size // 2
    return [
        np.ascontiguousarray(canvas[start - i * dy : start - i * dy + size, start - i * dx : start - i * dx + size])
        for i in range(count)
    ]


@pytest.mark.parametrize("method", ["dis", "farneback", "tvl1"])
@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -3)])
def test_flow_measures_a_known_motion(method, dx, dy):
    fields = list(flow_fields(moving_texture(dx, dy), method))
    assert len(fields) == 2
    for field in fields:
        middle = field[16:-16, 16:-16]
        assert np.abs(np.median(middle, axis=(0, 1)) - (dx, dy)).max() < 0.3


def test_one_frame_has_no_flow():
    assert list(flow_fields(moving_texture(1, 1, count=1), "dis")) == []


def test_quantised_motion_comes_back_within_half_a_step():
    rng = np.random.default_rng(0)
    field = rng.uniform(-20, 20, (8, 9, 2)).astype(np.float32)
    x, y = quantise(field, 20.0)
    assert x.dtype == np.uint8
    assert np.abs(dequantise(x, y, 20.0) - field).max() <= 20 / 255 + 1e-5


def test_motion_beyond_the_bound_is_clipped():
    field = np.array([[[-99.0, 99.0]]], np.float32)
    x, y = quantise(field, 20.0)
    assert (int(x[0, 0]), int(y[0, 0])) == (0, 255)
    assert dequantise(x, y, 20.0)[0, 0].tolist() == [-20.0, 20.0]


def test_colour_shows_direction_as_hue_and_no_motion_as_white():
    field = np.zeros((4, 1, 2), np.float32)
    field[0, 0] = (10, 0)
    field[1, 0] = (-10, 0)
    field[2, 0] = (0, 10)
    right, left, down, still = flow_to_colour(field, full_scale=10)[:, 0].tolist()
    assert right == [255, 0, 0]
    assert left == [0, 255, 255]
    assert down[1] == 255 and down[2] == 0 and 120 <= down[0] <= 135
    assert still == [255, 255, 255]


def test_raft_without_torchvision_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    with pytest.raises(ActcliError, match="raft needs torchvision"):
        check_method("raft")


def test_raft_without_weights_says_where_to_put_them(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("torchvision")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ActcliError, match=r"raft_small.*\.pth"):
        check_method("raft")


def test_raft_with_weights_gives_fields_of_the_frames_size(monkeypatch, tmp_path):
    torch = pytest.importorskip("torch")
    optical_flow = pytest.importorskip("torchvision.models.optical_flow")
    from actcli.ingest import flow

    file = optical_flow.Raft_Small_Weights.DEFAULT.url.rsplit("/", 1)[-1]
    (tmp_path / "checkpoints").mkdir()
    torch.save(optical_flow.raft_small(weights=None).state_dict(), tmp_path / "checkpoints" / file)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    flow._raft.cache_clear()
    fields = list(flow_fields([np.zeros((50, 70), np.uint8)] * 2, "raft"))
    flow._raft.cache_clear()
    assert [field.shape for field in fields] == [(50, 70, 2)]
