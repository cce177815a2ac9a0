"""Running one function over many clips: in this process, in worker processes, or on Ray.

``concurrent.futures`` cannot say which task killed a worker, loses the others with it, and cannot stop a hung one. The
pool here gives each worker one task at a time over its own pipe, so a crash or a hang costs exactly the clip at hand.
Workers are plain Python processes (``worker``) that import what they need and never the caller's main program, so a
script needs no ``__name__`` guard, and code typed into an interpreter works as well.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from actcli.errors import ActcliError
from actcli.files import open_regular

Task = TypeVar("Task")
Result = TypeVar("Result")
ExecutorName = Literal["processes", "ray", "serial"]

WORKER_DIED, WORKER_HUNG = "WorkerDied", "WorkerHung"
"""What a ``Crash`` can be."""

_ONE_THREAD = {"OPENCV_FOR_THREADS_NUM": "1", "OMP_NUM_THREADS": "1"}  # there is one worker a core already
_MAX_ENV_BYTES = 1 << 20
_START_SECONDS = 300.0  # imports can take long on a busy network disk, and Ray installs packages
_DEATH_SECONDS = 5.0  # how long a process may take to end once its pipe is closed


@dataclass(frozen=True)
class Crash:
    """A task that took its worker with it."""

    error: str
    message: str


def run_tasks(
    executor: ExecutorName,
    function: Callable[[Task], Result],
    tasks: Iterable[Task],
    *,
    workers: int,
    timeout: float,
) -> Generator[tuple[Task, Result | Crash]]:
    """Yield each task with its result, in the order in which they finish.

    Args:
        executor: Where the function runs.
        function: Importable by its name; an exception that it raises ends the whole run and is raised here.
        tasks: Taken one by one as workers become free.
        workers: How many run at once.
        timeout: Seconds after which a task counts as hung (not in ``serial``).
    """
    if executor == "serial":
        return ((task, function(task)) for task in tasks)
    run = _run_processes if executor == "processes" else _run_ray
    return run(function, iter(tasks), workers, timeout)


def check_executor(executor: ExecutorName) -> None:
    """Raise ``ActcliError`` for an unknown executor, or one that needs a package that is not installed."""
    if executor not in get_args(ExecutorName):
        raise ActcliError(f"executor {executor!r} is unknown; allowed are: {', '.join(get_args(ExecutorName))}.")
    if executor == "ray":
        try:
            import ray  # noqa: F401
        except ImportError:
            raise ActcliError("Ray is not installed. Type: pip install 'actcli[ray]'") from None


class _Worker(Generic[Task, Result]):
    """One process and the task it has."""

    def __init__(self, function: Callable[[Task], Result]) -> None:
        self.connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _WORKER_CODE, str(theirs.fileno())],  # -P: no modules of the current folder
            env=os.environ | _ONE_THREAD | {"PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.PIPE,  # never written to: it closes when this process ends, however it ends
            start_new_session=True,  # Ctrl-C reaches this process alone, which then decides
        )
        theirs.close()
        self._has_started = False
        self._timeout = 0.0
        self.deadline = 0.0
        self._send(function)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def give(self, task: Task, timeout: float) -> None:
        self._timeout = timeout
        self.deadline = time.monotonic() + (timeout if self._has_started else _START_SECONDS)
        self._send(task)

    def _send(self, what: object) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is gone, which ``take`` finds
            self.connection.send(what)

    def take(self) -> list[Result | Crash]:
        """The result, or a ``Crash`` if the process is gone; nothing if it has just started."""
        try:
            error, result = self.connection.recv()
        except (EOFError, ConnectionResetError):
            return [self._bury()]
        if not self._has_started:
            self._has_started = True
            self.deadline = time.monotonic() + self._timeout
            return []
        if error is not None:
            raise error
        return [result]

    def _bury(self) -> Crash:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_SECONDS)
        self.stop()
        death = _death(self._process.returncode)
        if not self._has_started:
            raise ActcliError(f"A worker process could not start: {death}. Its error is above; try --executor serial.")
        return Crash(WORKER_DIED, death)

    def stop(self) -> None:
        self._process.kill()  # first, so that it never meets a closed connection
        self._process.wait()
        self.connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()


def _run_processes(
    function: Callable[[Task], Result], tasks: Iterator[Task], workers: int, timeout: float
) -> Generator[tuple[Task, Result | Crash]]:
    busy: dict[_Worker[Task, Result], Task] = {}
    idle: list[_Worker[Task, Result]] = []
    try:
        while True:
            while len(busy) < workers and (task := next(tasks, None)) is not None:
                worker = idle.pop() if idle and idle[-1].is_alive() else _Worker(function)
                busy[worker] = task
                worker.give(task, timeout)
            if not busy:
                return
            for worker, result in _finished(list(busy), timeout):
                task = busy.pop(worker)
                if not isinstance(result, Crash):
                    idle.append(worker)
                yield task, result
    finally:
        for worker in (*busy, *idle):
            worker.stop()


def _finished(busy: list[_Worker[Task, Result]], timeout: float) -> list[tuple[_Worker[Task, Result], Result | Crash]]:
    """The workers that are done, dead or hung, with their results; waits until something happens."""
    patience = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
    ready = set(wait([worker.connection for worker in busy], patience))
    finished = [(worker, result) for worker in busy if worker.connection in ready for result in worker.take()]
    for worker in busy:
        if worker.connection not in ready and time.monotonic() > worker.deadline:
            worker.stop()
            finished.append((worker, Crash(WORKER_HUNG, f"no result after {timeout:g} seconds")))
    return finished


_WORKER_CODE = "import sys; from actcli.ingest.worker import serve; serve(int(sys.argv[1]))"


def _death(exitcode: int) -> str:
    if exitcode >= 0:
        return f"the worker process ended with exit code {exitcode}"
    hint = " (perhaps out of memory)" if exitcode == -signal.SIGKILL else ""
    return f"the worker process was ended by {signal.Signals(-exitcode).name}{hint}"


def start_ray(workers: int, runtime_env: Mapping[str, object] | None = None) -> None:
    """Connect to the Ray cluster of ``RAY_ADDRESS``, or start one on the spot, unless this process has one.

    Args:
        workers: Cores of a cluster that is started.
        runtime_env: What the nodes need, as Ray takes it.

    Raises:
        ActcliError: Ray cannot do that, or has been started by other code without what the nodes need.
    """
    import ray

    if ray.is_initialized():
        if runtime_env:
            raise ActcliError("Ray was started before; give runtime_env (--runtime-env) to ray.init, not to this call.")
        return
    own = {"address": "local", "num_cpus": workers, "include_dashboard": False}  # not one that is found by chance
    local: dict[str, Any] = {} if "RAY_ADDRESS" in os.environ else own
    try:
        ray.init(log_to_driver=False, configure_logging=False, runtime_env=dict(runtime_env or {}), **local)
    except (ValueError, TypeError, RuntimeError, ConnectionError) as error:
        raise ActcliError(
            f"Ray could not be started ({str(error).splitlines()[0]}). Look at RAY_ADDRESS and --runtime-env."
        ) from error


def read_runtime_env(path: Path) -> dict[str, object]:
    """A runtime environment of Ray from a YAML or JSON file: ``pip: [actcli]``, ``env_vars: {…}``, ``image_uri: …``.

    Raises:
        ActcliError: There is no such file, or it holds no table of settings.
    """
    import yaml

    try:
        with open_regular(path) as file:
            value = yaml.safe_load(file.read(_MAX_ENV_BYTES))
    except (OSError, yaml.YAMLError) as error:
        raise ActcliError(f"--runtime-env {path} cannot be read: {error}") from error
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ActcliError(f"--runtime-env {path} holds no table of settings; a line of it may be: pip: [actcli]")
    return value


def _run_ray(
    function: Callable[[Task], Result], tasks: Iterator[Task], workers: int, timeout: float
) -> Generator[tuple[Task, Result | Crash]]:
    """The same on a Ray cluster (``RAY_ADDRESS``), or on one started on the spot.

    Ray does not say when a task begins: each may have to wait for a worker that is started for it.
    """
    import ray

    start_ray(workers)
    remote: Any = ray.remote(max_retries=0, runtime_env={"env_vars": _ONE_THREAD})(_call)
    running: dict[Any, tuple[Task, float]] = {}
    while True:
        while len(running) < workers and (task := next(tasks, None)) is not None:
            running[remote.remote(function, task)] = (task, time.monotonic() + _START_SECONDS + timeout)
        if not running:
            return
        done, _ = ray.wait(list(running), timeout=1.0)
        for reference in done:
            task, _ = running.pop(reference)
            yield task, _ray_result(reference)
        for reference in [r for r, (_, deadline) in running.items() if time.monotonic() > deadline]:
            task, _ = running.pop(reference)
            ray.cancel(reference, force=True)
            yield task, Crash(WORKER_HUNG, f"no result after {timeout:g} seconds")


def _call(function: Callable[[Task], Result], task: Task) -> Result:
    return function(task)


def _ray_result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        return Crash(WORKER_DIED, str(error).splitlines()[0])
