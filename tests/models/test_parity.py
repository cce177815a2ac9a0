"""Every recorded case of the original code, through importer, strict loading and forward."""

import pytest

from .parity import case_error

CASES = [
    ("tsn_resnet50_8f", "tsm", "tsn", {}),
    ("tsn_flow_resnet50_8f", "tsm", "tsn", {"modality": "flow"}),
    ("tsm_resnet50_8f", "tsm", "tsm", {}),
    ("tsm_resnet50_16f", "tsm", "tsm", {"num_frames": 16}),
    ("tsm_block_resnet50_8f", "tsm", "tsm", {"shift_place": "block"}),
]


@pytest.mark.parametrize(("case", "source", "model", "options"), CASES, ids=[case[0] for case in CASES])
def test_logits_equal_those_of_the_original_code(parity_dir, case, source, model, options):
    assert case_error(parity_dir, case, source, model, **options) < 1e-4
