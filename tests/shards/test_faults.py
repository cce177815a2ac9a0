"""What a disk, or a kill, can do at each call that packing makes: a clear error or the right result, never less.

The points are the calls that an undisturbed run makes, counted by the run itself.
"""

import builtins
import errno
import io
import os
import re
import shutil

import pytest
from killing import run_until

from actcli import files
from actcli.errors import ActcliError
from actcli.shards import verify_shards, write_shards

SYSTEM_CALLS = ("fsync", "replace", "unlink", "mkdir", "open")


class Killed(BaseException):
    """The end of a process: nothing it calls afterwards has an effect."""


class Faults:
    """Numbers the calls to the disk and disturbs the one with number ``at``."""

    def __init__(self, monkeypatch, folders):
        self.calls, self.at, self.fault = [], None, None
        self.folders = [os.fspath(folder) for folder in folders]
        for name in SYSTEM_CALLS:
            monkeypatch.setattr(os, name, self.around(name, getattr(os, name)))
        monkeypatch.setattr(io, "open", self.opened(io.open))
        monkeypatch.setattr(files, "open", self.opened(builtins.open), raising=False)

    def concerns(self, path):
        if isinstance(path, int):
            return True
        return any(os.fspath(path).startswith(folder) for folder in self.folders)

    def meet(self, name, path):
        kind = "" if isinstance(path, int) else re.sub(r"\d+", "0", os.path.basename(path))
        self.calls.append((name, kind))
        number = len(self.calls) - 1
        if self.at is None or number < self.at or (number > self.at and self.fault is not Killed):
            return None
        if self.fault == "short read":
            return "short"
        if self.fault is not None:
            raise self.fault() if isinstance(self.fault, type) else OSError(self.fault, os.strerror(self.fault))
        return None

    def around(self, name, plain):
        def call(path, *args, **kwargs):
            if self.concerns(path):
                self.meet(name, path)
            return plain(path, *args, **kwargs)

        return call

    def opened(self, plain):
        def open_(path, mode="r", *args, **kwargs):
            if not self.concerns(path):
                return plain(path, mode, *args, **kwargs)
            self.meet("open", path)
            return Disturbed(plain(path, mode, *args, **kwargs), self, path)

        return open_


class Disturbed:
    """A file whose reads and writes may fail."""

    def __init__(self, file, faults, path):
        self.file, self.faults, self.path = file, faults, path

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def __iter__(self):
        return iter(self.file)

    def read(self, *args):
        if self.faults.meet("read", self.path) == "short":
            data = self.file.read(*args)
            return data[: len(data) // 2]
        return self.file.read(*args)

    def readinto(self, buffer):
        if self.faults.meet("read", self.path) == "short":
            return self.file.readinto(memoryview(buffer)[: len(buffer) // 2])
        return self.file.readinto(buffer)

    def write(self, data):
        self.faults.meet("write", self.path)
        return self.file.write(data)


FAULTS = {
    "write": (errno.ENOSPC, errno.EIO, MemoryError),
    "fsync": (errno.EIO, errno.ENOSPC),
    "replace": (errno.EIO, errno.EROFS),
    "unlink": (errno.EROFS,),
    "mkdir": (errno.EROFS,),
    "open": (errno.EMFILE, errno.EROFS),
    "read": (errno.EIO, MemoryError, "short read"),
}


@pytest.fixture
def attempt(monkeypatch, few_frames, few_options):
    """``attempt(folder, at, fault, **options)``: the calls made, and whether the run said that it succeeded."""

    def run(folder, at=None, fault=None, **options):
        with monkeypatch.context() as patch:
            faults = Faults(patch, [few_frames, folder])
            faults.at, faults.fault = at, fault
            try:
                write_shards(few_options(folder, **options))
            except (ActcliError, Killed):
                return faults.calls, False
            return faults.calls, True

    return run


def points_of(calls, num_per_kind):
    """Numbers of the first calls of each kind, such as the writes of tars, and of the last one."""
    by_kind = {}
    for number, kind in enumerate(calls):
        by_kind.setdefault(kind, []).append(number)
    return sorted({number for numbers in by_kind.values() for number in (*numbers[:num_per_kind], numbers[-1])})


STARTS = ["nothing there", "a tar is damaged", "other shards there"]


@pytest.fixture
def prepared(tmp_path, few_shards, few_options):
    """``prepared(start)``: a fresh folder in one of the states that a run may find, and the options for it."""
    other = tmp_path / "other"
    write_shards(few_options(other, seed=9))
    numbers = iter(range(10**6))

    def make(start):
        folder = tmp_path / str(next(numbers))
        if start == "other shards there":
            shutil.copytree(other, folder)
            return folder, {"overwrite": True}
        if start == "a tar is damaged":
            shutil.copytree(few_shards, folder)
            os.truncate(folder / "train-000000.tar", 5000)
        return folder, {}

    return make


@pytest.mark.parametrize("start", STARTS)
def test_whatever_the_disk_does_the_result_is_right_or_an_error(attempt, prepared, few_shards, contents, start):
    folder, options = prepared(start)
    calls, succeeded = attempt(folder, **options)
    assert succeeded
    wanted = contents(few_shards)
    assert contents(folder) == wanted
    points = [(at, fault) for at in points_of(calls, 1) for fault in FAULTS[calls[at][0]]]
    assert len(points) > 60
    num_errors = 0
    for at, fault in points:
        folder, options = prepared(start)
        _, succeeded = attempt(folder, at, fault, **options)
        num_errors += not succeeded
        if succeeded:
            assert contents(folder) == wanted, (calls[at], at, fault)
        assert attempt(folder, **options)[1], (calls[at], at, fault)  # the disk is well again
        assert contents(folder) == wanted, (calls[at], at, fault)
        shutil.rmtree(folder)
    assert num_errors > len(points) / 6


@pytest.mark.parametrize("start", STARTS)
def test_killed_at_any_call_the_next_run_gives_the_same_bytes(attempt, prepared, few_shards, contents, start):
    folder, options = prepared(start)
    for at in points_of(attempt(folder, **options)[0], 2):
        folder, options = prepared(start)
        assert not attempt(folder, at, Killed, **options)[1]
        assert attempt(folder, **options)[1]
        assert contents(folder) == contents(few_shards), at
        shutil.rmtree(folder)


def test_shards_that_a_kill_left_unfinished_are_not_taken_for_finished(attempt, prepared):
    calls = attempt(prepared("nothing there")[0])[0]
    finished = max(number for number, call in enumerate(calls) if call == ("replace", ".actcli-dataset.json.0.tmp"))
    for at in [number for number in points_of(calls, 1) if number <= finished]:
        folder, _ = prepared("nothing there")
        attempt(folder, at, Killed)
        assert not (folder / "dataset.json").exists()


SCRIPT = """
import sys
from pathlib import Path
from actcli.shards import ShardOptions, write_shards
write_shards(ShardOptions(Path(sys.argv[1]), Path(sys.argv[2]), shard_bytes=100_000, workers=2))
"""


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        ("actcli.shards.tar:TarWriter", "add", 3),
        ("actcli.shards.writer", "write_tar", 2),
        ("actcli.shards.journal:Journal", "add", 2),
    ],
)
def test_a_process_killed_at_some_moment_is_continued_to_the_same_bytes(
    few_frames, few_options, few_shards, contents, tmp_path, owner, name, number
):
    folder = tmp_path / "s"
    run_until(owner, name, number, SCRIPT, few_frames, folder)
    assert not (folder / "dataset.json").exists()
    write_shards(few_options(folder))
    assert contents(folder) == contents(few_shards)
    assert verify_shards(folder) == []
