"""The published code bases, a file each, and what can be asked for by name.

Whatever a code base does with frames of its own is in its file and in its ``Original``; nothing is chosen by looking
inside a name. Sources are the repositories that the files name, whose behaviour is restated here.
"""

from actcli.errors import ActcliError
from actcli.loaders.originals import gsf, gsm, masnet, ours, stmulnet, tokshift, tsm
from actcli.loaders.originals._original import Family, Original
from actcli.loaders.sampling import Sampling

_ORIGINALS: dict[str, Original] = {}
_OWNERS: dict[str, Original] = {}
"""Name of a family or mode -> the code base that it is of."""
_SAMPLINGS: dict[str, Family | Sampling] = {}


def register_original(original: Original) -> None:
    """Make the samplings of a code base known by their names, and its views by its own.

    Raises:
        ActcliError: A name is taken.
    """
    all_samplings: tuple[Family | Sampling, ...] = (*original.families, *original.modes)
    samplings = {sampling.name: sampling for sampling in all_samplings}
    taken = sorted(samplings.keys() & _SAMPLINGS.keys()) + [original.name] * (original.name in _ORIGINALS)
    if taken:
        raise ActcliError(f"the original {original.name!r} brings names that are taken: {', '.join(taken)}.")
    _ORIGINALS[original.name] = original
    _SAMPLINGS.update(samplings)
    _OWNERS.update(dict.fromkeys(samplings, original))


for _module in (ours, tsm, gsm, gsf, masnet, tokshift, stmulnet):
    register_original(_module.ORIGINAL)


def original_names() -> list[str]:
    """Everything that ``find_original`` understands."""
    return list(_ORIGINALS)


def find_original(name: str) -> Original:
    """The code base called ``name``.

    Raises:
        ActcliError: There is none.
    """
    if name not in original_names():
        raise ActcliError(f"unknown views {name!r}. Choose one of: {', '.join(original_names())}.")
    return _ORIGINALS[name]


def sampling_names() -> list[str]:
    """Everything that ``find_sampling`` understands: our two, the families of the originals, the single modes."""
    families = [name for name, sampling in _SAMPLINGS.items() if isinstance(sampling, Family)]
    return families + [name for name in _SAMPLINGS if name not in families]


def original_of(sampling: str) -> Original:
    """The code base that has the sampling of that name.

    Raises:
        ActcliError: There is no such sampling.
    """
    if sampling not in sampling_names():
        raise ActcliError(f"unknown sampling {sampling!r}. Choose one of: {', '.join(sampling_names())}.")
    return _OWNERS[sampling]


def find_sampling(name: str, training: bool = False, num_test_clips: int = 1) -> Sampling:
    """The sampling called ``name``.

    ``segments`` and ``dense`` take any number of test clips. A family (``tsm``, ``masnet-dense``, …) gives what that
    original does in training or with that many test clips. A full name (``gsf-test-2clip``) is one of its modes.

    Raises:
        ActcliError: The name is unknown, or the original has no test with so many clips.
    """
    original_of(name)  # refuses an unknown one
    sampling = _SAMPLINGS[name]
    if isinstance(sampling, Family):
        return sampling.find(training, num_test_clips)
    if sampling.num_test_clips != num_test_clips:
        raise ActcliError(
            f"{name} gives {sampling.num_test_clips} clips, not {num_test_clips}. "
            f"Use num_test_clips {sampling.num_test_clips} (--clips)."
        )
    return sampling


def find_stand_in(name: str) -> str:
    """Which of our own samplings is of the same kind as the one called ``name``: ``segments`` or ``dense``.

    Raises:
        ActcliError: There is no such sampling.
    """
    original_of(name)  # refuses an unknown one
    return _SAMPLINGS[name].spread


__all__ = [
    "Family",
    "Original",
    "find_original",
    "find_sampling",
    "find_stand_in",
    "original_names",
    "original_of",
    "register_original",
    "sampling_names",
]
