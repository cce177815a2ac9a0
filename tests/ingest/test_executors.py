import os
import pickle
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing import Pipe

import pytest

from actcli.errors import ActcliError
from actcli.ingest import executors
from actcli.ingest.clip_job import ClipTask, extract_clip
from actcli.ingest.datasets import get_dataset
from actcli.ingest.disk import estimated_bytes
from actcli.ingest.executors import Crash, check_executor, run_tasks
from actcli.ingest.extract import _clip_job
from actcli.ingest.sizing import DecodeSettings


def behave(task):
    """Do what the task says, as a decoder might."""
    if task == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if task == "leave":
        os._exit(3)
    if task == "hang":
        signal.pause()
    if task == "raise":
        raise OSError(28, "No space left on device")
    return task * 2


def run(tasks, executor="processes", timeout=250.0):
    return dict(run_tasks(executor, behave, tasks, workers=2, timeout=timeout))


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_every_task_is_done_once(executor):
    assert run(range(20), executor) == {number: 2 * number for number in range(20)}


def test_a_dead_worker_costs_its_own_task_alone():
    results = run([1, "die", 2, "leave", 3, 4])
    assert (results["die"].error, results["die"].message) == (
        "WorkerDied",
        "the worker process was ended by SIGSEGV",
    )
    assert results["leave"].message == "the worker process ended with exit code 3"
    assert {task: results[task] for task in (1, 2, 3, 4)} == {1: 2, 2: 4, 3: 6, 4: 8}


def test_a_hung_task_is_ended_and_the_others_go_on(monkeypatch):
    def be_patient_with_the_others(worker, task, timeout, give=executors._Worker.give):
        give(worker, task, timeout if task == "hang" else 250.0)

    monkeypatch.setattr(executors._Worker, "give", be_patient_with_the_others)
    results = run(["hang", 1, 2, 3], timeout=0.5)
    assert results.pop("hang") == Crash("WorkerHung", "no result after 0.5 seconds")
    assert results == {1: 2, 2: 4, 3: 6}


def test_an_exception_of_the_function_ends_the_run():
    with pytest.raises(OSError, match="No space left"):
        run([1, "raise", 2])


class Unwelcome:
    """A function that no worker can load."""

    def __reduce__(self):
        return (__import__, ("no_such_module_anywhere",))


def test_workers_that_cannot_start_are_an_error_and_no_failed_clips(capfd):
    with pytest.raises(ActcliError, match=r"A worker process could not start: .* exit code 1\."):
        list(run_tasks("processes", Unwelcome(), [1, 2], workers=2, timeout=250))
    assert "no_such_module_anywhere" in capfd.readouterr().err


def in_a_worker(work):
    """What a function gives in a fresh worker, and the modules that are loaded there then."""
    code = f"(__import__('pickle').loads({pickle.dumps(work)!r})(), set(__import__('sys').modules))"
    [(_, result)] = run_tasks("processes", eval, [code], workers=1, timeout=60)
    return result


UNNEEDED = {"pandas", "pyarrow", "fsspec", "asyncio", "pydantic_core", "scipy", "torch", "typer", "rich", "yaml"}
"""What the process that drives an extraction needs, or other commands, and no worker."""


def test_a_worker_loads_only_what_a_clip_needs(tiny_raw, tiny_options):
    path = min(tiny_raw.rglob("*.mp4")).relative_to(tiny_raw).as_posix()
    job = _clip_job(get_dataset("tiny"), tiny_options())
    outcome, loaded = in_a_worker(partial(extract_clip, job, ClipTask("000000000", "x", path, None, None)))
    assert outcome.num_frames == 8
    assert {"av", "cv2", "simplejpeg", "actcli.ingest.clip_job"} <= loaded
    assert loaded & UNNEEDED == set()


def test_a_worker_that_reads_headers_loads_no_more_than_that_takes(tiny_raw):
    num_bytes, loaded = in_a_worker(partial(estimated_bytes, DecodeSettings(), 1, min(tiny_raw.rglob("*.mp4"))))
    assert num_bytes > 0
    assert "av" in loaded
    assert loaded & {*UNNEEDED, "cv2", "simplejpeg", "actcli.ingest.clip_job"} == set()


def test_a_program_from_standard_input_needs_no_main_guard():
    program = """
from actcli.ingest.executors import run_tasks
print(sorted(result for _, result in run_tasks("processes", abs, [-3, 1, -2], workers=2, timeout=250)))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-"], input=program, text=True, capture_output=True, env=environment)
    assert (done.stdout, done.stderr) == ("[1, 2, 3]\n", "")


def test_a_worker_takes_no_module_from_the_current_folder(tmp_path):
    (tmp_path / "socket.py").write_text("open('harm', 'w').close()")
    program = """
from actcli.ingest.executors import run_tasks
print(*run_tasks("processes", abs, [-3], workers=1, timeout=30))
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, env=environment)
    assert (done.stdout, done.stderr) == ("(-3, 3)\n", "")
    assert not (tmp_path / "harm").exists()


def test_workers_end_when_their_parent_is_killed():
    program = """
import sys
from actcli.ingest.executors import _Worker, run_tasks
from signal import raise_signal, SIGKILL
from time import sleep
worker = _Worker(sleep)
worker.give(1_000_000, 1_000_000)
worker.take()
print(worker._process.pid, flush=True)
raise_signal(SIGKILL)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    assert done.returncode == -signal.SIGKILL  # and the worker has let go of the pipe, or this would not be reached
    while is_running(int(done.stdout)):
        time.sleep(0.02)


@pytest.mark.parametrize("is_sent", [False, True])
def test_a_worker_whose_parent_stopped_while_it_started_leaves_no_traceback(is_sent):
    ours, theirs = Pipe()
    number = theirs.fileno()
    words = [sys.executable, "-c", executors._WORKER_CODE, str(number)]
    with subprocess.Popen(words, pass_fds=[number], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as worker:
        theirs.close()
        if is_sent:
            ours.send(len)
        ours.close()
        assert worker.stderr.read() == b""
    assert worker.returncode == 0


def test_a_worker_that_dies_while_it_waits_costs_nothing(monkeypatch):
    def die_first(worker, task, timeout, give=executors._Worker.give):
        if task == 3:
            os.kill(worker._process.pid, signal.SIGKILL)
            worker._process.wait()
        give(worker, task, timeout)

    monkeypatch.setattr(executors._Worker, "give", die_first)
    results = dict(run_tasks("processes", behave, range(6), workers=1, timeout=250.0))
    assert results.pop(3).error == "WorkerDied"
    assert results == {number: 2 * number for number in (0, 1, 2, 4, 5)}


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_missing_ray_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ActcliError, match=r"Ray is not installed. Type: pip install 'actcli\[ray\]'"):
        check_executor("ray")


def test_ray_gives_the_same_results(ray_home):
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    results = run([1, "leave", 2, 3], "ray")
    assert results["leave"].error == "WorkerDied"
    assert {task: results[task] for task in (1, 2, 3)} == {1: 2, 2: 4, 3: 6}
