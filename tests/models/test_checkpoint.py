"""Foreign checkpoints: what surrounds their tensors, what does not fit, and what must not be opened."""

import pickle

import numpy as np
import pytest
import torch

from actcli.errors import ActcliError
from actcli.models import (
    IncompleteImport,
    checkpoint_num_classes,
    convert_upstream,
    create_model,
    import_checkpoint,
)


def tsm18(**options):
    return create_model("tsm", **{"num_classes": 4, "num_frames": 2, "backbone": "resnet18", **options})


def original_names(model):
    """The state dict of one of our TSMs as the TSM repository would have stored it."""
    renamed = {}
    for key, value in model.state_dict().items():
        key = key.replace("backbone.", "base_model.").replace("classifier.", "new_fc.")
        renamed[key.replace(".conv1.weight", ".conv1.net.weight") if "layer" in key else key] = value
    return renamed


def assert_same_weights(model, other):
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in model.state_dict().items())


def test_prefixes_wrappers_and_optimiser_state_are_looked_through(tmp_path):
    trained, fresh = tsm18(), tsm18()
    content = {
        "epoch": 50,
        "arch": "resnet18",
        "state_dict": {f"module.{key}": value for key, value in original_names(trained).items()},
        "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.01}]},
        "best_prec1": np.float64(47.3),
    }
    torch.save(content, tmp_path / "ckpt.best.pth.tar")
    report = import_checkpoint(tmp_path / "ckpt.best.pth.tar", "tsm", fresh)
    assert report.complete
    assert report.loaded == len(trained.state_dict())
    assert_same_weights(trained, fresh)


def test_a_bare_state_dict_in_the_old_file_format_is_read(tmp_path):
    trained, fresh = tsm18(), tsm18()
    torch.save(original_names(trained), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    import_checkpoint(tmp_path / "old.pth", "tsm", fresh)
    assert_same_weights(trained, fresh)


def test_counts_of_batches_may_be_missing(tmp_path):
    names = {key: value for key, value in original_names(tsm18()).items() if "num_batches" not in key}
    torch.save(names, tmp_path / "old.pth")
    assert import_checkpoint(tmp_path / "old.pth", "tsm", tsm18()).complete


def test_the_stage_that_temporal_pooling_wraps_is_found():
    model = tsm18(temporal_pool=True)
    pooled = {
        key.replace("layer2.", "layer2.net.") if key.startswith("base_model.layer2") else key: value
        for key, value in original_names(model).items()
    }
    model.load_state_dict(convert_upstream("tsm", pooled))


def test_a_classifier_trained_without_dropout_is_found():
    model = tsm18()
    names = {key.replace("new_fc.", "base_model.fc."): value for key, value in original_names(model).items()}
    model.load_state_dict(convert_upstream("tsm", names))


def test_what_does_not_fit_is_listed_and_nothing_is_loaded(tmp_path):
    names = original_names(tsm18(num_classes=9))
    del names["base_model.bn1.bias"]
    names["base_model.layer9.0.weight"] = torch.zeros(1)
    torch.save(names, tmp_path / "c.pth")
    model = tsm18()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(IncompleteImport, match="--allow-partial") as error:
        import_checkpoint(tmp_path / "c.pth", "tsm", model)
    assert error.value.report.rows() == [
        ("missing", "backbone.bn1.bias", ""),
        ("unexpected", "backbone.layer9.0.weight", ""),
        ("shape", "classifier.weight", "[9, 512] found, [4, 512] wanted"),
        ("shape", "classifier.bias", "[9] found, [4] wanted"),
    ]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_partial_import_takes_what_fits(tmp_path):
    trained = tsm18(num_classes=9)
    torch.save(original_names(trained), tmp_path / "c.pth")
    model = tsm18()
    report = import_checkpoint(tmp_path / "c.pth", "tsm", model, allow_partial=True)
    assert [name for name, _, _ in report.mismatched] == ["classifier.weight", "classifier.bias"]
    assert torch.equal(model.backbone.conv1.weight, trained.backbone.conv1.weight)


def test_a_checkpoint_of_something_else_is_refused_even_partially(tmp_path):
    torch.save({"encoder.weight": torch.zeros(2, 2)}, tmp_path / "c.pth")
    with pytest.raises(ActcliError, match="nothing in"):
        import_checkpoint(tmp_path / "c.pth", "tsm", tsm18(), allow_partial=True)


def test_the_number_of_classes_is_read_from_the_checkpoint(tmp_path):
    torch.save({"state_dict": original_names(tsm18(num_classes=9))}, tmp_path / "c.pth")
    assert checkpoint_num_classes(tmp_path / "c.pth", "tsm") == 9


class Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (open, (str(self.victim), "w"))


@pytest.mark.parametrize("write", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_pickle_that_runs_code_is_not_opened(tmp_path, write):
    write({"state_dict": Malicious(tmp_path / "victim")}, tmp_path / "evil.pth")
    with pytest.raises(ActcliError, match="could run code"):
        import_checkpoint(tmp_path / "evil.pth", "tsm", tsm18())
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_called_damaged(tmp_path, zipped, kept):
    path = tmp_path / "cut.pth"
    torch.save(original_names(tsm18()), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ActcliError, match="cut short or damaged"):
        import_checkpoint(path, "tsm", tsm18())


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"hello, I am text", "no PyTorch checkpoint"), (b"", "no PyTorch checkpoint"), (None, "no checkpoint at")],
)
def test_a_file_that_is_no_checkpoint_gets_one_sentence(tmp_path, content, words):
    path = tmp_path / "x.pth"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ActcliError, match=words) as error:
        import_checkpoint(path, "tsm", tsm18())
    assert "\n" not in str(error.value)


def test_a_file_without_tensors_is_called_so(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(ActcliError, match="no state dict"):
        import_checkpoint(tmp_path / "x.pth", "tsm", tsm18())


def test_unknown_original_code_is_refused_with_a_list():
    with pytest.raises(ActcliError, match="gsf, gsm, masnet, stmulnet, tokshift, tsm"):
        convert_upstream("slowfast", {})
