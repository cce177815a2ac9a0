"""A few clips first: of some classes, or a balanced number of them; the rest is for a later run."""

from collections import Counter
from dataclasses import replace

import pytest

from actcli.errors import ActcliError
from actcli.ingest import disk, extract_dataset, plan_extraction, read_manifest
from actcli.ingest.datasets import get_dataset
from actcli.ingest.sample import choose_clips


@pytest.fixture
def listing(tiny_options):
    return get_dataset("sprites").read(tiny_options().raw_dir)


def test_a_sample_takes_in_turn_from_each_class_and_split(listing):
    located = {record.source_id: record.path for record in listing.records}
    kinds = {(record.class_name, *record.splits.values()) for record in listing.records}
    chosen = choose_clips(listing, located, sample=len(kinds))
    taken = Counter((r.class_name, *r.splits.values()) for r in listing.records if r.source_id in chosen)
    assert set(taken.values()) == {1}
    assert set(taken) == kinds


def test_only_the_classes_that_are_named_are_taken(listing):
    located = {record.source_id: record.path for record in listing.records}
    name = listing.classes[1]
    chosen = choose_clips(listing, located, classes=[name])
    assert chosen.keys() == {record.source_id for record in listing.records if record.class_name == name}
    with pytest.raises(ActcliError, match="--classes names 'nosuch', which the dataset does not have"):
        choose_clips(listing, located, classes=["nosuch"])


def test_a_sample_asks_for_the_disk_that_it_takes(tiny_options, tmp_path, monkeypatch):
    options = tiny_options(executor="serial", frames_dir=tmp_path / "sprites")
    usage, needed = disk.shutil.disk_usage("/"), disk.DiskNeed.problems
    seen = []

    def noted(need, paths, num_clips, dataset):
        seen.append((len(paths), num_clips))
        return needed(need, paths, num_clips, dataset)

    monkeypatch.setattr(disk.DiskNeed, "problems", noted)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage._replace(free=30_000))
    assert extract_dataset(replace(options, sample=1)).counts["ok"] == 1
    assert seen == [(1, 1)]
    with pytest.raises(ActcliError, match=r"has 30\.0 kB free, and tiny needs about"):
        extract_dataset(options)


def test_a_run_without_the_sample_does_the_others_and_ends_as_if_there_had_been_none(tiny_options, tmp_path):
    options = tiny_options(executor="serial", frames_dir=tmp_path / "sprites")
    first = extract_dataset(replace(options, sample=5))
    assert first.counts["ok"] == 5
    assert "are left for later by --sample" in " ".join(first.warnings)
    assert (first.failed, first.counts["missing"]) == ((), first.listed - 5)
    rows = [row for row in read_manifest(options.frames_dir).to_pylist() if row["status"] == "missing"]
    assert {row["message"] for row in rows} == {"left for a later run"}
    assert plan_extraction(replace(options, sample=5))[0].num_to_do == 0
    last = extract_dataset(options)
    assert last.already_done == 5
    assert last.counts["missing"] == 0
    whole = tiny_options(executor="serial", frames_dir=tmp_path / "whole" / "sprites")
    extract_dataset(whole)
    one, other = (folder / "manifest.parquet" for folder in (options.frames_dir, whole.frames_dir))
    assert one.read_bytes() == other.read_bytes()


def test_a_sample_after_a_whole_run_loses_nothing(tiny_options, tmp_path):
    options = tiny_options(executor="serial", frames_dir=tmp_path / "sprites")
    whole = extract_dataset(options)
    again = extract_dataset(replace(options, sample=2))
    assert again.counts == whole.counts
