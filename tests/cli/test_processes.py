"""Several processes are one training with one voice."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from .conftest import TINY

SCRIPT = str(Path(sys.executable).with_name("actcli"))


def test_several_processes_make_one_run(done, tmp_path):
    (tmp_path / "shards").symlink_to(done.root / "shards")
    command = [SCRIPT, "train", "--model", "tsn", "--devices", "2", *TINY.split()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "finished").exists()
    assert yaml.safe_load((run / "config.yaml").read_text())["shards"] == str(tmp_path / "shards" / "tiny")
    assert len((run / "history.jsonl").read_text().splitlines()) == 1
    assert ended.stdout.count("best top-1") == 1
