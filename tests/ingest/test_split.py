import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.ingest import ClipRecord, Listing, SplitRule
from actcli.ingest.split import divide, split_problems, split_warnings, torn_groups, write_splits


def listing(**clips_of_class: int) -> Listing:
    """So many clips of each class, named ``wave/3.mp4``."""
    classes = tuple(sorted(clips_of_class))
    paths = [(name, f"{name}/{number}.mp4") for name in classes for number in range(clips_of_class[name])]
    records = tuple(ClipRecord(path, path, classes.index(name), name, {}) for name, path in paths)
    return Listing(classes, records, {"1": ("train", "val")}, is_divided=False)


def sides(divided: Listing) -> dict[str, str]:
    return {record.source_id: record.splits["1"] for record in divided.records}


def in_val(divided: Listing) -> Counter[str]:
    return Counter(record.class_name for record in divided.records if record.splits["1"] == "val")


def test_every_class_gives_its_share_to_val(tmp_path):
    divided = divide(listing(a=3, b=10, c=100), SplitRule(), tmp_path)
    assert in_val(divided) == {"a": 1, "b": 2, "c": 20}


def test_the_share_can_be_chosen(tmp_path):
    assert in_val(divide(listing(a=10, b=20), SplitRule(0.5), tmp_path)) == {"a": 5, "b": 10}


def test_a_class_of_one_clip_learns_from_it(tmp_path):
    divided = divide(listing(a=1, b=5), SplitRule(), tmp_path)
    assert sides(divided)["a/0.mp4"] == "train"
    assert list(split_warnings(divided, SplitRule())) == ["1 class without a clip for validation: 'a'."]


@given(sizes=st.lists(st.integers(2, 40), min_size=1, max_size=5), fraction=st.floats(0.01, 0.99))
def test_no_class_of_two_clips_is_without_training_or_validation(tmp_path_factory, sizes, fraction):
    clips = listing(**{f"c{number}": size for number, size in enumerate(sizes)})
    divided = divide(clips, SplitRule(fraction), tmp_path_factory.getbasetemp())
    counts = in_val(divided)
    assert all(1 <= counts[f"c{number}"] <= size - 1 for number, size in enumerate(sizes))


@given(st.lists(st.integers(1, 12), min_size=2, max_size=6))
def test_no_clip_changes_sides_as_the_set_grows(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("frames")
    before: dict[str, str] = {}
    for size in sorted(steps):
        divided = divide(listing(a=size, b=2 * size), SplitRule(0.3), folder)
        write_splits(folder, divided.records, SplitRule(0.3))
        after = sides(divided)
        assert before.items() <= after.items()
        before = after
    assert json.loads((folder / "splits.json").read_text())["splits"] == before


def test_clips_of_one_recording_stay_together(tmp_path):
    clips = listing(a=40)
    renamed = tuple(replace(r, source_id=f"a/rec{i // 4}_{i}.mp4", path="x") for i, r in enumerate(clips.records))
    rule = SplitRule(0.25, r"(rec\d+)_")
    divided = divide(replace(clips, records=renamed), rule, tmp_path)
    assert in_val(divided) == {"a": 8}
    assert torn_groups(divided.records, rule) == []
    assert torn_groups(divide(replace(clips, records=renamed), SplitRule(0.25), tmp_path).records, rule) != []


def test_new_clips_follow_their_recording(tmp_path):
    rule = SplitRule(0.4, r"rec(\d+)")
    clips = listing(a=6)
    first = tuple(replace(r, source_id=f"rec{i // 2} {i}") for i, r in enumerate(clips.records))
    divided = divide(replace(clips, records=first), rule, tmp_path)
    write_splits(tmp_path, divided.records, rule)
    more = (*first, *(replace(first[0], source_id=f"rec{i} new") for i in range(3)))
    grown = divide(replace(clips, records=more), rule, tmp_path)
    assert torn_groups(grown.records, rule) == []


def test_another_rule_for_the_same_frames_is_refused(tmp_path):
    divided = divide(listing(a=6, b=6), SplitRule(), tmp_path)
    write_splits(tmp_path, divided.records, SplitRule())
    with pytest.raises(ActcliError, match=r"was divided with --val-fraction 0\.2"):
        divide(listing(a=6, b=6), SplitRule(0.3), tmp_path)


def test_an_expression_that_fits_nothing_is_refused(tmp_path):
    with pytest.raises(ActcliError, match=r"fits no path, for example not 'a/0\.mp4'"):
        divide(listing(a=6, b=6), SplitRule(0.2, "person"), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"val_fraction": 0.2, "group_by": "", "splits": {"a": "x"}}'])
def test_a_damaged_splits_file_is_refused(tmp_path, text):
    (tmp_path / "splits.json").write_text(text)
    with pytest.raises(ActcliError, match="is damaged"):
        divide(listing(a=6, b=6), SplitRule(), tmp_path)


@pytest.mark.parametrize(("rule", "flag"), [(SplitRule(0.0), "val-fraction"), (SplitRule(0.2, "("), "group-by")])
def test_a_rule_that_cannot_work_is_a_problem(rule, flag):
    (problem,) = rule.problems()
    assert f"--{flag}" in problem


def test_a_class_without_training_clips_is_a_problem_by_name():
    clips = listing(a=2, b=2)
    placed = tuple(replace(r, splits={"1": "val" if r.class_name == "b" else "train"}) for r in clips.records)
    (problem,) = split_problems(replace(clips, records=placed, is_divided=True))
    assert "1 of 2 classes have no clip for training: 'b'" in problem


def test_a_single_class_is_a_problem():
    (problem,) = split_problems(listing(a=4))
    assert "All clips are of one class, 'a'" in problem
