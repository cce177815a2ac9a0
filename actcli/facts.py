"""Facts in JSON: what is read is of the type that its field has, or it is refused."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import numpy as np
from numpy.typing import NDArray

Sizes = NDArray[np.uint16 | np.uint32]
"""Bytes, or CRC-32, of each JPEG of a clip."""

Places = NDArray[np.uint32]
"""Positions in a list, from 0."""

Gaps = NDArray[np.int32]
"""Distances in bytes, with a sign."""

Times = NDArray[np.int64]
"""Microseconds."""

Reader = Callable[[str, object], object]
"""Checks the value of a named field."""

NO_SIZES: Sizes = np.zeros(0, np.uint32)
NO_PLACES: Places = np.zeros(0, np.uint32)
NO_GAPS: Gaps = np.zeros(0, np.int32)
NO_TIMES: Times = np.zeros(0, np.int64)
_LARGEST = int(np.iinfo(np.uint32).max)
_LARGEST_GAP = int(np.iinfo(np.int32).max)
_LARGEST_TIME = 1 << 62


def plain(value: object) -> object:
    """A fact as ``json`` writes it; tables are sorted by name."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if is_dataclass(value):
        return {fact.name: plain(getattr(value, fact.name)) for fact in fields(value)}
    return dict(sorted(value.items())) if isinstance(value, Mapping) else value


def read_facts(kind: type, value: Mapping[str, object], names: tuple[str, ...]) -> dict[str, Any]:
    """The fields ``names`` of the dataclass ``kind`` from JSON, to make one with; those with a default may be absent.

    Raises:
        ValueError: A field is absent, or not of its type.
    """
    readers, needed = _readers(kind, names)
    if not needed <= value.keys():
        raise ValueError(f"it has no {', '.join(name for name in names if name in needed - value.keys())}")
    return {name: readers[name](name, fact) for name, fact in value.items() if name in readers}


@cache
def _readers(kind: type, names: tuple[str, ...]) -> tuple[dict[str, Reader], frozenset[str]]:
    """What reads each of some fields of a dataclass, and those of them that have no default."""
    facts = [fact for fact in fields(kind) if fact.name in names]
    needed = [fact.name for fact in facts if fact.default is MISSING and fact.default_factory is MISSING]
    return {fact.name: _reader(fact.type) for fact in facts}, frozenset(needed)


def _reader(kind: object) -> Reader:
    if NoneType in get_args(kind):
        return _optional(_reader(next(one for one in get_args(kind) if one is not NoneType)))
    if isinstance(kind, type) and is_dataclass(kind):
        return _nested(kind)
    if get_origin(kind) is not Literal:
        return _READERS[kind]
    words = frozenset(get_args(kind))

    def word(name: str, value: object) -> object:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"its {name} is {value!r}")
        return value

    return word


def _optional(reader: Reader) -> Reader:
    return lambda name, value: None if value is None else reader(name, value)


def _nested(kind: type) -> Reader:
    """What reads facts among facts."""
    names = tuple(fact.name for fact in fields(kind))

    def facts(name: str, value: object) -> object:
        if not isinstance(value, dict):
            raise ValueError(f"its {name} is {value!r}")
        return kind(**read_facts(kind, value, names))

    return facts


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"its {name} is {value!r}")
    if not value.isascii():
        value.encode()  # half a surrogate pair, which JSON can spell, raises ValueError
    return value


def _count(name: str, value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"its {name} is {value!r}")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float):
        raise ValueError(f"its {name} is {value!r}")
    return value


def _optional_number(name: str, value: object) -> float | None:
    return None if value is None else _number(name, value)


def _truth(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"its {name} is {value!r}")
    return value


def _texts(name: str, value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ValueError(f"its {name} are {value!r}")
    return value


def _sizes(name: str, value: object) -> Sizes:
    return _numbers(name, value, 1, _LARGEST).astype(np.uint32)


def _places(name: str, value: object) -> Places:
    return _numbers(name, value, 0, _LARGEST).astype(np.uint32)


def _gaps(name: str, value: object) -> Gaps:
    return _numbers(name, value, -_LARGEST_GAP, _LARGEST_GAP).astype(np.int32)


def _times(name: str, value: object) -> Times:
    return _numbers(name, value, -_LARGEST_TIME, _LARGEST_TIME)


def _numbers(name: str, value: object, least: int, most: int) -> NDArray[np.int64]:
    is_list = isinstance(value, list) and set(map(type, value)) <= {int}
    if not isinstance(value, list) or not is_list or (value and not least <= min(value) <= max(value) <= most):
        raise ValueError(f"its {name.replace('_', ' ')} are no list of counts")
    return np.array(value, np.int64)


_READERS: dict[object, Reader] = {
    str: _text,
    int: _count,
    float: _number,
    float | None: _optional_number,
    bool: _truth,
    Mapping[str, str]: _texts,
    Sizes: _sizes,
    Places: _places,
    Gaps: _gaps,
    Times: _times,
}
"""What reads a field of each type."""
