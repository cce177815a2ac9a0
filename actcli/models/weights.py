"""Weights on disk: ours as safetensors with metadata and a checksum over both."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from actcli.errors import ActcliError
from actcli.files import written_whole
from actcli.models.base import VideoModel
from actcli.models.factory import create_from_config

FORMAT = "actcli-weights-2"
"""2: with a checksum."""
_OLD_FORMATS = ("actcli-weights-1",)


class WeightFacts(TypedDict, total=False):
    """What weights say about themselves beside the tensors, as plain data."""

    classes: list[str] | None
    """Names in the order of the logits; None where nobody knows them."""
    sampling: str | None
    """How the training chose frames."""
    size: int | None
    """Side of the training's crop in pixels."""
    test: dict[str, object] | None
    """The published test, a ``Protocol`` of the recipe."""
    dataset: str
    """Dataset of the training."""
    extraction: dict[str, object] | None
    """Settings by which its frames were made."""
    source: str | None
    """Where the weights come from."""
    licence: str | None
    """Their licence."""
    epoch: int
    """Epoch after which they were saved, 0-based."""
    ema: float | None
    """Decay of the average that they are; None where they are the weights themselves."""
    model: dict[str, object]
    """``VideoModel.config``."""
    num_frames: int
    """Frames of a clip."""
    input_spec: dict[str, object]
    """``InputSpec`` of the model."""


def save_weights(model: VideoModel, path: str | Path, metadata: WeightFacts | None = None) -> None:
    """Write the weights of ``model`` and all that is needed to use them.

    Args:
        model: Made by :func:`create_model`.
        path: File to write; it appears only when complete, in a folder that is made where it is missing.
        metadata: What to say of them. The model's configuration, number of frames and input (mean, std, size) are
            added.

    Raises:
        ActcliError: The file cannot be written; what stood at ``path`` is whole.
    """
    path = Path(path)
    described: WeightFacts = {
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


def load_weights(path: str | Path) -> tuple[VideoModel, WeightFacts]:
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
        metadata: WeightFacts = json.loads(text)
        model = _fill(metadata["model"], tensors)
        _check_facts(metadata, model.num_classes)
        return model, metadata
    except ActcliError as error:
        raise ActcliError(f"{path} holds a model that cannot be made: {error}") from error
    except (ValueError, KeyError, TypeError, RuntimeError, RecursionError) as error:
        raise ActcliError(f"{path} describes no model of actcli ({error}).") from error


def _check_facts(metadata: Mapping[str, object], num_classes: int) -> None:
    classes, size = metadata.get("classes"), metadata.get("size")
    is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    if classes is not None and not (is_list and isinstance(classes, list) and len(classes) == num_classes):
        raise ValueError(f"classes is no list of {num_classes} names")
    for name, kind in (("extraction", dict), ("test", dict), ("sampling", str), ("source", str)):
        if metadata.get(name) is not None and not isinstance(metadata[name], kind):
            raise ValueError(f"{name} is {metadata[name]!r}")
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


def _fill(config: Mapping[str, object], tensors: Mapping[str, Tensor]) -> VideoModel:
    """The model of ``config`` with ``tensors``; its shapes are compared before any memory is taken."""
    with torch.device("meta"):
        expected = {name: value.shape for name, value in create_from_config(config).state_dict().items()}
    other = [name for name in expected.keys() | tensors.keys() if expected.get(name) != _shape(tensors.get(name))]
    if other:
        raise ActcliError(f"{len(other)} tensors do not fit it, such as {min(other)}.")
    model = create_from_config(config)
    model.load_state_dict(tensors)
    return model


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """The sha256 over the metadata and over name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
