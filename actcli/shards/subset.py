"""Which clips of a set of shards to take, as the user says it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actcli.errors import ActcliError
from actcli.words import counted

_NUM_NAMED = 3


@dataclass(frozen=True)
class Subset:
    """Which clips to take; all of them unless it says otherwise."""

    classes: tuple[str, ...] = ()
    """Names of the classes to keep; the others, and clips without a class, are left out."""
    fraction: float = 1.0
    """Share of the clips of each class, in (0, 1]; a smaller share is a part of a larger one."""
    max_clips_per_class: int | None = None
    """At most so many clips of each class; the same that a fraction would keep first."""
    exclude_keys: tuple[str, ...] = ()
    """Keys (9 digits) or names of clips that are left out."""
    only_keys: tuple[str, ...] = ()
    """Keys or names of the only clips to take, where there are any."""
    seed: int = 0
    """Which clips ``fraction`` and ``max_clips_per_class`` keep."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.fraction <= 1:
            raise ActcliError(f"fraction is {self.fraction}; it has to be more than 0 and at most 1.")
        if self.max_clips_per_class is not None and self.max_clips_per_class < 1:
            raise ActcliError(f"max_clips_per_class is {self.max_clips_per_class}; it has to be at least 1.")

    def of_tests(self) -> "Subset":
        """What a test leaves out of a training's subset: the same classes and keys, but no share of the clips."""
        return replace(self, fraction=1.0, max_clips_per_class=None)

    def in_words(self) -> str:
        """What it asks for: ``classes a and b; 10 % of each class``."""
        said = []
        if self.classes:
            said.append(f"only {counted(len(self.classes), 'class')} ({some_names(self.classes)})")
        if self.fraction < 1:
            said.append(f"{100 * self.fraction:g} % of each class")
        if self.max_clips_per_class is not None:
            said.append(f"at most {self.max_clips_per_class} of each class")
        if self.only_keys:
            said.append(f"only {len(self.only_keys)} listed clips")
        if self.exclude_keys:
            said.append(f"without {len(self.exclude_keys)} listed clips")
        return ", ".join(said)


WHOLE = Subset()
"""All clips."""


def read_keys(path: Path) -> tuple[str, ...]:
    """Keys or names of clips, one a line; empty lines are passed over.

    Raises:
        ActcliError: The file cannot be read.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ActcliError(f"{path} cannot be read ({error}). It has to name a clip or a key a line.") from error
    return tuple(line.strip() for line in lines if line.strip())


def some_names(names: Sequence[str]) -> str:
    """The first few, in quotes."""
    more = len(names) - _NUM_NAMED
    return ", ".join(map(repr, names[:_NUM_NAMED])) + (f" and {more} more" if more > 0 else "")
