"""Learning rates are those that the original codes compute."""

import json
import math

import pytest

from actcli.engine.recipes import load_recipe
from actcli.engine.schedules import Schedule
from actcli.errors import ActcliError

NAMES = [
    "tsm_step_sthv1",
    "tsm_cos",
    "tsm_step_kinetics",
    "tsm_finetune_ucf101",
    "lsct_readme",
    "gsf_readme",
    "masnet_v1_8",
    "masnet_v2_16",
    "masnet_k400_8",
    "masnet_cos",
    "masnet_step_warmup5",
    "tokshift_k400_tokshift_div4_12x32_large_384",
    "tokshift_k400_tokshift_div4_16x32_base_224",
    "tokshift_k400_tokshift_div4_8x32_base_224",
    "tokshift_k400_tokshift_div4_8x32_base_256",
    "tokshift_k400_tokshift_div4_8x32_base_384",
    "tokshift_k400_tokshift_div4_8x32_large_384",
    "tokshift_k400_vit_8x32_224",
    "stmulnet_published",
    "stmulnet_step",
    "stmulnet_step_restart",
    "stmulnet_multi",
    "stmulnet_lambda",
]

PUBLISHED = {
    "tsm-something-r50-8f": "tsm_step_sthv1",
    "tsn-something-r50-8f": "tsm_step_sthv1",
    "tsm-kinetics-r50-8f": "tsm_step_kinetics",
    "tsn-kinetics-r50-5f": "tsm_step_kinetics",
    "tsm-finetune-r50-8f": "tsm_finetune_ucf101",
    "lsnet-something-r50-8f": "lsct_readme",
    "gsf-something-bninception-8f": "gsf_readme",
    "gsf-something-r50-16f": "gsf_readme",
    "gsm-something-bninception-8f": "gsf_readme",
    "masnet-sthv1-r50-8f": "masnet_v1_8",
    "masnet-sthv2-r50-16f": "masnet_v2_16",
    "masnet-kinetics-r50-8f": "masnet_k400_8",
    "tokshift-kinetics-l16-12x32-384": "tokshift_k400_tokshift_div4_12x32_large_384",
    "tokshift-kinetics-b16-16x32-224": "tokshift_k400_tokshift_div4_16x32_base_224",
    "tokshift-kinetics-b16-8x32-224": "tokshift_k400_tokshift_div4_8x32_base_224",
    "tokshift-kinetics-b16-8x32-256": "tokshift_k400_tokshift_div4_8x32_base_256",
    "tokshift-kinetics-b16-8x32-384": "tokshift_k400_tokshift_div4_8x32_base_384",
    "tokshift-kinetics-l16-8x32-384": "tokshift_k400_tokshift_div4_8x32_large_384",
    "vit-kinetics-b16-8x32-224": "tokshift_k400_vit_8x32_224",
    "stmulnet-ucf101-r50-11f": "stmulnet_published",
}
"""Recipe → the training of the original code that it states."""


@pytest.fixture(scope="module")
def originals(parity_dir):
    return json.loads((parity_dir / "protocol" / "schedules.json").read_text())["schedules"]


def rates(schedule, base, num_epochs):
    return [schedule.learning_rate(base, epoch, num_epochs) for epoch in range(num_epochs)]


def stmulnet_steps(mode):
    """Milestones and factors of ST-MulNet's schedulers, which the original steps before each epoch."""
    if mode == "step":
        return (59,), (0.1,)
    if mode == "step_restart":
        milestones = tuple(range(3, 100, 4))
        return milestones, tuple(10.0 if number % 2 else 0.1 for number in range(len(milestones)))
    if mode == "multi":
        return (49, 74, 99), (0.1, 0.1, 0.1)
    return (4, 9, 14), (0.5, 0.2, 0.1)


def schedule_of(codebase, params):
    """The schedule that a training of an original code has."""
    mode = params.get("scheduler", params.get("lr_type"))
    if codebase == "gsf":
        return Schedule(
            "cosine",
            warmup_epochs=params["warmup"],
            warmup_start=params["warmup_factor"],
            final_fraction=params["min_ratio"],
        )
    if codebase == "stmulnet":
        return Schedule("step", *stmulnet_steps(mode)) if mode else Schedule("constant")
    if mode in ("cos", "cos_lr"):
        return Schedule("cosine")
    factors = (0.1, 0.1, 0.5, 0.2) if mode == "MAS_lr" else ()
    return Schedule("step", tuple(params["lr_steps"]), factors, warmup_epochs=params.get("warmup", 0))


@pytest.mark.parametrize("name", NAMES)
def test_the_rates_of_the_original_code_are_reproduced(originals, name):
    original = originals[name]
    params = original["params"]
    found = rates(schedule_of(original["codebase"], params), params["lr"], params["epochs"])
    assert found == pytest.approx(original["lr_per_epoch"], rel=1e-9, abs=0)


def test_no_original_schedule_is_left_out(originals):
    assert sorted(originals) == sorted(NAMES)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_exactly_the_published_rates(originals, name):
    recipe, original = load_recipe(name), originals[PUBLISHED[name]]
    found = rates(recipe.schedule, recipe.learning_rate, recipe.epochs)
    assert found == pytest.approx(original["lr_per_epoch"], rel=1e-9, abs=0)


def test_every_milestone_multiplies_by_its_own_factor():
    schedule = Schedule("step", milestones=(2, 3), factors=(0.5, 0.1))
    assert rates(schedule, 8.0, 5) == pytest.approx([8, 8, 4, 0.4, 0.4])


def test_factors_are_a_tenth_unless_given():
    assert rates(Schedule("step", milestones=(1, 2)), 1.0, 3) == pytest.approx([1, 0.1, 0.01])


def test_a_plain_warmup_reaches_the_base_rate_in_its_last_epoch():
    assert rates(Schedule("constant", warmup_epochs=4), 1.0, 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_a_warmup_with_a_start_reaches_the_base_rate_after_its_last_epoch():
    found = rates(Schedule("cosine", warmup_epochs=2, warmup_start=0.2), 1.0, 4)
    assert found == pytest.approx([0.2, 0.6, 1.0, 0.5])


def test_a_cosine_ends_above_its_final_fraction():
    found = rates(Schedule("cosine", final_fraction=0.5), 2.0, 4)
    assert found == pytest.approx([2.0, 1 + (1 + 0.5**0.5) / 2, 1.5, 1 + (1 - 0.5**0.5) / 2])


def test_an_unknown_shape_is_refused():
    with pytest.raises(ActcliError, match=r"'linear' is unknown; allowed are: step, cosine, polynomial, constant"):
        Schedule("linear")


def test_milestones_without_as_many_factors_are_refused():
    with pytest.raises(ActcliError, match="2 milestones need as many factors, got 1"):
        Schedule("step", (1, 2), (0.1,))


# -- per step ----------------------------------------------------------------------------------------------------------


def rates_per_step(schedule, num_epochs=2, num_steps=4):
    places = [(epoch, step) for epoch in range(num_epochs) for step in range(num_steps)]
    return [schedule.learning_rate(1.0, epoch, num_epochs, step, num_steps) for epoch, step in places]


def test_a_cosine_per_step_falls_at_every_step():
    expected = [(1 + math.cos(math.pi * step / 8)) / 2 for step in range(8)]
    assert rates_per_step(Schedule("cosine", per="step")) == pytest.approx(expected)


def test_a_warmup_per_step_rises_at_every_step_and_the_curve_begins_after_it():
    schedule = Schedule("cosine", per="step", warmup_epochs=1, warmup_start=0.2)
    falling = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    assert rates_per_step(schedule) == pytest.approx([0.2, 0.4, 0.6, 0.8, *falling])


def test_a_polynomial_ends_on_its_final_fraction():
    schedule = Schedule("polynomial", per="step", power=2.0, final_fraction=0.5)
    assert rates_per_step(schedule) == pytest.approx([0.5 + 0.5 * (1 - step / 8) ** 2 for step in range(8)])


def test_the_same_curve_per_epoch_stays_for_all_steps_of_an_epoch():
    assert rates_per_step(Schedule("polynomial")) == pytest.approx([1.0] * 4 + [0.5] * 4)


def test_milestones_per_step_are_epochs():
    assert rates_per_step(Schedule("step", per="step", milestones=(1,))) == pytest.approx([1.0] * 4 + [0.1] * 4)
