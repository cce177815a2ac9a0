"""The state of a training, written so that it is either whole or absent, and read only if nothing in it changed."""

import pickle
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from actcli.errors import ActcliError
from actcli.files import open_regular, written_whole

CHECKPOINT_VERSION = 2


def save_checkpoint(path: Path, state: Mapping[str, object]) -> None:
    """Write tensors and plain data; a crash while writing leaves the file that was there.

    Raises:
        ActcliError: The disk is full or cannot be written to; the checkpoint before is whole.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial, partial.open("wb") as file:
            _save({"version": CHECKPOINT_VERSION, **state}, file)
    except OSError as error:
        kept = "The one before it is whole" if path.exists() else "There is none yet"
        raise ActcliError(
            f"the checkpoint {path} cannot be written ({error.strerror or error}). {kept}; make room, then continue "
            f"with: actcli train --resume --run-dir {path.parent.parent}"
        ) from error


def _save(state: Mapping[str, object], file: BinaryIO) -> None:
    try:
        torch.save(state, file)
    except RuntimeError as error:  # torch's complaint about an unfinished file; what stopped it comes before
        raise error.__context__ or error from None


def load_checkpoint(path: Path) -> dict[str, object]:
    """Read a checkpoint; it can hold tensors and plain data only, so nothing in it can run.

    Raises:
        ActcliError: No such file, a damaged one (every byte is compared with its CRC-32), or one of another version.
    """
    try:
        with open_regular(path) as file:
            with zipfile.ZipFile(file) as archive:
                damaged = archive.testzip()
            if damaged is not None:
                raise ActcliError(f"{path} is damaged (in {damaged}). Start the training anew, or restore the file.")
            file.seek(0)
            state = torch.load(file, map_location="cpu", weights_only=True)
        version = state["version"]
    except FileNotFoundError as error:
        raise ActcliError(f"{path} does not exist: the run was stopped before its first checkpoint.") from error
    except ActcliError:
        raise
    except (
        pickle.UnpicklingError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, KeyError,
        TypeError, AttributeError, OSError,
    ) as error:  # fmt: skip
        raise ActcliError(f"{path} is no checkpoint of actcli, or is damaged ({type(error).__name__}).") from error
    if version != CHECKPOINT_VERSION:
        raise ActcliError(
            f"{path} has version {version}, this actcli reads {CHECKPOINT_VERSION}. Continue it with the actcli that "
            "wrote it, or start a new run."
        )
    return {sys.intern(name): _interned(value) for name, value in state.items()}


def _interned(value: object) -> object:
    """The same with names that are the program's own strings.

    A pickle writes a string once and refers to it afterwards, so that the next checkpoint has the very bytes of an
    undisturbed run's only if equal names are one object.
    """
    if isinstance(value, dict):
        items = ((sys.intern(key) if type(key) is str else key, _interned(item)) for key, item in value.items())
        return type(value)(items)
    return list(map(_interned, value)) if type(value) is list else value
