"""The body of a worker process.

Nothing of ours is imported here, so that a worker loads what its function needs and no more.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


def serve(descriptor: int) -> None:
    """Answer tasks until the pipe closes, and end when the parent does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has given up on this run
        function = connection.recv()
        connection.send((None, None))  # started
        while True:
            connection.send(_answer(function, connection.recv()))


def _answer(function: Callable[[Any], object], task: object) -> tuple[Exception | None, object]:
    try:
        return None, function(task)
    except Exception as error:
        return error, None


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns at the end of the pipe alone
    os._exit(1)
