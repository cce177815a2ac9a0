"""Carry out plans with worker processes on the CPU."""

from collections.abc import Iterator

import torch

from actcli.loaders.backends._layout import BatchLayout, make_batch
from actcli.loaders.backends._ring import BatchRing
from actcli.loaders.backends._workers import WorkerPool
from actcli.loaders.backends._writer import BatchWriter
from actcli.loaders.batch import Batch
from actcli.loaders.plan import BatchPlan, ViewSettings
from actcli.shards import ShardSet

_PREFETCH = 2
_HELD_BY_USER = 2


class CpuBackend:
    """Turns plans into batches with worker processes."""

    def __init__(
        self, shards: ShardSet, settings: ViewSettings, workers: int, batch_size: int, device: torch.device | None
    ) -> None:
        self._layout = BatchLayout.of(settings, batch_size)
        self._depth = max(workers * _PREFETCH, 1)
        self._ring = BatchRing(self._depth + _HELD_BY_USER, self._layout.num_bytes)
        self._pool = WorkerPool(BatchWriter(shards, self._layout, settings), self._ring, workers)
        self._device = device

    def batches(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchPlan, Batch]]:
        """The batches of ``plans``, read ahead."""
        self._pool.drain()  # what an abandoned iteration left behind
        host_batches = self._host_batches(plans)
        if self._device is None:
            yield from host_batches
        elif self._device.type == "cuda":
            yield from _copied_ahead(host_batches, self._device)
        else:
            for plan, batch in host_batches:
                yield plan, batch.to(self._device)

    def _host_batches(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchPlan, Batch]]:
        more = True
        while more or self._pool.num_waiting:
            while more and self._pool.num_waiting < self._depth:
                plan = next(plans, None)
                if plan is None:
                    more = False
                    break
                self._pool.submit(self._ring.take(), plan)
            if self._pool.num_waiting:
                yield self._receive()

    def _receive(self) -> tuple[BatchPlan, Batch]:
        slot, plan = self._pool.wait()
        rgb, flow = self._layout.views(self._ring.hand_out(slot), len(plan.clips))
        batch = make_batch(plan, rgb, flow)
        if (
            self._ring.num_used - self._pool.num_waiting > _HELD_BY_USER
        ):  # batches are kept: this one gets its own memory
            batch = batch.copy()
            del rgb, flow
        return plan, batch

    def close(self) -> None:
        """End the workers."""
        self._pool.close()


def _copied_ahead(
    batches: Iterator[tuple[BatchPlan, Batch]], device: torch.device
) -> Iterator[tuple[BatchPlan, Batch]]:
    """Copy each batch to the GPU while the one before it is being used."""
    copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ready: tuple[BatchPlan, Batch, torch.cuda.Event] | None = None
    for plan, host in batches:
        pinned = host.pinned()
        with torch.cuda.stream(copying):
            copy = pinned.to(device, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(copying)
        if ready is not None:
            yield _arrived(*ready)
        ready = plan, copy, done
    if ready is not None:
        yield _arrived(*ready)


def _arrived(plan: BatchPlan, batch: Batch, done: torch.cuda.Event) -> tuple[BatchPlan, Batch]:
    """Make the current CUDA stream wait for the copy."""
    current = torch.cuda.current_stream(batch.labels.device)
    current.wait_event(done)
    batch.record_stream(current)
    return plan, batch
