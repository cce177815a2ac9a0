"""Checkpoints of original code, read without trusting them."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actcli.errors import ActcliError
from actcli.models.base import VideoModel
from actcli.models.registry import convert_upstream
from actcli.models.stmulnet import read_matconvnet

_STATE_DICT_KEYS = ("state_dict", "model_state", "model_state_dict", "model", "net")
_NUMPY_SCALAR = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8")),
]
"""Best scores are often stored as numpy scalars."""


@dataclass(frozen=True)
class ImportReport:
    """How a foreign checkpoint fitted a model; names are ours."""

    loaded: int
    """Number of tensors taken over."""
    missing: tuple[str, ...]
    """Tensors of the model that the checkpoint does not have."""
    unexpected: tuple[str, ...]
    """Tensors of the checkpoint that the model does not have."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Tensors of another shape: name, shape in the checkpoint, shape in the model."""

    @property
    def complete(self) -> bool:
        """Whether everything fitted."""
        return not (self.missing or self.unexpected or self.mismatched)

    def rows(self) -> list[tuple[str, str, str]]:
        """The problems as a table: kind, name, shapes."""
        return [
            *(("missing", name, "") for name in self.missing),
            *(("unexpected", name, "") for name in self.unexpected),
            *(("shape", name, f"{list(found)} found, {list(own)} wanted") for name, found, own in self.mismatched),
        ]


class IncompleteImport(ActcliError):
    """A checkpoint that does not fit; ``report`` says where."""

    def __init__(self, path: str | Path, report: ImportReport) -> None:
        self.report = report
        classes = [found[0] for name, found, _ in report.mismatched if "classifier" in name or ".head." in name]
        hint = f"It has {classes[0]} classes (--num-classes {classes[0]}). " if classes else ""
        super().__init__(
            f"{path} does not fit the model: {len(report.missing)} tensors missing, {len(report.unexpected)} "
            f"unexpected, {len(report.mismatched)} of another shape. {hint}Check --from, --model and --set, or take "
            "what fits with --allow-partial."
        )


def import_checkpoint(path: str | Path, source: str, model: VideoModel, allow_partial: bool = False) -> ImportReport:
    """Fill ``model`` from a checkpoint of original code; all of it or, with ``allow_partial``, what fits.

    Args:
        path: ``.pth``, ``.pth.tar``, or for ``stmulnet`` a MatConvNet ``.mat`` (which fills one of the two streams).
        source: As for :func:`convert_upstream`.
        model: Made with the checkpoint's options; unchanged when this function raises.
        allow_partial: Leave what is missing or of another shape as it is in the model.

    Raises:
        IncompleteImport: the checkpoint does not fit.
        ActcliError: the file is damaged, is no checkpoint, or would run code.
    """
    own = dict(model.state_dict())
    if is_matconvnet(path):
        converted = read_matconvnet(path)
        stream = next(iter(converted)).split(".")[0]
        wanted = {name for name in own if name.startswith(stream) and "before_conv3" not in name}
    else:
        hints = {"image_size": model.config["image_size"]} if source == "tokshift" else {}
        converted = convert_upstream(source, read_checkpoint(path), **hints)
        wanted = set(own)
    report = _compare(converted, own, wanted)
    if not report.complete and not allow_partial:
        raise IncompleteImport(path, report)
    fitting = {name: value for name, value in converted.items() if name in own and value.shape == own[name].shape}
    if not fitting:
        raise ActcliError(f"nothing in {path} fits the model. Is it a checkpoint of {source}?")
    model.load_state_dict(fitting, strict=False)
    return report


def _compare(converted: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: set[str]) -> ImportReport:
    common = [name for name in converted if name in own]
    mismatched = [
        (name, tuple(converted[name].shape), tuple(own[name].shape))
        for name in common
        if converted[name].shape != own[name].shape
    ]
    # checkpoints older than PyTorch 0.4.1 do not count batches, and nothing depends on it
    missing = [name for name in own if name in wanted and name not in converted and "num_batches" not in name]
    return ImportReport(
        loaded=len(common) - len(mismatched),
        missing=tuple(missing),
        unexpected=tuple(name for name in converted if name not in own),
        mismatched=tuple(mismatched),
    )


def is_matconvnet(path: str | Path) -> bool:
    """Whether a checkpoint is a MatConvNet file, by its name."""
    return str(path).endswith(".mat")


def checkpoint_num_classes(path: str | Path, source: str) -> int:
    """Number of classes that a checkpoint of original code was trained with."""
    converted = read_matconvnet(path) if is_matconvnet(path) else convert_upstream(source, read_checkpoint(path))
    for name, value in converted.items():
        if name.endswith(("classifier.bias", "backbone.head.bias")):
            return len(value)
    raise ActcliError(f"{path} has no classifier; give the number of classes with --num-classes.")


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


def _find_state_dict(content: Any) -> dict[str, Tensor] | None:
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    for key in _STATE_DICT_KEYS:
        if (found := _find_state_dict(content.get(key))) is not None:
            return found
    return None
