"""Every recorded case of the original code, through importer, strict loading and forward."""

import pytest

from .parity import case_error

CASES = [
    ("tsn_resnet50_8f", "tsm", "tsn", {}),
    ("tsn_flow_resnet50_8f", "tsm", "tsn", {"modality": "flow"}),
    ("tsm_resnet50_8f", "tsm", "tsm", {}),
    ("tsm_resnet50_16f", "tsm", "tsm", {"num_frames": 16}),
    ("tsm_block_resnet50_8f", "tsm", "tsm", {"shift_place": "block"}),
    ("tsm_nl_resnet50_8f", "tsm", "tsm", {"non_local": True}),
    ("tsn_bninception_8f", "tsm", "tsn", {"backbone": "bninception"}),
    ("tsn_flow_bninception_8f", "tsm", "tsn", {"backbone": "bninception", "modality": "flow"}),
    ("tsm_bninception_8f", "tsm", "tsm", {"backbone": "bninception"}),
    ("tsm_mobilenetv2_8f", "tsm", "tsm", {"backbone": "mobilenetv2"}),
    ("gsm_bninception_8f", "gsm", "gsm", {"backbone": "bninception"}),
    ("gsm_inceptionv3_8f", "gsm", "gsm", {"backbone": "inceptionv3"}),
    ("gsf_bninception_8f", "gsf", "gsf", {"backbone": "bninception"}),
    ("gsf_inceptionv3_8f", "gsf", "gsf", {"backbone": "inceptionv3"}),
    ("gsf_resnet50_8f", "gsf", "gsf", {"backbone": "resnet50"}),
    ("masnet_resnet50_8f", "masnet", "masnet", {}),
    ("masnet_resnet50_8f_batch1", "masnet", "masnet", {"batch_of_one": True}),
    ("vit_b16_8x64", "tokshift", "vit", {"image_size": 64}),
    ("vit_b16_8x224", "tokshift", "vit", {}),
    ("tokshift_b16_8x64", "tokshift", "tokshift", {"image_size": 64}),
    ("tokshift_b16_8x224", "tokshift", "tokshift", {}),
    ("stmulnet_resnet50", "stmulnet", "stmulnet", {"num_frames": 5}),
]


@pytest.mark.parametrize(("case", "source", "model", "options"), CASES, ids=[case[0] for case in CASES])
def test_logits_equal_those_of_the_original_code(parity_dir, case, source, model, options):
    assert case_error(parity_dir, case, source, model, **options) < 1e-4
