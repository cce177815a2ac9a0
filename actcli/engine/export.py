"""Models for other programs: ONNX and ``torch.export``, with class names and input specification inside."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Literal, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import ExportedProgram

from actcli.engine.evaluator import published_views
from actcli.engine.inputs import model_inputs
from actcli.engine.protocols import AskedViews
from actcli.errors import ActcliError
from actcli.files import check_target, written_whole
from actcli.loaders import open_loader
from actcli.loaders.plan import Modality
from actcli.models import VideoModel, WeightFacts, load_weights
from actcli.models.profile import example_inputs
from actcli.shards import ShardSet

Format = Literal["onnx", "torch"]
Run = Callable[[Sequence[Tensor]], NDArray[np.floating]]
"""Scores of the inputs by an exported model."""
METADATA_KEY = "actcli"
"""Key of the JSON text in the metadata of an exported model."""
TOLERANCE = 1e-3
"""Largest difference from our scores, as a share of the largest score; another order of sums costs about 1e-5."""
_CHECKED_BATCHES = (1, 3)
_REAL_BATCH, _REAL_BATCHES = 2, 2
_INSTALL = "pip install 'actcli[export]'"


@dataclass(frozen=True)
class Exported:
    """A model that was exported."""

    path: Path
    """The file."""
    input_shapes: tuple[tuple[str | int, ...], ...]
    """Shape of each input; the first dimension is free."""
    difference: float
    """Largest difference from our scores, as a share of the largest score."""
    num_real_clips: int
    """Clips of a dataset on which the scores were compared; those of noise are not counted."""


def export_model(
    weights: Path, path: Path, form: Format = "onnx", size: int | None = None, shards: ShardSet | None = None
) -> Exported:
    """Write a model with its plain operators, free batch size, and compare its scores with ours.

    Scores are compared on noise, and on clips of ``shards`` where they are given.

    Args:
        weights: Safetensors file of actcli.
        path: File to write.
        form: ``onnx`` (read by onnxruntime and many others) or ``torch`` (read by ``torch.export.load``).
        size: Side of the frames in pixels; that of the training unless given.
        shards: Real clips; what they show plays no part, so any dataset with the modality of the model does.

    Raises:
        ActcliError: A package is missing, the model cannot be exported, or its scores differ from ours.
    """
    if form not in get_args(Format):
        raise ActcliError(f"form is {form!r}; allowed are: {', '.join(get_args(Format))}.")
    check_target(path, "--out")  # before the work, which takes a while
    if path.exists() and path.samefile(weights):
        raise ActcliError(f"{path} holds the weights themselves. Name another file with --out.")
    model, facts = load_weights(weights)
    model.eval()
    side = size or facts.get("size") or model.input_spec.size
    inputs = _random_inputs(model, side, batch_size=2)
    real = [] if shards is None else real_inputs(model, side, shards)
    try:
        with _quiet():
            free = [{0: torch.export.Dim("batch")} for _ in inputs]
            program = torch.export.export(model, inputs, dynamic_shapes=free)
    except Exception as error:  # the exporter raises whatever its stages raise
        raise ActcliError(f"{model.config['name']} cannot be exported at {side} px: {_first_line(error)}") from error
    described = json.dumps(describe(model, facts, side), ensure_ascii=False)
    write, read = (_write_onnx, _read_onnx) if form == "onnx" else (_write_torch, _read_torch)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial, _quiet():
            write(program, inputs, described, partial)
            compared = [*(_random_inputs(model, side, number) for number in _CHECKED_BATCHES), *real]
            difference = _difference(model, compared, read(partial))
    except ActcliError:
        raise
    except OSError as error:
        raise ActcliError(f"{path} cannot be written ({error.strerror or error}).") from error
    except Exception as error:  # as above
        raise ActcliError(f"{model.config['name']} cannot be written as {form}: {_first_line(error)}") from error
    shapes = tuple(("batch", *tensor.shape[1:]) for tensor in inputs)
    return Exported(path, shapes, difference, sum(len(clips[0]) for clips in real))


def describe(model: VideoModel, facts: WeightFacts, size: int) -> dict[str, object]:
    """What a program needs to feed the model and read its scores, as plain data."""
    return {
        "model": dict(model.config),
        "classes": facts.get("classes"),
        "input": {
            **asdict(model.input_spec),
            "size": size,
            "scale_size": published_views(AskedViews(clips=1, crops=1, size=size), model, facts).scale_size,
            "num_frames": model.num_frames,
            "layout": "B T C H W",
        },
        "sampling": facts.get("sampling"),
        "test": facts.get("test"),
        "output": "logits, one row per clip",
    }


def _random_inputs(model: VideoModel, size: int, batch_size: int) -> tuple[Tensor, ...]:
    torch.manual_seed(batch_size)
    return example_inputs(model, batch_size=batch_size, size=size)


def real_inputs(model: VideoModel, size: int, shards: ShardSet) -> list[tuple[Tensor, ...]]:
    """Some clips of a dataset as the model sees them in a test: short side to size, middle crop."""
    spec = model.input_spec
    split_id = next(iter(shards.card.split_sets))
    loader = open_loader(
        shards,
        shards.card.evaluation_split(split_id),
        num_frames=model.num_frames,
        size=size,
        scale_size=size,
        batch_size=_REAL_BATCH,
        workers=0,
        split_id=split_id,
        training=False,
        modality=cast(Modality, spec.modality),
        flow_stack=spec.flow_stack or None,
    )
    with loader:
        return [model_inputs(batch, spec) for batch in islice(loader, _REAL_BATCHES)]


def _difference(model: VideoModel, compared: Sequence[tuple[Tensor, ...]], run: Run) -> float:
    largest = 0.0
    for inputs in compared:
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


def _write_onnx(program: ExportedProgram, inputs: Sequence[Tensor], described: str, path: Path) -> None:
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


def _read_onnx(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(inputs: Sequence[Tensor]) -> NDArray[np.floating]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, inputs, strict=True)}
        return np.asarray(session.run(None, feed)[0])

    return run


def _write_torch(program: ExportedProgram, inputs: Sequence[Tensor], described: str, path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA_KEY: described})


def _read_torch(path: Path) -> Run:
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def run(inputs: Sequence[Tensor]) -> NDArray[np.floating]:
        with torch.inference_mode():
            scores: Tensor = module(*inputs)
        return scores.numpy()

    return run


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
