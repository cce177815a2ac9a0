"""The measurement behind ``actcli bench loader``."""

import pytest

from actcli.errors import ActcliError
from actcli.loaders.bench import LoaderReport, LoaderSpeed, bench_loader

SETUP = {"num_frames": 2, "size": 40, "batch_size": 2, "seconds": 0.1}


def test_both_backends_are_measured_and_the_faster_one_recommended(make_shards):
    report = bench_loader(str(make_shards()), workers=(1,), **SETUP)
    assert {speed.backend for speed in report.speeds} == {"cpu", "dali"}
    rates = [speed.clips_per_second for speed in report.speeds]
    assert rates == sorted(rates, reverse=True)
    assert report.recommendation().startswith(f"--loader {report.speeds[0].backend} --workers 1 gives")
    assert all(speed.megabytes_per_second > 0 for speed in report.speeds)


def test_a_backend_that_is_missing_is_skipped_with_its_reason(make_shards, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "nvidia", None)
    report = bench_loader(str(make_shards()), workers=(0,), **SETUP)
    assert [speed.backend for speed in report.speeds] == ["cpu"]
    assert "pip install nvidia-dali" in report.skipped["dali"]


def test_no_backend_at_all_is_an_error(make_shards):
    with pytest.raises(ActcliError, match="no loader could be measured: unknown loader 'x'"):
        bench_loader(str(make_shards()), backends=("x",), **SETUP)


def test_the_fastest_comes_first():
    speeds = (LoaderSpeed("cpu", 2, 500.0, 1.0, 0.1),)
    assert LoaderReport(speeds, {}).fastest.backend == "cpu"
