"""The list of models: make one by name, list them, translate the weights of original code."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from actcli.errors import ActcliError
from actcli.models.base import VideoModel

ModelFunction = Callable[..., VideoModel]
StateDict = Mapping[str, Tensor]
Converter = Callable[..., dict[str, Tensor]]


@dataclass(frozen=True)
class Published:
    """One published result."""

    dataset: str
    """Name of the dataset, as ``actcli datasets`` spells it."""
    setting: str
    """Backbone, frames and views, in words."""
    top1: float
    """Top-1 accuracy in per cent."""
    source: str
    """Where the number stands."""


@dataclass(frozen=True)
class ModelInfo:
    """What there is to know about a model before making one."""

    name: str
    summary: str
    backbones: tuple[str, ...]
    modality: str
    options: dict[str, object]
    """Options of :func:`create_model` beside the class count, with their defaults."""
    published: tuple[Published, ...]
    source: str | None
    """Original code whose checkpoints :func:`convert_upstream` translates; None where none is public."""


@dataclass(frozen=True)
class Entry:
    """A registered model."""

    function: ModelFunction
    """What makes it."""
    info: ModelInfo
    """What is told about it."""


_MODELS: dict[str, Entry] = {}
_CONVERTERS: dict[str, Converter] = {}


def register(
    *, backbones: Iterable[str], source: str | None, published: Iterable[Published] = (), modality: str = "rgb"
) -> Callable[[ModelFunction], ModelFunction]:
    """Make the decorated function a model: its name is the model's, its keyword arguments are the options."""

    def decorate(function: ModelFunction) -> ModelFunction:
        options = {
            name: parameter.default
            for name, parameter in inspect.signature(function).parameters.items()
            if name != "num_classes"
        }
        summary = inspect.cleandoc(function.__doc__ or "").split("\n", 1)[0]
        info = ModelInfo(function.__name__, summary, tuple(backbones), modality, options, tuple(published), source)
        _MODELS[info.name] = Entry(function, info)
        return function

    return decorate


def upstream(source: str) -> Callable[[Converter], Converter]:
    """Make the decorated function the importer of checkpoints of the original code ``source``."""

    def decorate(function: Converter) -> Converter:
        _CONVERTERS[source] = function
        return function

    return decorate


def list_models() -> list[ModelInfo]:
    """All models, by name."""
    return [_MODELS[name].info for name in sorted(_MODELS)]


def convert_upstream(source: str, state_dict: StateDict, **hints: object) -> dict[str, Tensor]:
    """Translate the parameter names (and shapes) of original code into ours.

    Args:
        source: ``tsm`` (also TSN), ``gsm``, ``gsf``, ``masnet``, ``tokshift`` (also its plain ViT) or ``stmulnet``.
        state_dict: As stored by the original code; DataParallel's ``module.`` prefixes may be there or not.
        **hints: What a source cannot tell from the names alone; none needs any so far.
    """
    if source not in _CONVERTERS:
        raise ActcliError(f"no importer for {source!r}. Known original code: {', '.join(sorted(_CONVERTERS))}.")
    names = [key.removeprefix("module.") for key in state_dict]
    return _CONVERTERS[source](dict(zip(names, state_dict.values(), strict=True)), **hints)


def find_entry(name: str) -> Entry:
    """The model called ``name``.

    Raises:
        ActcliError: There is none; the message lists them.
    """
    if name not in _MODELS:
        raise ActcliError(f"there is no model {name!r}. Models: {', '.join(sorted(_MODELS))}.")
    return _MODELS[name]
