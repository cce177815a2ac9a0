"""Why one clip could not be extracted; it becomes a row of the manifest, never a stop."""

from collections.abc import Iterator
from contextlib import contextmanager


class ClipFailure(Exception):
    """One clip failed at ``stage`` (find, open, decode, index, flow, encode, write, worker)."""

    def __init__(self, stage: str, error: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.error = error
        self.message = message


@contextmanager
def failing_at(stage: str) -> Iterator[None]:
    """Turn any error inside the block into a ``ClipFailure`` at ``stage``."""
    try:
        yield
    except ClipFailure:
        raise
    except Exception as error:
        raise ClipFailure(stage, type(error).__name__, str(error)) from error
