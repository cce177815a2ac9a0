"""Heat is where the evidence is."""

import av
import cv2
import numpy as np
import pytest
import torch
from torch import nn

from actcli.engine.cam import heat_maps
from actcli.engine.drawing import heated, strip, write_video
from actcli.engine.explaining import explain_videos, explain_worst
from actcli.errors import ActcliError
from actcli.models import create_model, save_weights
from actcli.models.base import InputSpec, VideoModel

from .helpers import HARDWARE


class Bright(VideoModel):
    """Class 1 is how bright the picture is, and nothing else; class 0 always scores 0."""

    def __init__(self):
        super().__init__()
        self.config = {"name": "bright", "num_classes": 2}
        self.num_frames = 2
        self.input_spec = InputSpec("rgb", mean=(0.0,) * 3, std=(1.0,) * 3, size=8, scale_size=8)
        self.maps = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.ones_(self.maps.weight)

    def forward(self, clip):
        maps = self.maps(clip.flatten(0, 1))
        score = maps.mean((1, 2, 3)).view(len(clip), -1).mean(1)
        return torch.stack([torch.zeros_like(score), score], 1)


def test_grad_cam_finds_the_only_place_that_counts():
    clip = torch.zeros(1, 2, 3, 8, 8)
    clip[0, 1, :, 2, 5] = 1
    heat, logits = heat_maps(Bright().eval(), clip)
    assert heat.shape == (2, 8, 8)
    assert np.argwhere(heat == 1).tolist() == [[1, 2, 5]]
    assert heat.sum() == pytest.approx(1)
    assert int(logits.argmax()) == 1


def test_what_speaks_against_a_class_is_cold():
    heat, _ = heat_maps(Bright().eval(), -torch.ones(1, 2, 3, 8, 8), label=1)
    assert not heat.any()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("tsm", {"backbone": "resnet18", "temporal_pool": True}),
        ("gsf", {"backbone": "resnet50"}),
        ("vit", {"backbone": "vit_ti16", "image_size": 64}),
        ("tokshift", {"backbone": "vit_ti16", "image_size": 64}),
    ],
)
def test_every_kind_of_network_gives_a_map_for_each_frame(name, options):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, num_frames=8, **options).eval()
    clip = torch.randn(1, 8, 3, 64, 64)
    heat, logits = heat_maps(model, clip)
    assert heat.shape == (8, 64, 64)
    assert (heat.min() >= 0, heat.max()) == (True, pytest.approx(1))
    with torch.inference_mode():
        torch.testing.assert_close(logits, model(clip)[0], rtol=1e-4, atol=1e-4)


def test_roll_out_without_attention_to_patches_is_their_mean():
    """With queries of 0 every token looks at all alike, so that no patch is hotter than another."""
    model = create_model("vit", num_classes=3, num_frames=2, backbone="vit_ti16", image_size=64).eval()
    for block in model.backbone.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
        nn.init.zeros_(block.attn.qkv.bias)
    heat, _ = heat_maps(model, torch.randn(1, 2, 3, 64, 64))
    np.testing.assert_allclose(heat, 1, atol=1e-5)


def test_cold_places_keep_their_colours():
    picture = np.full((4, 4, 3), 90, np.uint8)
    assert (heated(picture, np.zeros((4, 4), np.float32)) == picture).all()


def test_a_video_has_every_picture_once(tmp_path):
    pictures = [np.full((33, 48, 3), 20 * n, np.uint8) for n in range(7)]
    assert write_video(tmp_path / "out.mp4", pictures, 12.5) == 7
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(32, 48, 3)] * 7
    assert [round(float(frame.mean()) / 20) for frame in frames] == list(range(7))


def test_a_strip_is_rows_of_pictures():
    white = np.full((10, 20, 3), 255, np.uint8)
    assert strip([[white] * 3, [white] * 3], gap=4).shape == (24, 68, 3)


def test_videos_become_strips_and_videos_and_broken_ones_a_sentence(tmp_path):
    weights = tmp_path / "model.safetensors"
    model = create_model("tsn", num_classes=2, num_frames=2, backbone="resnet18")
    save_weights(model, weights, {"classes": ["<b>", "b"], "size": 32})
    write_video(tmp_path / "a video.mp4", (np.full((48, 64, 3), 9 * n, np.uint8) for n in range(9)), 9)
    (tmp_path / "broken.mp4").write_bytes(b"")
    paths = [tmp_path / "a video.mp4", tmp_path / "broken.mp4"]
    [found], [unreadable] = explain_videos(paths, weights, tmp_path / "out", HARDWARE, "b")
    assert (found.explained, found.label) == ("b", "")
    assert cv2.imread(str(found.strip)).shape[1] == 2 * 160 + 4
    assert found.video.stat().st_size > 0
    assert "broken.mp4 cannot be read: the file is empty" in unreadable


def test_a_class_that_the_model_does_not_have_is_refused(tmp_path):
    weights = tmp_path / "model.safetensors"
    save_weights(create_model("tsn", num_classes=2, num_frames=2, backbone="resnet18"), weights, {"size": 32})
    write_video(tmp_path / "video.mp4", (np.full((48, 64, 3), 9 * n, np.uint8) for n in range(9)), 9)
    with pytest.raises(ActcliError, match="the model has no class 'c'"):
        explain_videos([tmp_path / "video.mp4"], weights, tmp_path / "out", HARDWARE, "c")


def test_models_of_flow_are_refused(tmp_path):
    weights = tmp_path / "model.safetensors"
    save_weights(create_model("stmulnet", num_classes=2, num_frames=2), weights, {})
    with pytest.raises(ActcliError, match="stmulnet sees two_stream"):
        explain_worst(tmp_path, weights, tmp_path / "out", HARDWARE)
