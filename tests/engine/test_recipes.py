"""Recipes are whole, are checked field by field, and can be changed number by number."""

from dataclasses import replace

import pytest
import torch
import yaml

from actcli.engine.overrides import override_recipe, settle_pretrained
from actcli.engine.recipes import Protocol, Recipe, find_recipe, list_recipes, load_recipe
from actcli.engine.schedules import Schedule
from actcli.errors import ActcliError
from actcli.loaders.originals import find_sampling
from actcli.models import create_model, list_models

RECIPES = {recipe.name: recipe for recipe in list_recipes()}
TSM = "tsm-something-r50-8f"


def file_with(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_being_written_to_yaml(name):
    recipe = load_recipe(name)
    again = Recipe.from_dict(yaml.safe_load(yaml.safe_dump(recipe.to_dict())), "copy")
    assert again == recipe


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_names_a_model_that_exists_with_these_options(name):
    recipe = RECIPES[name]
    with torch.device("meta"):
        model = create_model(recipe.model, num_classes=7, num_frames=recipe.num_frames, **recipe.model_options)
    assert model.config["num_frames"] == recipe.num_frames
    assert recipe.fast_classifier <= hasattr(model, "classifier")


@pytest.mark.parametrize("name", RECIPES)
def test_the_sampling_of_a_recipe_exists_for_training_validation_and_test(name):
    recipe = RECIPES[name]
    assert find_sampling(recipe.sampling, training=True).num_test_clips == 1
    for protocol in (recipe.validation, recipe.test):
        chosen = find_sampling(protocol.sampling or recipe.sampling, training=False, num_test_clips=protocol.clips)
        assert chosen.num_test_clips == protocol.clips


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_its_numbers_come_from(name):
    assert len(RECIPES[name].source) > 20


def test_every_model_has_a_recipe():
    assert {recipe.model for recipe in RECIPES.values()} == {info.name for info in list_models()}


@pytest.mark.parametrize(
    ("model", "dataset", "name"),
    [
        ("tsm", "sthv2", TSM),
        ("tsm", "kinetics400", "tsm-kinetics-r50-8f"),
        ("masnet", "sthv2", "masnet-sthv2-r50-16f"),
        ("gsf", "something of my own", "gsf-something-bninception-8f"),
    ],
)
def test_the_default_recipe_follows_model_and_dataset(model, dataset, name):
    assert find_recipe(model, dataset).name == name


def test_an_unknown_model_lists_the_models():
    with pytest.raises(ActcliError, match=r"no model 'i3d'; --model takes one of: gsf, gsm, .*tsm"):
        find_recipe("i3d", "sthv2")


def test_an_unknown_recipe_is_named():
    with pytest.raises(ActcliError, match=r"no recipe 'tsm-r50'; see: actcli recipes"):
        load_recipe("tsm-r50")


def test_a_file_of_ones_own_is_a_recipe_named_after_it(tmp_path):
    recipe = load_recipe(file_with(tmp_path, "model: tsn\nepochs: 3\nschedule: {kind: cosine}\n"))
    assert (recipe.name, recipe.model, recipe.epochs, recipe.schedule.kind) == ("mine", "tsn", 3, "cosine")
    assert recipe.batch_size == 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: tsn\nepoch: 3\n", r"recipe mine: line 2: unknown field epoch; allowed are: name, model"),
        ("model: tsn\nepochs: many\n", r"recipe mine: line 2: epochs is 'many': input should be a valid integer"),
        ("model: tsn\nepochs: true\n", r"recipe mine: line 2: epochs is True: input should be a valid integer"),
        ("model: tsn\nlearning_rate: fast\n", r"line 2: learning_rate is 'fast': input should be a valid number"),
        ("model: tsn\ndatasets: sthv2\n", r"line 2: datasets is 'sthv2': input should be a valid array"),
        ("model: tsn\nprecision: 8-true\n", r"line 2: precision is '8-true': input should be '32-true'"),
        (
            "model: tsn\nschedule: {kind: stairs}\n",
            r"line 2: schedule.kind is 'stairs': input should be 'step'",
        ),
        (
            "model: tsn\nschedule: {steps: [2]}\n",
            r"line 2: unknown field schedule.steps; allowed are: kind",
        ),
        ("model: tsn\nschedule: cosine\n", r"line 2: schedule is 'cosine'"),
        ("epochs: 3\n", r"recipe mine: .*model"),
        ("- model\n", r"recipe mine holds no fields"),
        ("model: [tsn\n", r"recipe mine is no YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_field_named(tmp_path, text, message):
    with pytest.raises(ActcliError, match=message):
        load_recipe(file_with(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ActcliError, match=r"absent\.yaml cannot be read"):
        load_recipe(str(tmp_path / "absent.yaml"))


def test_values_replace_fields_and_none_leaves_them():
    recipe = override_recipe(load_recipe(TSM), {"epochs": 3, "batch_size": None, "learning_rate": 1})
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (3, 64, 1.0)


def test_model_options_are_merged():
    recipe = override_recipe(load_recipe(TSM), {"model_options": {"backbone": "resnet18", "modality": None}})
    assert recipe.model_options == {**RECIPES[TSM].model_options, "backbone": "resnet18"}


def test_settings_reach_inner_fields_and_beat_the_published_numbers():
    settings = ["schedule.kind=cosine", "schedule.warmup_epochs=3", "label_smoothing=0.2", "clip_norm=null"]
    recipe = override_recipe(load_recipe(TSM), {}, settings)
    assert recipe.schedule == replace(RECIPES[TSM].schedule, kind="cosine", warmup_epochs=3)
    assert (recipe.label_smoothing, recipe.clip_norm) == (0.2, None)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", r"--set takes FIELD=VALUE, got 'epochs'"),
        ("epoch=3", r"unknown field epoch"),
        ("epochs=many", r"epochs is 'many': input should be a valid integer"),
        ("epochs.first=3", r"epochs holds no fields of its own"),
        ("schedule.kind=[", r"--set schedule\.kind=\["),
    ],
)
def test_a_wrong_setting_is_named(setting, message):
    with pytest.raises(ActcliError, match=message):
        override_recipe(load_recipe(TSM), {}, [setting])


def test_none_switches_pretrained_weights_off():
    assert override_recipe(load_recipe(TSM), {"pretrained": "none"}).pretrained is None


def test_the_published_full_resolution_test_is_left_with_the_published_size():
    recipe = override_recipe(load_recipe(TSM), {"size": 112})
    assert (recipe.size, recipe.test) == (112, Protocol(clips=2, crops=3))


def test_the_grid_of_a_transformer_follows_the_size():
    recipe = override_recipe(load_recipe("tokshift-kinetics-b16-8x32-224"), {"size": 64})
    assert recipe.model_options["image_size"] == 64
    assert recipe.augmentation is not None
    assert recipe.augmentation.short_side is None


def test_weights_that_are_only_the_default_and_absent_are_left_out_with_a_note(tmp_path):
    notes = []
    recipe = replace(load_recipe(TSM), pretrained=str(tmp_path / "absent.pth"))
    settled = settle_pretrained(recipe, explicit=False, note=notes.append)
    assert settled == replace(recipe, pretrained=None)
    assert len(notes) == 1
    assert "absent.pth" in notes[0]
    assert "random weights" in notes[0]


def test_weights_that_were_asked_for_have_to_be_there(tmp_path):
    recipe = replace(load_recipe(TSM), pretrained=str(tmp_path / "absent.pth"))
    with pytest.raises(ActcliError, match=r"absent\.pth"):
        settle_pretrained(recipe, explicit=True, note=lambda _: None)


def test_a_recipe_without_pretrained_weights_stays_as_it_is():
    recipe = Recipe("mine", "tsn", pretrained=None, schedule=Schedule("constant"))
    assert settle_pretrained(recipe, explicit=False, note=pytest.fail) is recipe
