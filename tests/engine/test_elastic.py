"""A training goes on with other numbers of processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

from actcli.engine.step import Layout

ROOT = Path(__file__).resolve().parents[2]


def test_a_training_killed_twice_goes_on_with_other_numbers_of_processes_to_the_same_end():
    command = [sys.executable, str(ROOT / "benchmarks" / "elastic.py"), "--kills", "2", "--epochs", "2", "--seed", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout[done.stdout.index("{") :])
    assert outcome["processes"] == [1, 2, 4]
    assert (outcome["steps"], outcome["steps_with_other_clips"], outcome["steps_with_other_rates"]) == (10, 0, 0)
    assert outcome["largest_difference"] < 1e-4


def test_what_changed_is_said_in_words():
    assert Layout(2, 2).changed_since(Layout(2, 2)) is None
    same_passes = Layout(2, 4).changed_since(Layout(1, 4))
    assert same_passes.startswith("2 processes instead of 1; the batches hold the same clips, and so do the passes")
    other_passes = Layout(1, 1).changed_since(Layout(4, 4))
    assert other_passes.startswith("1 process instead of 4; ")
    assert "in 1 parts instead of 4; batch norm, where there is one, sees each part alone" in other_passes
