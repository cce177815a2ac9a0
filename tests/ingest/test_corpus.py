"""Miniatures of the real datasets, damaged as real downloads are."""

import json
import subprocess
import sys

import pytest

from actcli.ingest import ExtractOptions, extract_dataset, read_manifest

STATUS = {
    "zero_bytes": "failed",
    "truncated_half": "failed",
    "not_a_video": "failed",
    "missing": "missing",
    "header_only": "failed",
    "garbage_tail": "failed",
}


def make_corpus(script, out, dataset, clips, *flags):
    command = [sys.executable, str(script), str(out), "--dataset", dataset, "--clips", str(clips), *flags]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("dataset", ["sthv2", "kinetics400", "ucf101", "hmdb51"])
def test_every_damaged_clip_and_no_other_is_left_out(corpus_script, tmp_path, dataset):
    clips = 20  # three damaged ones; test_decode has every kind of damage in every container
    raw = tmp_path / "raw"
    make_corpus(corpus_script, raw, dataset, clips, "--broken")
    broken = json.loads((raw / "broken.json").read_text())
    summary = extract_dataset(ExtractOptions(dataset, raw, tmp_path / "frames", short_side=64))
    rows = read_manifest(tmp_path / "frames").to_pylist()
    assert {row["path"]: row["status"] for row in rows if row["status"] != "ok"} == {
        path: STATUS[kind] for path, kind in broken.items()
    }
    assert summary.listed == clips == sum(summary.counts.values())
    assert summary.counts["ok"] == clips - len(broken)
    assert all(row["message"] and row["error"] for row in rows if row["status"] != "ok")
    assert {row["label"] for row in rows} == set(range(6))
    assert all(min(row["width"], row["height"]) == 64 for row in rows if row["status"] == "ok")


@pytest.mark.parametrize("dataset", ["sthv1", "jester"])
def test_frame_datasets_are_packed_whole(corpus_script, tmp_path, dataset):
    raw = tmp_path / "raw"
    make_corpus(corpus_script, raw, dataset, 12)
    summary = extract_dataset(ExtractOptions(dataset, raw, tmp_path / "frames"))
    assert summary.counts == {"ok": 12, "partial": 0, "failed": 0, "missing": 0}
    for row in read_manifest(tmp_path / "frames").to_pylist():
        assert row["num_frames"] == len(list((raw / row["path"]).glob("*.jpg")))
        assert (row["height"], row["fps"]) == (100, 12.0)
