"""Checkpoints of original code, read without trusting them."""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from actcli.errors import ActcliError

_STATE_DICT_KEYS = ("state_dict", "model_state", "model_state_dict", "model", "net")
_NUMPY_SCALAR = cast(Callable[..., object], np.float64(0).__reduce__()[0])
_HARMLESS: list[Callable[..., object] | tuple[Callable[..., object], str]] = [
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]
"""Best scores are often stored as numpy scalars."""


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a ``.pth`` or ``.pth.tar``, whatever surrounds it; no code in the file is run."""
    path = Path(path)
    _check_is_checkpoint(path)
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle protocol of other writers
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "nsupported" in str(error) or "GLOBAL" in str(error):
            raise ActcliError(
                f"{path} holds more than tensors and plain data, and could run code when loaded; it was not opened. "
                "Get the checkpoint from its authors, or save its state_dict alone."
            ) from error
        raise _damaged(path) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise _damaged(path) from error
    state_dict = _find_state_dict(content)
    if state_dict is None:
        raise ActcliError(f"{path} can be read but holds no state dict (names with tensors).")
    return state_dict


def _check_is_checkpoint(path: Path) -> None:
    if not path.is_file():
        raise ActcliError(f"there is no checkpoint at {path}.")
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise _damaged(path)
    if not start.startswith((b"PK", b"\x80")):
        raise ActcliError(f"{path} is no PyTorch checkpoint (.pth, .pth.tar): it is neither a zip file nor a pickle.")


def _damaged(path: Path) -> ActcliError:
    return ActcliError(f"{path} is cut short or damaged ({path.stat().st_size} bytes). Download it again.")


def _find_state_dict(content: object) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    for key in _STATE_DICT_KEYS:
        if (found := _find_state_dict(content.get(key))) is not None:
            return found
    return None
