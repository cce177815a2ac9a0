"""How a model is tested: what was asked for, filled up with its published test."""

from collections.abc import Callable
from dataclasses import dataclass

from actcli.engine.recipes import Protocol
from actcli.errors import ActcliError
from actcli.loaders.originals import find_original, find_sampling, find_stand_in, original_of

_MOST_CLIPS = 100
"""Published tests take 10 at most."""
_MOST_PIXELS = 4096


@dataclass(frozen=True)
class TestViews:
    """A test with nothing left open."""

    __test__ = False  # no class of tests

    clips: int
    """Clips per video."""
    crops: int
    """Crops per clip."""
    size: int
    """Side of the crop in pixels."""
    scale_size: int
    """Short side that frames are resized to before the crop."""
    sampling: str
    """How frames are chosen."""
    views: str
    """The code base that resizes and crops so."""

    @property
    def num_views(self) -> int:
        """Views per video."""
        return self.clips * self.crops

    def name(self) -> str:
        """``2x3-256of256-tsm``: everything that tells two tests of a model apart.

        Where the crops are not those that the sampling brings, theirs are named too: ``3x1-224of224-dense-tokshift``.
        """
        name = f"{self.clips}x{self.crops}-{self.size}of{self.scale_size}-{self.sampling}"
        return f"{name}-{self.views}" if self._has_other_crops() else name

    def _has_other_crops(self) -> bool:
        return original_of(self.sampling).rule != find_original(self.views).rule

    def in_words(self, num_frames: int) -> str:
        """The test in a sentence."""
        return (
            f"{self.clips} clip(s) x {self.crops} crop(s) of {self.size} px from short side {self.scale_size}, "
            f"{num_frames} frames per clip, sampling {self.sampling!r}, "
            f"{f'crops of {self.views!r}, ' if self._has_other_crops() else ''}mean of logits over views"
        )


@dataclass(frozen=True)
class AskedViews:
    """What the user wants of a test; whatever is None follows the published test."""

    clips: int | None = None
    """Clips per video."""
    crops: int | None = None
    """Crops per clip: 1, 3, 5 or 10."""
    size: int | None = None
    """Side of the crop in pixels."""
    scale_size: int | None = None
    """Short side before the crop."""
    sampling: str | None = None
    """How frames are chosen."""

    def __post_init__(self) -> None:
        """Refuse what no test has."""
        if self.crops not in (None, 1, 3, 5, 10):
            raise ActcliError(f"crops is {self.crops}; allowed are: 1, 3, 5, 10.")
        for name, value, least, most in (
            ("clips", self.clips, 1, _MOST_CLIPS),
            ("size", self.size, 16, _MOST_PIXELS),
            ("scale_size", self.scale_size, 16, _MOST_PIXELS),
        ):
            if value is not None and not least <= value <= most:
                raise ActcliError(f"{name} is {value}; it has to be at least {least} and at most {most}.")


def choose_views(
    asked: AskedViews,
    published: Protocol,
    *,
    training_size: int,
    trained_with: str,
    note: Callable[[str], None] = lambda _: None,
) -> TestViews:
    """Fill ``asked`` up: with the published test where it is that test, else with what the model was trained with.

    Resizing and crops are those of the code base whose sampling is taken. Our own samplings choose frames only: with
    them, resizing and crops stay those of the training.

    Args:
        asked: What the user said.
        published: The test of the recipe or of the original code.
        training_size: Side of the training crop in pixels.
        trained_with: Sampling of the training.
        note: Told where the original defines no such test.

    Raises:
        ActcliError: There is no such sampling.
    """
    crops = asked.crops or published.crops
    clips = asked.clips or published.clips
    published_box = asked.size is None and asked.scale_size is None and crops == published.crops
    size = asked.size or (published.size if crops == published.crops else None) or training_size
    sampling = asked.sampling or (published.sampling if clips == published.clips else None)
    sampling = sampling or defined_sampling(trained_with, clips, note)
    find_sampling(sampling, training=False, num_test_clips=clips)  # refuses what the original has not
    original = original_of(sampling)
    if original.frames_only:
        original = original_of(trained_with)
    scale_size = asked.scale_size or (published.scale_size if published_box else None)
    scale_size = scale_size or original.rule.test_scale_size(size, training_size)
    return TestViews(clips, crops, size, scale_size, sampling, original.name)


def defined_sampling(trained_with: str, num_test_clips: int, note: Callable[[str], None] = lambda _: None) -> str:
    """The sampling of the training where its original defines a test with so many clips, else one of ours.

    The originals define their tests for some numbers of clips only. For any other number our own sampling of the same
    kind (spread over the video, or a dense window) takes over, and ``note`` is told.
    """
    try:
        find_sampling(trained_with, training=False, num_test_clips=num_test_clips)
    except ActcliError:
        ours = find_stand_in(trained_with)  # refuses an unknown sampling
        note(
            f"{trained_with} defines no test with {num_test_clips} clips; using the sampling {ours!r} instead, with "
            f"the crops of {original_of(trained_with).name!r}"
        )
        return ours
    return trained_with
