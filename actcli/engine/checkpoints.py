"""The state of a training, written so that it is either whole or absent."""

import os
import pickle
from pathlib import Path
from typing import Any, BinaryIO

import torch

from actcli.errors import ActcliError

CHECKPOINT_VERSION = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain data; a crash while writing leaves the file that was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    with partial.open("wb") as file:
        _save({"version": CHECKPOINT_VERSION, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch's complaint about an unfinished file; what stopped it comes before
        raise error.__context__ or error from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; it can hold tensors and plain data only, so nothing in it can run.

    Raises:
        ActcliError: No such file, a damaged one, or one of another version.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        version = state["version"]
    except FileNotFoundError as error:
        raise ActcliError(f"{path} does not exist: the run was stopped before its first checkpoint.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, OSError) as error:
        raise ActcliError(f"{path} is no checkpoint of actcli, or is damaged ({type(error).__name__}).") from error
    if version != CHECKPOINT_VERSION:
        raise ActcliError(f"{path} has version {version}, this actcli reads {CHECKPOINT_VERSION}.")
    return state
