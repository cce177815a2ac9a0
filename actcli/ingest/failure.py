"""Why one clip could not be extracted; it becomes a row of the manifest, never a stop."""


class ClipFailure(Exception):
    """One clip failed at ``stage`` (find, open, decode, flow, encode, write, worker)."""

    def __init__(self, stage: str, error: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.error = error
        self.message = message

    @classmethod
    def of(cls, stage: str, error: Exception) -> "ClipFailure":
        """The failure that ``error`` is at ``stage``."""
        return cls(stage, type(error).__name__, str(error))
