"""Ctrl-C and SIGTERM as a wish that the work itself looks for, so that it can end where nothing is lost."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The user or the system asked to stop, and what was done is kept; the message says where and how to go on."""

    signal_number: int = signal.SIGINT
    """What came."""


@dataclass
class StopWish:
    """Whether somebody asked to stop."""

    signal_number: int | None = None
    """The signal that came, or None."""

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextmanager
def stop_wish(tell: Callable[[str], None]) -> Iterator[StopWish]:
    """Catch the first SIGINT or SIGTERM as a wish; a second one stops at once.

    Outside the main thread, where Python hears no signals, the wish stays empty.
    """
    wish = StopWish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def heard(number: int, frame: FrameType | None) -> None:
        del frame
        wish.signal_number = number
        restore()
        tell("stopping after this step, with a checkpoint; once more to stop at once")

    for number in _SIGNALS:
        signal.signal(number, heard)
    try:
        yield wish
    finally:
        restore()
