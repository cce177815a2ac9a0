"""Worker processes and the memory that they share with who hands them plans."""

import os
import signal

import pytest

from actcli.errors import ActcliError
from actcli.loaders.backends._ring import BatchRing
from actcli.loaders.backends._workers import WorkerPool
from actcli.loaders.plan import BatchPlan


class LastByte:
    """Stands in for a ``BatchWriter``: copies the last byte of the pictures."""

    def write(self, plan, memory):
        memory[0] = plan.inline[-1]


def test_a_busy_worker_does_not_hold_up_who_hands_it_pictures():
    ring = BatchRing(3, 1)
    pool = WorkerPool(LastByte(), ring, 1)
    os.kill(pool._processes[0].pid, signal.SIGSTOP)
    for number in range(3):
        pool.submit(ring.take(), BatchPlan((), bytes(4 << 20) + bytes([number])))  # more than a pipe takes
    os.kill(pool._processes[0].pid, signal.SIGCONT)
    assert [int(ring.bytes_of(pool.wait()[0])[0]) for _ in range(3)] == [0, 1, 2]
    pool.close()


def test_no_memory_for_the_pictures_of_a_batch_is_said(monkeypatch):
    ring = BatchRing(1, 1)
    monkeypatch.setattr("os.pwrite", lambda file, data, offset: len(data) - 1)
    with pytest.raises(ActcliError, match=r"no memory for the 4 MB of a batch's pictures: .*Lower batch_size"):
        ring.put_pictures(0, bytes(4 << 20))


def test_a_worker_that_is_told_to_end_before_it_has_begun_says_nothing(capfd):
    def told(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, told)
    try:
        for _ in range(20):
            WorkerPool(LastByte(), BatchRing(1, 1), 2).close()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert capfd.readouterr().err == ""
