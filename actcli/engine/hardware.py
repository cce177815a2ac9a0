"""Where a training or an evaluation runs: device, processes, memory."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import psutil
import torch
from lightning_fabric import Fabric

from actcli.defaults import CACHE_BYTES
from actcli.engine.recipes import Precision
from actcli.errors import ActcliError
from actcli.words import counted

_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Hardware:
    """Where a training or an evaluation runs; nothing here changes what is computed, but for rounding."""

    accelerator: str = "auto"
    """``cpu``, ``cuda`` or ``auto``."""
    devices: int = 1
    """Processes on this machine, one per device; ``torchrun`` sets it for itself."""
    workers: int = 2
    """Loader processes per training process."""
    loader: str = "auto"
    """``cpu``, ``dali`` or ``auto``."""
    checkpoint_minutes: float = 10.0
    """Minutes between checkpoints inside an epoch; one is written after each epoch anyway."""
    cache_dir: str | None = None
    """Folder that keeps what was read of shards behind a URL."""
    cache_bytes: int = CACHE_BYTES
    """Size of that folder."""

    def __post_init__(self) -> None:
        """Refuse what no machine has."""
        if self.accelerator not in ("auto", "cpu", "cuda"):
            raise ActcliError(f"accelerator is {self.accelerator!r}; allowed are: auto, cpu, cuda.")
        if self.devices < 1 or self.workers < 0:
            raise ActcliError(
                f"devices is {self.devices} and workers {self.workers}; at least 1 and at least 0 are needed."
            )
        if not self.checkpoint_minutes >= 0:
            raise ActcliError(f"checkpoint_minutes is {self.checkpoint_minutes}; it has to be at least 0.")


def launch(hardware: Hardware, precision: Precision) -> Fabric:
    """Device, precision and processes.

    Raises:
        ActcliError: This machine lacks the device, or the precision is unknown.
    """
    if hardware.accelerator == "cuda" and not torch.cuda.is_available():
        raise ActcliError(
            "this machine has no CUDA device that torch can use; see: actcli doctor. Or choose the device cpu."
        )
    if precision not in get_args(Precision):
        raise ActcliError(f"precision {precision!r} is unknown; allowed are: {', '.join(get_args(Precision))}.")
    if precision == "16-mixed" and (hardware.accelerator == "cpu" or not torch.cuda.is_available()):
        raise ActcliError("the precision 16-mixed needs a CUDA device; on the CPU choose bf16-mixed or 32-true.")
    # torchrun says how many processes there are; Fabric alone would take one device for a training of its own
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", hardware.devices))
    num_nodes = int(os.environ.get("GROUP_WORLD_SIZE", 1))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # what it says of processes is no news to users
    fabric = Fabric(accelerator=hardware.accelerator, devices=devices, num_nodes=num_nodes, precision=precision)
    fabric.launch()
    return fabric


def describe_crowd(hardware: Hardware) -> str | None:
    """What to say of more processes than cores, where they run on those; None where each has one."""
    cores = os.cpu_count() or 1
    if training_device(hardware).type == "cuda" or hardware.devices <= cores:
        return None
    return f"{hardware.devices} processes share {counted(cores, 'core')}, which is slower than one a core (--devices)"


def training_device(hardware: Hardware) -> torch.device:
    """The device of a single process."""
    return torch.device("cuda" if hardware.accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def available_memory(device: torch.device) -> int:
    """Bytes that this process can still take on ``device``: of the GPU, or of the machine or its container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(int(psutil.virtual_memory().available), _container_memory())


def _container_memory() -> int:
    """What the memory limits of this process's group (cgroup v2 or v1) leave; very much where there is none."""
    left = 1 << 62
    for folder, limit_name, used_name in _memory_groups():
        try:
            limit, used = (int((folder / name).read_text()) for name in (limit_name, used_name))
        except (OSError, ValueError):  # no such file, or "max"
            continue
        left = min(left, max(limit - used, 0))
    return left


def _memory_groups() -> Iterator[tuple[Path, str, str]]:
    """Folders that may hold the limits: those of the process's own group, and what a container sees as the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in ["0::/", "0:memory:/", *lines]:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield _CGROUP / path.lstrip("/"), "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            yield _CGROUP / "memory" / path.lstrip("/"), "memory.limit_in_bytes", "memory.usage_in_bytes"
