"""What carries out plans: a file each, all under one protocol.

A backend draws nothing itself. Whatever it gives is decided by the plan, so all of them give the same batches, within
the tolerance that their tests state.
"""

from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from actcli.errors import ActcliError
from actcli.loaders.backends.cpu import CpuBackend
from actcli.loaders.backends.dali import DaliBackend
from actcli.loaders.batch import Batch
from actcli.loaders.plan import BatchPlan, ViewSettings
from actcli.shards import ShardSet
from actcli.shards.card import StoredPayload


class Backend(Protocol):
    """Turns plans into batches."""

    def batches(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchPlan, Batch]]:
        """Each plan with its batch, in order, on the backend's device; may read ahead.

        Called again while plans are left, it throws these away.

        Raises:
            ActcliError: A clip is broken; names it and its tar.
        """
        ...

    def close(self) -> None:
        """End processes and free memory; batches handed out stay valid."""
        ...


BackendMaker = Callable[[ShardSet, ViewSettings, int, int, torch.device | None], Backend]
"""Opens a backend for ``(shards, settings, workers, batch_size, device)``."""

_BACKENDS: dict[str, BackendMaker] = {"cpu": CpuBackend, "dali": DaliBackend}


def register_backend(name: str, maker: BackendMaker) -> None:
    """Make a backend known by its name.

    Raises:
        ActcliError: The name is taken.
    """
    if name in backend_names():
        raise ActcliError(f"there is a backend {name!r} already.")
    _BACKENDS[name] = maker


def backend_names() -> list[str]:
    """Everything that ``choose_backend`` understands."""
    return [*_BACKENDS, "auto"]


def choose_backend(name: str, device: torch.device | None, payload: StoredPayload = "mjpeg") -> str:
    """The backend that ``name`` stands for: ``auto`` is DALI on a GPU where it reads the payload, otherwise the CPU.

    Raises:
        ActcliError: There is no such backend.
    """
    if name not in backend_names():
        raise ActcliError(f"unknown loader {name!r}. As backend, choose {', '.join(backend_names())}.")
    if name == "auto":
        return "dali" if device is not None and device.type == "cuda" and payload != "source" else "cpu"
    return name


def open_backend(
    name: str, shards: ShardSet, settings: ViewSettings, workers: int, batch_size: int, device: torch.device | None
) -> Backend:
    """The backend called ``name``, which ``choose_backend`` gave."""
    return _BACKENDS[name](shards, settings, workers, batch_size, device)


__all__ = ["Backend", "BackendMaker", "backend_names", "choose_backend", "open_backend", "register_backend"]
