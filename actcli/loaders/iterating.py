"""``Loader``: the batches of a split, epoch after epoch, in an order that can be taken up anywhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypedDict

import torch

from actcli.errors import ActcliError
from actcli.loaders.backends import Backend, open_backend
from actcli.loaders.batch import Batch
from actcli.loaders.epochs import Epochs
from actcli.loaders.order import Order
from actcli.loaders.originals import original_of
from actcli.loaders.plan import ViewSettings
from actcli.shards import ShardSet

_STATE_VERSION = 1
SetupValue = str | int | bool | None


class LoaderState(TypedDict):
    """Where an iteration is, as plain data."""

    version: int
    """Of this form."""
    epoch: int
    """Epoch that is being read."""
    step: int
    """Batches of it that were handed out."""
    setup: dict[str, SetupValue]
    """Everything that decides what a batch holds."""


@dataclass
class _Progress:
    """Where the iteration is: batches of ``epoch`` that were handed out."""

    epoch: int = 0
    step: int = 0


class Loader:
    """Batches of one split, epoch after epoch. Made by ``open_loader``.

    Iterating gives the epoch set by ``set_epoch``, or what is left of it after ``load_state_dict``. Worker processes
    stay between epochs; ``close`` ends them, as do the end of a ``with`` block and garbage collection.
    """

    def __init__(
        self,
        shards: ShardSet,
        epochs: Epochs,
        settings: ViewSettings,
        order: Order,
        workers: int,
        backend: str,
        device: torch.device | None,
    ) -> None:
        self.shards = shards
        self.settings = settings
        self.order = order
        self.backend = backend
        self.device = device
        self.num_bytes_read = 0
        """Bytes that the batches handed out so far took from the shards."""
        self._epochs = epochs
        self._workers = workers
        self._progress = _Progress()
        self._resume_step = 0
        self._opened: Backend | None = None
        self._current: object = None

    @property
    def num_clips(self) -> int:
        """Clips of the split over all ranks."""
        return self._epochs.num_clips

    @property
    def num_without_flow(self) -> int:
        """Clips that were left out because they have no flow; a stream knows only of those that came by this epoch."""
        return self._epochs.num_without_flow

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the labels."""
        return list(self.shards.card.classes)

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.order.num_steps

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; a new one starts at its beginning."""
        if epoch != self._progress.epoch:
            self._progress = _Progress(epoch)
            self._resume_step = 0

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch that are left."""
        epoch, first_step, self._resume_step = self._progress.epoch, self._resume_step, 0
        self._progress = progress = _Progress(epoch, first_step)
        self._current = this = object()
        try:
            for plan, batch in self._start().batches(self._epochs.epoch(self.order, epoch, first_step)):
                progress.step += 1
                self.num_bytes_read += plan.num_bytes
                yield batch
                if self._current is not this:  # the batches that were read ahead are gone
                    break
        except GeneratorExit:
            raise
        except BaseException:  # a broken sample, a dead worker, Ctrl-C: no process stays behind
            self.close()
            raise
        if self._current is not this and progress.step < len(self):
            raise ActcliError(
                "this iteration was cut off: another one was begun on the same loader, or the loader was closed. "
                "Finish one before the next, or open a second loader."
            )

    def _start(self) -> Backend:
        if self._opened is None:
            self._opened = open_backend(
                self.backend, self.shards, self.settings, self._workers, self.order.batch_size, self.device
            )
        return self._opened

    def state_dict(self) -> LoaderState:
        """Where the iteration is, counted in batches handed out, and the setup it belongs to; plain data."""
        return {
            "version": _STATE_VERSION,
            "epoch": self._progress.epoch,
            "step": self._resume_step or self._progress.step,
            "setup": self._setup(),
        }

    def load_state_dict(self, state: LoaderState) -> None:
        """Go to a place saved by ``state_dict``; the next iteration gives the batches that were left.

        A training may go on with another number of ranks, where the clips of a step are as many as before.

        Raises:
            ActcliError: The loader was opened in another way than the one that was saved.
        """
        if state.get("version") != _STATE_VERSION:
            raise ActcliError(f"loader state of version {state.get('version')}; this one reads {_STATE_VERSION}.")
        saved, current = state.get("setup", {}), self._setup()
        changed = [
            f"{name} (was {saved.get(name)}, is {value})" for name, value in current.items() if saved.get(name) != value
        ]
        if changed:
            raise ActcliError(
                f"the loader state belongs to another setup: {'; '.join(changed)}. "
                "Open the loader as before, or start the epoch anew without the state."
            )
        self._progress = _Progress(state["epoch"], state["step"])
        self._resume_step = state["step"]

    def _setup(self) -> dict[str, SetupValue]:
        """Everything that decides what a batch holds, as plain data."""
        settings = self.settings
        return {
            "clips": self._epochs.num_clips,
            "clip list": self._epochs.identity,
            **self._shares(),
            "seed": self.order.seed,
            "shuffle": self.order.shuffle,
            "drop last": self.order.drop_last,
            "frames": settings.num_frames,
            "size": settings.size,
            "scale size": settings.scale_size,
            "modality": settings.modality,
            "flow stack": settings.flow_stack,
            "sampling": settings.sampling.name,
            "views": None if settings.rule == original_of(settings.sampling.name).rule else settings.rule.name,
            "crops": settings.num_crops,
            "clips per video": settings.sampling.num_test_clips,
            "augmentation": repr(settings.augmentation) if settings.training else None,
        }

    def _shares(self) -> dict[str, SetupValue]:
        """What ranks have to agree on: whole batches hold the same clips in the same order on any number of them."""
        order = self.order
        if order.drop_last:
            return {"batch size of all ranks": order.batch_size * order.world_size}
        return {"batch size": order.batch_size, "world size": order.world_size}

    def close(self) -> None:
        """End the workers and free their memory; batches handed out stay valid."""
        self._current = None
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
