"""Multiply-accumulates against the recorded counts and the published tables."""

import json

import pytest

from actcli.models import list_models, profile_model
from actcli.models.costs import NUM_CLASSES, list_costs

RECORDED = [
    ("tsn_resnet50_8f", "tsn", {}),
    ("tsn_flow_resnet50_8f", "tsn", {"modality": "flow"}),
    ("tsn_bninception_8f", "tsn", {"backbone": "bninception"}),
    ("tsn_flow_bninception_8f", "tsn", {"backbone": "bninception", "modality": "flow"}),
    ("tsm_resnet50_8f", "tsm", {}),
    ("tsm_resnet50_16f", "tsm", {"num_frames": 16}),
    ("tsm_nl_resnet50_8f", "tsm", {"non_local": True}),
    ("tsm_mobilenetv2_8f", "tsm", {"backbone": "mobilenetv2"}),
    ("gsm_bninception_8f", "gsm", {}),
    ("gsm_inceptionv3_8f", "gsm", {"backbone": "inceptionv3"}),
    ("gsf_bninception_8f", "gsf", {}),
    ("gsf_inceptionv3_8f", "gsf", {"backbone": "inceptionv3"}),
    ("gsf_resnet50_8f", "gsf", {"backbone": "resnet50"}),
    ("masnet_resnet50_8f", "masnet", {}),
    ("vit_b16_8x224", "vit", {}),
    ("tokshift_b16_8x64", "tokshift", {"image_size": 64}),
    ("stmulnet_resnet50", "stmulnet", {"size": 224}),
]


@pytest.mark.parametrize(("case", "name", "options"), RECORDED, ids=[case[0] for case in RECORDED])
def test_parameters_and_macs_equal_the_recorded_counts(parity_dir, case, name, options):
    recorded = json.loads((parity_dir / "models" / f"{case}.json").read_text())
    num_classes = {"stmulnet": 101, "vit": 400, "tokshift": 400}.get(name, 174)
    profile = profile_model(name, num_classes=num_classes, **options)
    flops = recorded["flops"]
    assert profile.parameters == recorded["parameters"]
    assert profile.macs == flops["macs"]
    assert profile.macs_without_attention == flops.get("macs_without_batched_matmul", flops["macs"])


@pytest.mark.parametrize(
    ("options", "published", "with_attention"),
    [
        ({}, 134.78, 140.51),
        ({"image_size": 256}, 175.84, 185.58),
        ({"image_size": 384}, 394.78, 443.87),
        ({"num_frames": 16}, 269.57, 281.01),
        ({"image_size": 384, "backbone": "vit_l16"}, 1397.61, 1528.53),
        ({"image_size": 384, "backbone": "vit_l16", "num_frames": 12}, 2096.42, 2292.79),
    ],
)
def test_tokshift_costs_what_its_paper_counts(options, published, with_attention):
    profile = profile_model("tokshift", num_classes=400, **options)
    assert profile.macs_without_attention / 1e9 == pytest.approx(published, abs=0.006)
    assert profile.macs / 1e9 == pytest.approx(with_attention, abs=0.006)


def test_masnet_costs_33_and_66_billion():
    assert profile_model("masnet", num_classes=174).macs / 1e9 == pytest.approx(33.37, abs=0.005)
    assert profile_model("masnet", num_classes=174, num_frames=16).macs / 1e9 == pytest.approx(66.19, abs=0.005)


@pytest.mark.parametrize(
    ("backbone", "ratio", "millions"),
    [
        *(("bninception", ratio, count) for ratio, count in [(1.0, 10.500), (0.5, 10.475), (0.25, 10.462)]),
        *(("inceptionv3", ratio, count) for ratio, count in [(1.0, 22.223), (0.5, 22.191), (0.25, 22.176)]),
        *(("resnet50", ratio, count) for ratio, count in [(1.0, 24.303), (0.5, 24.084), (0.25, 23.975)]),
    ],
)
def test_gsf_has_the_parameters_of_its_channel_ratio(backbone, ratio, millions):
    profile = profile_model("gsf", num_classes=174, backbone=backbone, channel_ratio=ratio)
    assert profile.parameters / 1e6 == pytest.approx(millions, abs=0.0006)


@pytest.mark.parametrize("ratio", [0.75, 0.125])
@pytest.mark.parametrize("backbone", ["bninception", "inceptionv3", "resnet50"])
def test_the_other_published_ratios_fit_every_backbone(backbone, ratio):
    assert profile_model("gsf", num_classes=174, backbone=backbone, channel_ratio=ratio).macs > 0


def test_lsnet_costs_less_than_five_per_cent_more_than_tsm():
    assert profile_model("lsnet", num_classes=174).macs < 1.05 * profile_model("tsm", num_classes=174).macs


def test_cost_grows_with_frames_and_with_the_image():
    small = profile_model("tsn", num_classes=5, backbone="resnet18", size=64)
    assert profile_model("tsn", num_classes=5, backbone="resnet18", size=64, num_frames=16).macs == 2 * small.macs
    assert profile_model("tsn", num_classes=5, backbone="resnet18", size=128).macs > 3.9 * small.macs


def test_the_stored_costs_are_those_of_the_models():
    costs = {(cost.model, cost.backbone): cost for cost in list_costs()}
    assert set(costs) == {(info.name, backbone) for info in list_models() for backbone in info.backbones}
    for info in list_models():
        cost = costs[info.name, info.backbones[0]]
        profile = profile_model(info.name, num_classes=NUM_CLASSES, **{**info.options, "backbone": info.backbones[0]})
        assert (cost.parameters, cost.macs, cost.macs_without_attention) == (
            profile.parameters, profile.macs, profile.macs_without_attention,
        )  # fmt: skip
