"""Models for other programs: ONNX and ``torch.export``, with class names and input specification inside."""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from actcli.errors import ActcliError
from actcli.files import written_whole
from actcli.models import VideoModel, load_weights
from actcli.models.profile import example_inputs

Format = Literal["onnx", "torch"]
METADATA_KEY = "actcli"
"""Key of the JSON text in the metadata of an exported model."""
TOLERANCE = 1e-3
"""Largest difference from our scores, as a share of the largest score; another order of sums costs about 1e-5."""
_CHECKED_BATCHES = (1, 3)
_INSTALL = "pip install 'actcli[export]'"


@dataclass(frozen=True)
class Exported:
    """A model that was exported."""

    path: Path
    """The file."""
    input_shapes: tuple[tuple[str | int, ...], ...]
    """Shape of each input; the first dimension is free."""
    difference: float
    """Largest difference from our scores on random clips, as a share of the largest score."""


def export_model(weights: Path, path: Path, form: Format = "onnx", size: int | None = None) -> Exported:
    """Write a model with its plain operators, free batch size, and compare its scores with ours.

    Args:
        weights: Safetensors file of actcli.
        path: File to write.
        form: ``onnx`` (read by onnxruntime and many others) or ``torch`` (read by ``torch.export.load``).
        size: Side of the frames in pixels; that of the training unless given.

    Raises:
        ActcliError: A package is missing, the model cannot be exported, or its scores differ from ours.
    """
    if form not in get_args(Format):
        raise ActcliError(f"form is {form!r}; allowed are: {', '.join(get_args(Format))}.")
    if path.exists() and path.samefile(weights):
        raise ActcliError(f"{path} holds the weights themselves. Name another file with --out.")
    model, metadata = load_weights(weights)
    model.eval()
    side = size or metadata.get("size") or model.input_spec.size
    inputs = _random_inputs(model, side, batch_size=2)
    try:
        with _quiet():
            free = [{0: torch.export.Dim("batch")} for _ in inputs]
            program = torch.export.export(model, inputs, dynamic_shapes=free)
    except Exception as error:  # the exporter raises whatever its stages raise
        raise ActcliError(f"{model.config['name']} cannot be exported at {side} px: {_first_line(error)}") from error
    described = json.dumps(describe(model, metadata, side), ensure_ascii=False)
    write, run = (_write_onnx, _run_onnx) if form == "onnx" else (_write_torch, _run_torch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial, _quiet():
            write(program, inputs, described, partial)
            difference = _difference(model, side, lambda clips: run(partial, clips))
    except ActcliError:
        raise
    except OSError as error:
        raise ActcliError(f"{path} cannot be written ({error.strerror or error}).") from error
    except Exception as error:  # as above
        raise ActcliError(f"{model.config['name']} cannot be written as {form}: {_first_line(error)}") from error
    shapes = tuple(("batch", *tensor.shape[1:]) for tensor in inputs)
    return Exported(path, shapes, difference)


def describe(model: VideoModel, metadata: dict[str, Any], size: int) -> dict[str, Any]:
    """What a program needs to feed the model and read its scores, as plain data."""
    return {
        "model": dict(model.config),
        "classes": metadata.get("classes"),
        "input": {**asdict(model.input_spec), "size": size, "num_frames": model.num_frames, "layout": "B T C H W"},
        "sampling": metadata.get("sampling"),
        "test": metadata.get("test"),
        "output": "logits, one row per clip",
    }


def _random_inputs(model: VideoModel, size: int, batch_size: int) -> tuple[Tensor, ...]:
    torch.manual_seed(batch_size)
    return example_inputs(model, batch_size=batch_size, size=size)


def _difference(model: VideoModel, size: int, run: Any) -> float:
    largest = 0.0
    for batch_size in _CHECKED_BATCHES:
        inputs = _random_inputs(model, size, batch_size)
        with torch.inference_mode():
            expected = model(*inputs).numpy()
        found = run(inputs)
        largest = max(largest, float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-12)))
    if not largest <= TOLERANCE:
        raise ActcliError(
            f"the exported model's scores differ from ours by {largest:.1e} of the largest, more than {TOLERANCE:g}; "
            f"it was not kept."
        )
    return largest


def _write_onnx(program: Any, inputs: Sequence[Tensor], described: str, path: Path) -> None:
    try:
        import onnxruntime  # noqa: F401 (its absence is better known before the work than after)
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ActcliError(f"ONNX needs a package that is not installed ({error.name}): {_INSTALL}") from error
    names = ["clip"] if len(inputs) == 1 else ["rgb", "flow"]
    made = torch.onnx.export(program, (), dynamo=True, input_names=names, output_names=["logits"], verbose=False)
    assert made is not None
    made.model.metadata_props[METADATA_KEY] = described
    made.save(str(path), external_data=False)


def _run_onnx(path: Path, inputs: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {given.name: tensor.numpy() for given, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return np.asarray(session.run(None, feed)[0])


def _write_torch(program: Any, inputs: Sequence[Tensor], described: str, path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA_KEY: described})


def _run_torch(path: Path, inputs: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    with path.open("rb") as file, torch.inference_mode():
        scores: Tensor = torch.export.load(file).module()(*inputs)
    return scores.numpy()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own talk off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
