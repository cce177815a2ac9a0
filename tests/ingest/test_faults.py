"""Extraction with every call that touches the disk failing once: right result or error, never a false success."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic, read_manifest

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import calls_of, errors_of, failing

NOISE = ("extract.jsonl", ".actcli-lock")
"""Files whose bytes depend on what happened on the way."""


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    root = tmp_path_factory.mktemp("faults")
    make_synthetic(root / "raw", num_clips=6, size=(32, 32), num_frames=2)
    for extra in sorted(root.rglob("*.mp4"))[4:]:
        extra.unlink()
    return ExtractOptions("tiny", root / "raw", root / "whole", executor="serial")


def content(frames_dir):
    files = (path for path in frames_dir.rglob("*") if path.is_file() and path.name not in NOISE)
    return {str(path.relative_to(frames_dir)): path.read_bytes() for path in files}


def tried(options, number, error, below):
    """Whether the work said that it succeeded."""
    with failing(number, error, below):
        try:
            extract_dataset(options)
        except ActcliError:
            return False
        return True


def check_every_fault(options, tmp_path, prepare):
    """For each call and each error: no false success, and the same command afterwards gives the whole result."""
    whole = content(options.frames_dir)
    rehearsal = replace(options, frames_dir=tmp_path / "rehearsal")
    prepare(rehearsal)
    calls = calls_of(lambda: extract_dataset(rehearsal), rehearsal.frames_dir)
    assert content(rehearsal.frames_dir) == whole
    points = [(number, call, error) for number, call in enumerate(calls) for error in errors_of(call)]
    for number, call, error in points:
        here = replace(options, frames_dir=tmp_path / f"{number}-{error}")
        prepare(here)
        if tried(here, number, error, here.frames_dir):
            assert content(here.frames_dir) == whole, (call, error)
        extract_dataset(here)
        assert content(here.frames_dir) == whole, (call, error)
    return points


def test_every_fault_of_a_first_run(options, tmp_path):
    extract_dataset(options)
    points = check_every_fault(options, tmp_path, lambda here: None)
    assert len(points) > 100
    assert {call.name for _, call, _ in points} >= {"open", "write", "fsync", "replace", "mkdir"}


def test_every_fault_of_a_run_that_continues(options, tmp_path):
    def prepare(here):
        extract_dataset(here)
        (here.frames_dir / "0" / "000000001.mjpeg").unlink()
        (here.frames_dir / "0" / ".actcli-000000002.mjpeg.1.tmp").write_text("left by a killed run")

    extract_dataset(options)
    check_every_fault(options, tmp_path, prepare)


def test_every_fault_of_reading_the_manifest(options):
    extract_dataset(options)
    whole, failures = read_manifest(options.frames_dir), []
    calls = calls_of(lambda: read_manifest(options.frames_dir), options.frames_dir)
    for number, call in enumerate(calls):
        for error in errors_of(call):
            with failing(number, error, options.frames_dir):
                try:
                    assert read_manifest(options.frames_dir) == whole
                except ActcliError as failure:
                    failures.append(failure)
    assert len(failures) > len(calls) / 2
