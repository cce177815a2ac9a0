"""Where the time of a training goes, and what that says."""

from itertools import count
from typing import get_args

import pytest

from actcli.engine.bench import TrainingSpeed, bench_training
from actcli.engine.clock import Phase, TimeTable

from .helpers import HARDWARE, tiny_config


def table(**seconds):
    named = {phase: float(seconds.get(phase.split()[0], 0)) for phase in get_args(Phase)}
    return TimeTable(named, 100.0)


@pytest.mark.parametrize(
    ("times", "advice"),
    [
        (table(waiting=40, forward=60), "40% of the time went by waiting for data: give more --workers"),
        (table(validation=30, forward=70), "validation took 30% of the time"),
        (table(checkpoints=20, forward=80), "checkpoints took 20% of the time: write fewer (--checkpoint-minutes)"),
        (table(host=15, forward=85), "copies to the device took 15% of the time"),
        (table(forward=30, backward=60, optimiser=5), "the network itself took 95% of the time"),
    ],
)
def test_the_advice_is_about_what_takes_the_time(times, advice):
    assert times.advice().startswith(advice)


def test_what_belongs_to_no_phase_is_a_row_of_its_own():
    assert table(forward=60).rows()[-1] == ("everything else", 40.0, 0.4)


def test_a_bench_times_the_training_and_the_same_steps_without_reading(tiny_shards, monkeypatch):
    readings = count()
    monkeypatch.setattr("time.perf_counter", lambda: next(readings) / 1000)
    speed = bench_training(tiny_config(tiny_shards, "vit"), HARDWARE, print, num_steps=3, cached_batches=2)
    seconds = dict(speed.times.seconds)
    assert min(seconds[phase] for phase in ("waiting for data", "forward", "backward", "optimiser")) > 0
    assert speed.clips_per_second == pytest.approx(12 / speed.times.total, rel=0.2)
    assert speed.ceiling > 0


def test_a_slow_reader_is_named_with_its_price():
    assert TrainingSpeed(5.0, 10.0, table()).in_words().endswith("the data costs 50% of the speed.")
    assert TrainingSpeed(9.9, 10.0, table()).in_words().endswith("reading the data costs next to nothing.")
