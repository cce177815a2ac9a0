"""An exported model gives our scores to programs that know nothing of us."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from actcli.engine import export
from actcli.engine.export import METADATA_KEY, export_model
from actcli.errors import ActcliError
from actcli.models import create_model, load_weights, save_weights, vit
from actcli.shards import ShardSet

MODELS = {
    "tsm": {"backbone": "resnet18", "num_frames": 2},
    "tokshift": {"backbone": "vit_ti16", "num_frames": 2, "image_size": 32},
}


@pytest.fixture(autouse=True)
def shallow_transformer(monkeypatch):
    """Twelve equal blocks are exported as two are, and take minutes; the benchmark exports the whole."""
    monkeypatch.setitem(vit._SIZES, "vit_ti16", vit._SIZES["vit_ti16"]._replace(depth=2))


@pytest.fixture(params=MODELS)
def weights(request, tmp_path):
    path = tmp_path / "model.safetensors"
    torch.manual_seed(2)
    model = create_model(request.param, num_classes=3, **MODELS[request.param])
    save_weights(model, path, {"classes": ["ä", "b", "c"], "size": 32, "sampling": "tsm"})
    return path


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: pytest.fail("the work has begun"))
    weights = tmp_path / "model.safetensors"
    save_weights(create_model("tsn", num_classes=2, num_frames=2, backbone="resnet18"), weights, {"size": 32})
    for path, message in ((tmp_path, "is a folder"), (weights / "x.onnx", "nothing can be written to")):
        with pytest.raises(ActcliError, match=message):
            export_model(weights, path)


def test_onnx_gives_our_scores_for_any_number_of_clips(weights, tmp_path):
    done = export_model(weights, tmp_path / "model.onnx")
    assert done.difference < 1e-4
    assert done.input_shapes == (("batch", 2, 3, 32, 32),)
    session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
    clips = np.random.default_rng(0).normal(size=(5, 2, 3, 32, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = load_weights(weights)[0].eval()(torch.from_numpy(clips)).numpy()
    np.testing.assert_allclose(session.run(["logits"], {"clip": clips})[0], expected, rtol=1e-3, atol=1e-5)
    described = json.loads(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    assert described["classes"] == ["ä", "b", "c"]
    assert (described["input"]["size"], described["input"]["scale_size"]) == (32, 36)  # an evaluation crops 32 of 36
    assert described["input"]["num_frames"] == 2
    assert len(described["input"]["mean"]) == 3


def test_real_clips_are_what_a_test_shows(weights, tiny_shards):
    model, _ = load_weights(weights)
    found = export.real_inputs(model, 32, ShardSet.open(tiny_shards))
    assert [tuple(clips.shape) for [clips] in found] == [(2, 2, 3, 32, 32)] * 2
    assert found[0][0].std() > 0.1


def test_torch_export_gives_our_scores_without_our_code(weights, tiny_shards, tmp_path):
    done = export_model(weights, tmp_path / "model.pt2", "torch", shards=ShardSet.open(tiny_shards))
    assert done.num_real_clips == 4
    extra = {METADATA_KEY: ""}
    program = torch.export.load(done.path, extra_files=extra)
    assert json.loads(extra[METADATA_KEY])["sampling"] == "tsm"
    clips = torch.randn(4, 2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(
            program.module()(clips), load_weights(weights)[0].eval()(clips), rtol=1e-3, atol=1e-5
        )


def test_other_scores_leave_no_file(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_read_torch", lambda path: lambda inputs: np.ones((len(inputs[0]), 3)))
    with pytest.raises(ActcliError, match=r"scores differ from ours by .* it was not kept"):
        export_model(weights, tmp_path / "model.pt2", "torch")
    assert not (tmp_path / "model.pt2").exists()


def test_a_size_that_the_model_cannot_take_is_refused_in_one_sentence(tmp_path):
    model = create_model("tokshift", num_classes=3, num_frames=2, backbone="vit_ti16", image_size=32)
    save_weights(model, tmp_path / "model.safetensors")
    with pytest.raises(ActcliError, match="tokshift cannot be exported at 48 px"):
        export_model(tmp_path / "model.safetensors", tmp_path / "model.onnx", size=48)


def test_an_unknown_form_is_refused(tmp_path):
    with pytest.raises(ActcliError, match="form is 'caffe'; allowed are: onnx, torch"):
        export_model(tmp_path / "model.safetensors", tmp_path / "model.caffe", "caffe")
