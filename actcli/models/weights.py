"""Weights on disk: ours as safetensors with metadata and a checksum over both."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from actcli.errors import ActcliError
from actcli.files import written_whole
from actcli.models.base import VideoModel
from actcli.models.factory import create_model

FORMAT = "actcli-weights-2"
"""2: with a checksum."""
_OLD_FORMATS = ("actcli-weights-1",)


def save_weights(model: VideoModel, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the weights of ``model`` and all that is needed to use them.

    Args:
        model: Made by :func:`create_model`.
        path: File to write; it appears only when complete, in a folder that is made where it is missing.
        metadata: Plain data to keep beside the weights: ``classes``, ``sampling`` and ``size`` of the training,
            ``test`` (the published test), ``source``, ``licence``. The model's configuration, number of frames and
            input (mean, std, size) are added.

    Raises:
        ActcliError: The file cannot be written; what stood at ``path`` is whole.
    """
    path = Path(path)
    described = {
        "classes": None,
        "sampling": None,
        "source": None,
        "licence": None,
        **(metadata or {}),
        "model": dict(model.config),
        "num_frames": model.num_frames,
        "input_spec": asdict(model.input_spec),
    }
    text = json.dumps(described)
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    header = {"format": FORMAT, "actcli": text, "sha256": _digest(text, tensors)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial:
            partial.touch()  # with the rights that files of this user get; safetensors alone would make it private
            mode = partial.stat().st_mode
            save_file(tensors, partial, header)
            partial.chmod(mode)
    except (OSError, SafetensorError) as error:
        raise ActcliError(f"the weights {path} cannot be written ({error}).") from error


def load_weights(path: str | Path) -> tuple[VideoModel, dict[str, Any]]:
    """The model that :func:`save_weights` wrote, and its metadata.

    Raises:
        ActcliError: No such file, not one of ours, or one that was changed since it was written.
    """
    header, tensors = _read(path)
    if header.get("format") in _OLD_FORMATS:
        raise ActcliError(f"{path} was written by an older actcli, without a checksum. Import or train it again.")
    if header.get("format") != FORMAT:
        raise ActcliError(f"{path} holds tensors but no actcli model. Checkpoints of original code: actcli import.")
    text = header.get("actcli", "")
    if header.get("sha256") != _digest(text, tensors):
        raise ActcliError(f"{path} was changed since it was written, or is damaged. Restore it, or train it again.")
    try:
        metadata: dict[str, Any] = json.loads(text)
        model = _fill(metadata["model"], tensors)
        _check_facts(metadata, int(model.config["num_classes"]))
        return model, metadata
    except ActcliError as error:
        raise ActcliError(f"{path} holds a model that cannot be made: {error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise ActcliError(f"{path} describes no model of actcli ({error}).") from error


def _check_facts(metadata: Mapping[str, Any], num_classes: int) -> None:
    classes, extraction, size = (metadata.get(name) for name in ("classes", "extraction", "size"))
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not (is_list and len(classes) == num_classes):
        raise ValueError(f"classes is no list of {num_classes} names")
    if extraction is not None and not isinstance(extraction, dict):
        raise ValueError("extraction is no table of settings")
    if size is not None and not (isinstance(size, int) and 1 <= size <= 4096):
        raise ValueError("size is no number of pixels")


def _read(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    if not Path(path).is_file():
        raise ActcliError(f"there are no weights at {path}.")
    try:
        with safe_open(str(path), framework="pt") as file:
            header = dict(file.metadata() or {})
            return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ActcliError(f"{path} is no safetensors file, or is cut short ({error}).") from error


def _fill(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> VideoModel:
    """The model of ``config`` with ``tensors``; its shapes are compared before any memory is taken."""
    with torch.device("meta"):
        expected = {name: value.shape for name, value in create_model(**config).state_dict().items()}
    other = [name for name in expected.keys() | tensors.keys() if expected.get(name) != _shape(tensors.get(name))]
    if other:
        raise ActcliError(f"{len(other)} tensors do not fit it, such as {min(other)}.")
    model = create_model(**config)
    model.load_state_dict(tensors)
    return model


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """sha256 over the metadata and over name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
