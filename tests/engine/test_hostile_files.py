"""Files of runs and weights that were changed by hand, or made to do harm."""

import json
import os
from pathlib import Path

import pytest

from actcli.engine.export import export_model
from actcli.engine.recipes import Recipe, load_recipe
from actcli.engine.runs import CONFIG_NAME, HISTORY_NAME, RunConfig, read_state
from actcli.errors import ActcliError
from actcli.ingest.loose import find_videos
from actcli.models import create_model, load_weights, save_weights

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def test_a_recipe_with_aliases_is_refused_before_they_are_expanded(tmp_path: Path) -> None:
    (tmp_path / "bomb.yaml").write_text(BOMB)
    with pytest.raises(ActcliError, match="aliases"):
        load_recipe(str(tmp_path / "bomb.yaml"))


def test_a_configuration_with_aliases_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG_NAME).write_text(BOMB)
    with pytest.raises(ActcliError, match="aliases"):
        RunConfig.read(tmp_path)


@pytest.mark.parametrize("name", [CONFIG_NAME, HISTORY_NAME])
def test_a_pipe_in_a_run_does_not_hang(tmp_path: Path, name: str) -> None:
    RunConfig(Recipe("r", "tsm"), "d", "s").write(tmp_path)
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    with pytest.raises(ActcliError, match="no regular file"):
        read_state(tmp_path)


def test_a_history_with_a_text_for_a_number_is_refused(tmp_path: Path) -> None:
    RunConfig(Recipe("r", "tsm"), "d", "s").write(tmp_path)
    line = {"epoch": 0, "learning_rate": 0.1, "train_loss": 1.0, "train_top1": 0.1, "val_top1": "a"}
    (tmp_path / HISTORY_NAME).write_text(json.dumps(line))
    with pytest.raises(ActcliError, match="val_top1"):
        read_state(tmp_path)


def test_a_name_too_long_for_the_disk_is_no_folder() -> None:
    assert find_videos([Path("a" * 5000)]) == [Path("a" * 5000)]


@pytest.mark.parametrize("facts", [{"classes": ["a"]}, {"classes": 5}, {"extraction": "x"}, {"size": "a"}])
def test_weights_whose_facts_cannot_be_are_refused(tmp_path: Path, facts: dict[str, object]) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(create_model("tsn", num_classes=2, num_frames=1, backbone="resnet18"), path, facts)
    with pytest.raises(ActcliError, match=next(iter(facts))):
        load_weights(path)


def test_an_export_never_replaces_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"weights")
    with pytest.raises(ActcliError, match="weights themselves"):
        export_model(path, path)
    assert path.read_bytes() == b"weights"


def test_a_configuration_that_breaks_off_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("recipe:\n  name: x\n  clip_n")
    with pytest.raises(ActcliError, match="line 3: could not find expected ':'") as refused:
        RunConfig.read(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_huge_configuration_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with (tmp_path / "config.yaml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ActcliError, match="larger than 16 MB"):
        RunConfig.read(tmp_path)
