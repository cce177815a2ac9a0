"""A code base is one object: its samplings, its views, its augmentation."""

import textwrap
from pathlib import Path

import numpy as np
import pytest

from actcli.errors import ActcliError
from actcli.loaders import Augmentation, open_loader, originals
from actcli.loaders.originals import (
    Family,
    Original,
    find_original,
    find_sampling,
    find_stand_in,
    original_names,
    original_of,
    register_original,
    sampling_names,
    tsm,
)
from actcli.loaders.sampling import Sampling
from actcli.loaders.views import Crop, ViewRule, resized_size

SMALL = {"num_frames": 4, "size": 40, "batch_size": 2, "workers": 0}


@pytest.fixture
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    for name in ("_ORIGINALS", "_OWNERS", "_SAMPLINGS"):
        monkeypatch.setattr(originals, name, dict(getattr(originals, name)))


def last_frames(num_frames, num_segments, stack, rng):
    return np.arange(num_frames - num_segments, num_frames)[None]


TAIL = Sampling("tail", 1, False, last_frames)
TOY = Original(
    name="toy",
    families=(Family("tail", TAIL, {1: TAIL}),),
    modes=(),
    rule=ViewRule("toy", "linear", (1, 1), False, resized_size, {1: lambda frame, size: [Crop(0, 0, size, size)]}),
    augmentation=Augmentation(crop="center", flip=0.0),
)


def plans(loader):
    return [clip for plan in loader._epochs.epoch(loader.order, 0, 0) for clip in plan.clips]


def test_a_code_base_of_ones_own_is_a_sampling_with_its_crops(registry, make_shards):
    register_original(TOY)
    with open_loader(make_shards(num_frames=9), training=False, sampling="tail", **SMALL) as loader:
        [clip, *_] = plans(loader)
        assert clip.rgb.frames == [5, 6, 7, 8]
        assert clip.crops == (Crop(0, 0, 64, 64),)
        assert len(list(loader)) == 3


def test_a_code_base_of_ones_own_trains_with_its_augmentation(registry, make_shards):
    register_original(TOY)
    with open_loader(make_shards(num_frames=9), sampling="tail", **SMALL) as loader:
        assert {clip.crops for clip in plans(loader)} == {(Crop(16, 0, 64, 64),)}


def test_the_example_for_contributors_is_a_sampling(registry, make_shards):
    text = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text()
    begin, end = text.index("      def last_frames"), text.index("- a backend:")
    exec(textwrap.dedent(text[begin:end]), vars(originals) | {"np": np, "tsm": tsm})
    with open_loader(make_shards(num_frames=9), training=False, sampling="tail", **SMALL) as loader:
        assert plans(loader)[0].rgb.frames == [5, 6, 7, 8]


def test_a_name_that_is_taken_is_refused(registry):
    register_original(TOY)
    with pytest.raises(ActcliError, match="names that are taken: tail, toy"):
        register_original(TOY)


@pytest.mark.parametrize("name", sampling_names())
def test_every_sampling_belongs_to_one_original(name):
    owners = [
        original.name
        for original in map(find_original, original_names())
        if name in [sampling.name for sampling in (*original.families, *original.modes)]
    ]
    assert owners == [original_of(name).name]


def test_views_and_frames_are_chosen_apart(make_shards):
    root = make_shards(num_frames=9)

    def seen(**setup):
        with open_loader(root, training=False, num_crops=3, **SMALL | setup) as loader:
            [clip, *_] = plans(loader)
            return clip.rgb.frames, clip.crops, loader.settings.rule.interpolation

    ours, tokshift = seen(sampling="segments"), seen(sampling="tokshift")
    assert seen(sampling="segments", views="tokshift") == (ours[0], *tokshift[1:])
    assert seen(sampling="tokshift", views="tsm") == (tokshift[0], *ours[1:])
    assert ours[1:] != tokshift[1:]


def test_views_bring_their_training_augmentation(make_shards):
    with open_loader(make_shards(), views="stmulnet", **SMALL) as loader:
        assert loader.settings.augmentation == find_original("stmulnet").augmentation


def test_unknown_views_list_the_known_ones(make_shards):
    with pytest.raises(ActcliError, match=r"unknown views 'segments'.*tokshift"):
        open_loader(make_shards(), views="segments", **SMALL)


@pytest.mark.parametrize("wrong", [3, ["tsm"]])
def test_what_is_no_name_is_refused_like_an_unknown_one(make_shards, wrong):
    root = make_shards()
    with pytest.raises(ActcliError, match="unknown views"):
        open_loader(root, views=wrong, **SMALL)
    with pytest.raises(ActcliError, match="unknown sampling"):
        open_loader(root, sampling=wrong, **SMALL)


def test_a_state_of_other_views_is_refused(make_shards):
    root = make_shards()
    with open_loader(root, training=False, **SMALL) as loader:
        state = loader.state_dict()
    with (
        open_loader(root, training=False, views="tokshift", scale_size=45, **SMALL) as other,
        pytest.raises(ActcliError, match=r"views \(was None, is tokshift\)"),
    ):
        other.load_state_dict(state)


def test_a_state_of_a_time_without_views_is_read(make_shards):
    with open_loader(make_shards(), **SMALL) as loader:
        state = loader.state_dict()
        del state["setup"]["views"]
        loader.load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("tsm", "segments"),
        ("masnet-dense", "dense"),
        ("tokshift", "dense"),
        ("tokshift-train-uniform-random", "segments"),
        ("stmulnet", "segments"),
    ],
)
def test_our_sampling_of_the_same_kind_stands_in(name, ours):
    assert find_stand_in(name) == ours
    assert find_sampling(ours, num_test_clips=7).num_test_clips == 7
