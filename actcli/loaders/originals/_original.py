"""What is known of a published code base: how it chooses frames, resizes, crops and augments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from actcli.errors import ActcliError
from actcli.loaders.augment import Augmentation
from actcli.loaders.sampling import Sampling, Spread
from actcli.loaders.views import ViewRule


@dataclass(frozen=True)
class Family:
    """A sampling in training and, by the number of test clips, in the test."""

    name: str
    """What the user types: ``tsm``, ``tsm-dense``."""
    train: Sampling
    """The sampling of the training."""
    tests: Mapping[int, Sampling] = field(default_factory=dict)
    """By test clips per video: the samplings that the original has."""
    any_test: Callable[[int], Sampling] | None = None
    """The sampling for any number of test clips, instead of ``tests``."""

    @property
    def spread(self) -> Spread:
        """Which of our own samplings is of the same kind."""
        return self.train.spread

    def find(self, training: bool, num_test_clips: int) -> Sampling:
        """The sampling of the training, or of the test with so many clips per video.

        Raises:
            ActcliError: The original has no such test.
        """
        if training:
            return self.train
        if self.any_test is not None:
            return self.any_test(num_test_clips)
        if num_test_clips not in self.tests:
            allowed = " or ".join(str(count) for count in self.tests)
            raise ActcliError(
                f"{self.name} tests with {allowed} clips, not {num_test_clips}. Use one of these, or "
                "sampling segments (--sampling segments)."
            )
        return self.tests[num_test_clips]


@dataclass(frozen=True)
class Original:
    """One code base."""

    name: str
    """As in the names of its samplings, and after ``views``."""
    families: tuple[Family, ...]
    """Its samplings in training and test."""
    modes: tuple[Sampling, ...]
    """Every single sampling that can be asked for by its own name."""
    rule: ViewRule
    """How it resizes and crops."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    """What its training changes at random."""
    frames_only: bool = False
    """Whether its samplings say nothing of crops: a test by one of them keeps the rule of the training."""
