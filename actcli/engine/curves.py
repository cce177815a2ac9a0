"""Curves of a training in TensorBoard's format, written at once.

TensorBoard's own writer hands what it gets to a thread, where an error of the disk becomes a traceback that nobody
waits for; here it is raised where the curve is drawn, and a checkpoint is never ahead of its curves.
"""

import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import image


class Curves:
    """Scalars over steps in one event file of a folder."""

    def __init__(self, folder: Path, first_step: int) -> None:
        """Begin a file in ``folder``; from ``first_step`` on, older files there count no longer.

        Raises:
            OSError: It cannot be written.
        """
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        try:
            self._write(Event(wall_time=now, file_version="brain.Event:2"))
            self._write(Event(wall_time=now, step=first_step, session_log=SessionLog(status=SessionLog.START)))
        except BaseException:
            self._file.close()
            raise

    def add(self, step: int, points: Mapping[str, float]) -> None:
        """One point of each of several curves, by the name of the curve, such as ``train/loss``.

        Raises:
            OSError: It cannot be written.
        """
        values = [Summary.Value(tag=name, simple_value=value) for name, value in points.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def picture(self, step: int, name: str, picture_HWC: NDArray[np.uint8]) -> None:
        """A picture of a step.

        Raises:
            OSError: It cannot be written.
        """
        summary = image(name, picture_HWC, dataformats="HWC")  # type: ignore[no-untyped-call]
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self) -> None:
        """End the file."""
        self._file.close()

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())
        self._records.flush()
