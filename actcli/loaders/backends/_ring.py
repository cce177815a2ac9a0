"""Batch memory that is used again and again, shared with the worker processes.

Fresh shared memory costs a page fault per 4 KiB in every process that touches it, which for a batch of 8 clips is more
time than decoding them. So the memory of a few batches is made once, before the workers are forked, and a place in it
is free again when nobody holds the batch any more. It is anonymous memory: no name, no file in /dev/shm, nothing to
clean up after a crash.
"""

import mmap
import os
import tempfile
import weakref

import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError


class BatchRing:
    """``num_slots`` equal pieces of shared memory."""

    def __init__(self, num_slots: int, slot_bytes: int) -> None:
        self.slot_bytes = max(slot_bytes, 1)
        try:
            self._slots = [mmap.mmap(-1, self.slot_bytes) for _ in range(num_slots)]
        except OSError as error:
            megabytes = num_slots * self.slot_bytes / 1e6
            raise ActcliError(
                f"no memory for {num_slots} batches ({megabytes:.0f} MB): {error}. "
                "Lower batch_size (--batch-size) or workers."
            ) from error
        self._pictures = [_memory_file() for _ in range(num_slots)]
        weakref.finalize(self, _close_all, self._pictures).atexit = False
        self._free = list(range(num_slots))

    @property
    def num_used(self) -> int:
        """Slots that are being filled or are held by somebody."""
        return len(self._slots) - len(self._free)

    def take(self) -> int:
        """A free slot."""
        return self._free.pop()  # the one that was in use last is the likeliest to be in the processor's cache

    def give_back(self, slot: int) -> None:
        """Make a slot free again."""
        self._free.append(slot)

    def bytes_of(self, slot: int) -> NDArray[np.uint8]:
        """The slot's memory, for writing."""
        return np.frombuffer(self._slots[slot], np.uint8)

    def put_pictures(self, slot: int, pictures: bytes) -> None:
        """Lay down the encoded pictures of the batch that is to be written into a slot.

        A pipe would take them only as fast as a worker that is busy with another batch.

        Raises:
            ActcliError: There is no memory for them.
        """
        try:
            if os.pwrite(self._pictures[slot], pictures, 0) < len(pictures):
                raise OSError("they were cut short")
        except OSError as error:
            raise ActcliError(
                f"no memory for the {len(pictures) / 1e6:.0f} MB of a batch's pictures: {error}. "
                "Lower batch_size (--batch-size) or workers."
            ) from error

    def pictures(self, slot: int, num_bytes: int) -> bytes:
        """What was laid down for a slot."""
        return os.pread(self._pictures[slot], num_bytes, 0)

    def hand_out(self, slot: int) -> NDArray[np.uint8]:
        """The slot's memory; the slot becomes free when this array and everything that looks into it is gone."""
        memory = self.bytes_of(slot)
        weakref.finalize(memory, self.give_back, slot).atexit = False
        return memory


def _memory_file() -> int:
    """Descriptor of a file without a name, which processes that are forked later share."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("actcli-pictures")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _close_all(files: list[int]) -> None:
    for file in files:
        os.close(file)
