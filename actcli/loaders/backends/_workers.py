"""Worker processes that fill batch memory.

They are forked, so that they share the batch memory and start in milliseconds, and they run nothing but a
``BatchWriter``, on one thread each. Batches go round the workers in turn and come back in the order in which they were
handed in.

No library does it: ``torch.utils.data.DataLoader`` and ``concurrent.futures`` bring each batch back through a pipe or
new shared memory; here workers decode straight into memory that goes round.
"""

import contextlib
import gc
import multiprocessing
import os
import signal
import traceback
import warnings
import weakref
from collections import deque
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders.backends._ring import BatchRing
from actcli.loaders.backends._writer import BatchWriter
from actcli.loaders.plan import BatchPlan

_ORPHAN_CHECK_SECONDS = 2.0


class WorkerPool:
    """``num_workers`` processes, or none: then the work is done where it is waited for."""

    def __init__(self, writer: BatchWriter, ring: BatchRing, num_workers: int) -> None:
        self._writer, self._ring = writer, ring
        self._waiting: deque[tuple[int, int, BatchPlan]] = deque()
        self._next_worker = 0
        self._connections: list[Connection] = []
        self._processes: list[BaseProcess] = []
        for _ in range(num_workers):
            self._start_worker()
        self._stop = weakref.finalize(self, _stop_workers, self._connections, self._processes, os.getpid())

    def _start_worker(self) -> None:
        if multiprocessing.current_process().daemon:
            raise ActcliError(
                "a loader inside a worker process (of torch's DataLoader, for one) can start no processes of its own. "
                "Open it with workers=0 there."
            )
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        self._connections.append(ours)
        arguments = (theirs, list(self._connections), self._writer, self._ring, os.getpid())
        process = context.Process(target=_serve, args=arguments, daemon=True, name="actcli-loader")
        with warnings.catch_warnings():
            # Python 3.12 warns of forking beside threads; the child touches none of their state.
            warnings.simplefilter("ignore", DeprecationWarning)
            held = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # until it has its own answer to it
            process.start()
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        theirs.close()
        self._processes.append(process)

    @property
    def num_waiting(self) -> int:
        """Batches handed in and not yet waited for."""
        return len(self._waiting)

    def submit(self, slot: int, plan: BatchPlan) -> None:
        """Have the batch written into ``slot``.

        Raises:
            ActcliError: There is no memory for the pictures that come with it.
        """
        worker, num_bytes = self._next_worker, None
        if self._processes and plan.inline is not None:
            num_bytes = len(plan.inline)
            self._ring.put_pictures(slot, plan.inline)
            plan = plan._replace(inline=None)
        self._waiting.append((worker, slot, plan))
        if self._processes:
            self._next_worker = (worker + 1) % len(self._processes)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # said when the batch is waited for
                self._connections[worker].send((slot, plan, num_bytes))

    def wait(self) -> tuple[int, BatchPlan]:
        """Wait for the oldest batch: ``(slot, plan)``.

        Raises:
            ActcliError: A clip is broken, or the worker died. The slot is free again then.
        """
        worker, slot, plan = self._waiting.popleft()
        try:
            self._finish(worker, slot, plan)
        except BaseException:
            self._ring.give_back(slot)
            raise
        return slot, plan

    def _finish(self, worker: int, slot: int, plan: BatchPlan) -> None:
        if not self._processes:
            self._writer.write(plan, self._ring.bytes_of(slot))
            return
        ours, process = self._connections[worker], self._processes[worker]
        connection.wait([ours, process.sentinel])
        try:
            problem = ours.recv() if ours.poll() else ("died", "")
        except (EOFError, ConnectionResetError):
            problem = ("died", "")
        match problem:
            case ("user", message):
                raise ActcliError(message)
            case ("bug", trace):
                raise RuntimeError(f"a loader worker failed:\n{trace}")
            case ("died", _):
                process.join(1)
                raise ActcliError(_obituary(process, plan))

    def drain(self) -> None:
        """Wait for everything handed in and throws it away."""
        while self._waiting:
            with contextlib.suppress(ActcliError, RuntimeError):
                self._ring.give_back(self.wait()[0])

    def close(self) -> None:
        """End the workers. Can be called twice."""
        while self._waiting:
            self._ring.give_back(self._waiting.popleft()[1])
        self._stop()


def _stop_workers(connections: list[Connection], processes: list[BaseProcess], creator: int) -> None:
    if os.getpid() != creator:  # a forked child lets go of its copy; the workers are not its own
        return
    for ours in connections:
        ours.close()
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()
        process.close()
    processes.clear()
    connections.clear()


def _obituary(process: BaseProcess, plan: BatchPlan) -> str:
    code = process.exitcode
    how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
    first = plan.clips[0] if plan.clips else None
    wanted = first and (first.rgb or first.flow)
    where = "a batch"
    if first and wanted:
        where = f"shard {wanted.shard}, clip {first.key:09d} and the next {len(plan.clips) - 1}"
    return (
        f"a loader worker was ended {how} while it read {where}. If memory ran out, lower workers or "
        "batch_size (--batch-size); "
        "if a shard changed while it was read, run `actcli verify`."
    )


def _serve(
    theirs: Connection, of_the_parent: list[Connection], writer: BatchWriter, ring: BatchRing, parent: int
) -> None:
    """The worker: answers each ``(slot, plan, picture bytes)`` with ``None`` or a problem, until its parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    gc.freeze()  # objects of the parent, a DALI pipeline for one, must not be finalised here
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for ours in of_the_parent:
        ours.close()
    with contextlib.suppress(EOFError, ConnectionResetError, BrokenPipeError):
        while theirs.poll(_ORPHAN_CHECK_SECONDS) or os.getppid() == parent:
            if theirs.poll():
                slot, plan, num_bytes = theirs.recv()
                if num_bytes is not None:
                    plan = plan._replace(inline=ring.pictures(slot, num_bytes))
                theirs.send(_attempt(writer, plan, ring.bytes_of(slot)))
    os._exit(0)  # without the parent's exit handlers


def _attempt(writer: BatchWriter, plan: BatchPlan, memory: NDArray[np.uint8]) -> tuple[str, str] | None:
    try:
        writer.write(plan, memory)
    except ActcliError as error:
        return "user", str(error)
    except Exception:
        return "bug", traceback.format_exc()
    return None
