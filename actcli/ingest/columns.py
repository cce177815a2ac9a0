"""Columns of a table from lists of values.

``pa.array`` makes them too, but first imports pandas, if it is installed, to see whether a value is one of its own.
"""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actcli.errors import ActcliError


def make_column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """The values as an array of that type, of which none but structs may be missing.

    Args:
        values: Texts, truths, numbers, mappings of texts, arrays of numbers, or structs as ``pa.array`` takes them.
        kind: Type of the column.
    """
    if pa.types.is_string(kind):
        texts = [text.encode() for text in values]
        return _array(kind, len(texts), _borders(texts), b"".join(texts))
    if pa.types.is_boolean(kind):
        return _array(kind, len(values), np.packbits(np.array(values, bool), bitorder="little"))
    if pa.types.is_map(kind):
        pairs = [pair for mapping in values for pair in sorted(mapping.items())]
        keys, items = ([pair[place] for pair in pairs] for place in (0, 1))
        borders = _array(pa.int32(), len(values) + 1, _borders(values))
        return pa.MapArray.from_arrays(borders, make_column(keys, kind.key_type), make_column(items, kind.item_type))
    if pa.types.is_list(kind):
        numbers = np.concatenate(values).astype(kind.value_type.to_pandas_dtype())
        borders = _array(pa.int32(), len(values) + 1, _borders(values))
        return pa.ListArray.from_arrays(borders, _array(kind.value_type, len(numbers), numbers))
    if pa.types.is_struct(kind):
        return pa.nulls(len(values), kind) if all(value is None for value in values) else pa.array(values, kind)
    return _array(kind, len(values), np.array(values, kind.to_pandas_dtype()))


def _array(kind: pa.DataType, length: int, *buffers: bytes | NDArray[np.generic]) -> pa.Array:
    return pa.Array.from_buffers(kind, length, [None, *map(pa.py_buffer, buffers)])


def _borders(rows: Sequence[Sized]) -> NDArray[np.int32]:
    """Where each row begins in what all of them hold, and where the last one ends.

    Raises:
        ActcliError: They hold more than Arrow can count in 32 bits.
    """
    borders = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    if borders[-1] > np.iinfo(np.int32).max:
        raise ActcliError(f"The names of {len(rows)} clips take more than 2 GB. Shorten them in the list.")
    return borders.astype(np.int32)
