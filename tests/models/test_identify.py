"""Names and shapes of a checkpoint tell what its model is, and nothing is guessed beyond them."""

import pytest
import torch

from actcli.errors import ActcliError
from actcli.models import convert_upstream, create_model
from actcli.models.identify import identify

from .parity import reference_shapes

CASES = {
    "tsm_resnet50_8f": (("tsm",), {"backbone": "resnet50", "shift_place": "blockres", "non_local": False}),
    "tsm_block_resnet50_8f": (("tsm",), {"backbone": "resnet50", "shift_place": "block"}),
    "tsm_nl_resnet50_8f": (("tsm",), {"shift_place": "blockres", "non_local": True, "temporal_pool": False}),
    "tsm_mobilenetv2_8f": (("tsm",), {"backbone": "mobilenetv2", "shift_place": "blockres"}),
    "tsm_bninception_8f": (("tsn", "tsm"), {"backbone": "bninception"}),
    "tsn_resnet50_8f": (("tsn",), {"backbone": "resnet50", "modality": "rgb"}),
    "tsn_flow_resnet50_8f": (("tsn",), {"backbone": "resnet50", "modality": "flow"}),
    "gsm_inceptionv3_8f": (("gsm",), {"backbone": "inceptionv3"}),
    "gsf_resnet50_8f": (("gsf",), {"backbone": "resnet50", "channel_ratio": 1.0}),
    "gsf_bninception_8f": (("gsf",), {"backbone": "bninception", "channel_ratio": 1.0}),
    "gsf_inceptionv3_8f": (("gsf",), {"backbone": "inceptionv3", "channel_ratio": 1.0}),
    "masnet_resnet50_8f": (("masnet",), {"backbone": "resnet50"}),
    "tokshift_b16_8x64": (("vit", "tokshift"), {"backbone": "vit_b16", "image_size": 64}),
    "vit_b16_8x224": (("vit", "tokshift"), {"backbone": "vit_b16", "image_size": 224}),
    "stmulnet_resnet50": (("stmulnet",), {}),
}
"""Reference case → models that its names fit, and some of the options that they tell."""


def source_of(name):
    first = name.split("_")[0]
    return {"tsn": "tsm", "vit": "tokshift"}.get(first, first)


@pytest.mark.parametrize("name", CASES)
def test_the_names_of_the_original_code_tell_the_model(parity_dir, name):
    weights = reference_shapes(parity_dir, name)
    identity = identify(source_of(name), weights)
    models, options = CASES[name]
    assert identity.models == models
    assert {key: identity.options[key] for key in options} == options
    # and the model made from them takes every tensor
    with torch.device("meta"):
        model = create_model(models[0], num_classes=7, num_frames=8, **identity.options)
    hints = {"image_size": options["image_size"]} if "image_size" in options else {}
    converted = convert_upstream(source_of(name), weights, **hints)
    assert {key for key in converted if "num_batches" not in key} == {
        key for key in model.state_dict() if "num_batches" not in key
    }


def foreign(model):
    """A state dict of ours under the names of the TSM repository."""
    renamed = {}
    for key, value in model.state_dict().items():
        name = key.replace("backbone.", "module.base_model.").replace("classifier.", "module.new_fc.")
        renamed[name.replace(".conv1.weight", ".conv1.net.weight") if "layer" in name else name] = value
    return renamed


def test_a_pooled_stage_is_seen():
    model = create_model("tsm", num_classes=3, num_frames=8, backbone="resnet18", temporal_pool=True)
    renamed = {key.replace("layer2.", "layer2.net."): value for key, value in foreign(model).items()}
    identity = identify("tsm", renamed)
    assert identity.models == ("tsm",)
    assert (identity.options["temporal_pool"], identity.options["shift_place"]) == (True, "blockres")


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet101"])
def test_the_depth_of_a_resnet_is_counted(backbone):
    with torch.device("meta"):
        model = create_model("tsm", num_classes=3, num_frames=8, backbone=backbone)
    assert identify("tsm", foreign(model)).options["backbone"] == backbone


@pytest.mark.parametrize("ratio", [0.5, 0.25])
def test_the_share_of_channels_of_gsf_is_seen(ratio):
    with torch.device("meta"):
        model = create_model("gsf", num_classes=3, num_frames=8, backbone="resnet50", channel_ratio=ratio)
    renamed = {
        key.replace("backbone.", "base_model.").replace("before_bn3.bn", "gsf.bn"): value
        for key, value in model.state_dict().items()
    }
    assert identify("gsf", renamed).options["channel_ratio"] == ratio


@pytest.mark.parametrize("source", ["tsm", "gsm", "gsf", "masnet", "tokshift", "stmulnet"])
def test_other_names_are_refused(source):
    with pytest.raises(ActcliError):
        identify(source, {"encoder.weight": torch.zeros(3, 3, 3, 3)})
