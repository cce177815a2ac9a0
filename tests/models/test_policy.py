"""Parameter groups and frozen batch norms, as in the original code."""

import json

import pytest
import torch
from torch import nn

from actcli.errors import ActcliError
from actcli.models import convert_upstream, create_model

CASES = [
    ("tsm_resnet50_8f", "tsm", "tsm", {}),
    ("tsm_nl_resnet50_8f", "tsm", "tsm", {"non_local": True}),
    ("tsm_mobilenetv2_8f", "tsm", "tsm", {"backbone": "mobilenetv2"}),
    ("tsn_flow_resnet50_8f", "tsm", "tsn", {"modality": "flow"}),
    ("gsm_bninception_8f", "gsm", "gsm", {"backbone": "bninception"}),
    ("gsf_bninception_8f", "gsf", "gsf", {"backbone": "bninception"}),
    ("gsf_resnet50_8f", "gsf", "gsf", {"backbone": "resnet50"}),
    ("masnet_resnet50_8f", "masnet", "masnet", {}),
    ("vit_b16_8x224", "tokshift", "vit", {}),
    ("tokshift_b16_8x224", "tokshift", "tokshift", {}),
    ("stmulnet_resnet50", "stmulnet", "stmulnet", {}),
]


def our_names(source, keys, num_axes):
    """Original name → our name, found by sending tensors through the importer that hold their own number."""
    numbered = {key: torch.full([1] * num_axes[key], float(number)) for number, key in enumerate(keys)}
    converted = convert_upstream(source, numbered)
    ours = {int(number): name for name, value in converted.items() for number in value.unique().tolist()}
    return {key: ours[number] for number, key in enumerate(keys)}


@pytest.mark.parametrize(("case", "source", "name", "options"), CASES, ids=[case[0] for case in CASES])
def test_every_parameter_has_the_multipliers_of_the_original_code(parity_dir, case, source, name, options):
    recorded = json.loads((parity_dir / "optim" / f"{case}.json").read_text())
    state_dict = json.loads((parity_dir / "models" / f"{case}.json").read_text())["state_dict"]
    num_axes = {key: len(shape) for key, shape, _ in state_dict}
    with torch.device("meta"):
        model = create_model(name, num_classes=174, **options)
    for variant in recorded["variants"]:
        switches = {key: value for key, value in variant["arguments"].items() if key != "modality"}
        names = our_names(source, [entry[0] for entry in variant["params"]], num_axes)
        expected = {names[key]: (lr, decay, group) for key, lr, decay, group in variant["params"]}
        rules = {rule.name: (rule.lr_mult, rule.decay_mult, rule.group) for rule in model.parameter_policy(**switches)}
        assert rules == expected


@pytest.mark.parametrize("name", ["tsm", "masnet", "lsnet"])
def test_rules_and_frozen_parameters_together_are_all_parameters(name):
    model = create_model(name, num_classes=3)
    named = {rule.name for rule in model.parameter_policy(partial_bn=True)}
    frozen = {key for key, parameter in model.named_parameters() if not parameter.requires_grad}
    assert named.isdisjoint(frozen)
    assert named | frozen == {key for key, _ in model.named_parameters()}


def test_partial_batch_norm_freezes_all_but_the_first_and_survives_train():
    model = create_model("tsn", num_classes=3, num_frames=2, backbone="resnet18")
    model.parameter_policy(partial_bn=True)
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(torch.randn(2, 2, 3, 32, 32)).sum().backward()
    moved = {
        key
        for key, value in model.state_dict().items()
        if key.endswith("running_mean") and not value.equal(before[key])
    }
    assert moved == {"backbone.bn1.running_mean"}
    trained = {
        key for key, p in model.named_parameters() if p.grad is not None and (".bn" in key or "downsample.1" in key)
    }
    assert trained == {"backbone.bn1.weight", "backbone.bn1.bias"}


def test_partial_batch_norm_can_be_released():
    model = create_model("tsn", num_classes=3, backbone="resnet18")
    model.parameter_policy(partial_bn=True)
    model.parameter_policy(partial_bn=False)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.train().modules() if isinstance(module, nn.BatchNorm2d))


def test_a_frozen_3d_batch_norm_goes_on_updating_its_statistics():
    model = create_model("gsm", num_classes=3)
    model.parameter_policy(partial_bn=True)
    model.train()
    assert all(module.training for module in model.modules() if isinstance(module, nn.BatchNorm3d))
    assert sum(module.training for module in model.modules() if isinstance(module, nn.BatchNorm2d)) == 1


def test_parameter_groups_carry_the_multiplied_rates():
    model = create_model("tsm", num_classes=3, backbone="resnet18")
    groups = model.parameter_groups(0.1, 0.01, fc_lr5=True)
    rates = {(group["lr"], group["weight_decay"]): len(group["params"]) for group in groups}
    assert rates[(0.5, 0.01)] == 1
    assert rates[(1.0, 0.0)] == 1
    assert sum(rates.values()) == len(list(model.parameters()))


@pytest.mark.parametrize("name", ["tsn", "tsm", "gsm", "gsf", "masnet", "lsnet"])
def test_dropout_sits_between_features_and_classifier(name):
    model = create_model(name, num_classes=3, dropout=0.8)
    assert model.dropout.p == 0.8
    assert create_model(name, num_classes=3).dropout.p == 0.5


def test_batch_norm_momentum_of_bninception_is_that_of_the_tsm_code():
    momentum = {
        name: {
            m.momentum
            for m in create_model(name, num_classes=2, backbone="bninception").modules()
            if hasattr(m, "momentum")
        }
        for name in ("tsn", "tsm", "gsm", "gsf")
    }
    assert momentum == {"tsn": {0.9}, "tsm": {0.9}, "gsm": {0.1}, "gsf": {0.1}}


def test_a_switch_that_a_model_does_not_have_is_refused():
    with pytest.raises(ActcliError, match="fc_lr5"):
        create_model("tokshift", num_classes=2, backbone="vit_ti16", image_size=32).parameter_policy(fc_lr5=True)


@pytest.mark.parametrize("name", ["gsm", "gsf"])
def test_gsm_and_gsf_train_with_one_rate_as_their_code_does(name):
    assert len(create_model(name, num_classes=2).parameter_groups(0.1, 0.01)) == 1
