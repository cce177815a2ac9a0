"""Weights on disk: ours as safetensors with metadata."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from actcli.errors import ActcliError
from actcli.models.base import VideoModel
from actcli.models.registry import create_model

FORMAT = "actcli-weights-1"


def save_weights(model: VideoModel, path: str | Path, metadata: Mapping[str, Any] | None = None) -> None:
    """Write the weights of ``model`` and all that is needed to use them.

    Args:
        model: Made by :func:`create_model`.
        path: File to write; it appears only when complete.
        metadata: Plain data to keep beside the weights: ``classes``, ``sampling``, ``source``, ``licence``. The model's
            configuration, number of frames and input (mean, std, size) are added.
    """
    path = Path(path)
    described = {
        "classes": None,
        "sampling": None,
        "source": None,
        "licence": None,
        **(metadata or {}),
        "model": model.config,
        "num_frames": model.num_frames,
        "input_spec": asdict(model.input_spec),
    }
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, {"format": FORMAT, "actcli": json.dumps(described)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_weights(path: str | Path) -> tuple[VideoModel, dict[str, Any]]:
    """The model that :func:`save_weights` wrote, and its metadata.

    Raises:
        ActcliError: no such file, or not one of ours.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError:
        raise ActcliError(f"there are no weights at {path}.") from None
    except (SafetensorError, OSError) as error:
        raise ActcliError(f"{path} is no safetensors file, or is cut short ({error}).") from error
    if header.get("format") != FORMAT:
        raise ActcliError(f"{path} holds tensors but no actcli model. Checkpoints of original code: actcli import.")
    metadata: dict[str, Any] = json.loads(header["actcli"])
    model = create_model(**metadata["model"])
    model.load_state_dict(tensors)
    return model, metadata
