"""The list of models: make one by name, list them, translate the weights of original code."""

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    options: dict[str, Any]
    """Options of :func:`create_model` beside the class count, with their defaults."""
    published: tuple[Published, ...]
    source: str | None
    """Original code whose checkpoints :func:`convert_upstream` translates; None where none is public."""


@dataclass(frozen=True)
class _Entry:
    function: ModelFunction
    info: ModelInfo


_MODELS: dict[str, _Entry] = {}
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
        _MODELS[info.name] = _Entry(function, info)
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


def create_model(name: str, *, num_classes: int, pretrained: str | Path | None = None, **options: Any) -> VideoModel:
    """Make a model.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        pretrained: ``"imagenet"`` for the backbone's ImageNet weights from the local cache, or a file that holds them.
        **options: ``num_frames``, ``backbone`` and what else the model knows; see ``ModelInfo.options``.

    Raises:
        ActcliError: a name, an option or a value that the model does not know; the message lists what it knows.
    """
    entry = _entry(name)
    _check_options(entry.info, num_classes, options)
    model = entry.function(num_classes=num_classes, **options)
    model.config = {"name": name, "num_classes": num_classes, **entry.info.options, **options}
    if pretrained is not None:
        from actcli.models.pretrained import load_imagenet  # it needs this module

        load_imagenet(model, pretrained)
    return model


def convert_upstream(source: str, state_dict: StateDict, **hints: Any) -> dict[str, Tensor]:
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


def _entry(name: str) -> _Entry:
    if name not in _MODELS:
        raise ActcliError(f"there is no model {name!r}. Models: {', '.join(sorted(_MODELS))}.")
    return _MODELS[name]


def _check_options(info: ModelInfo, num_classes: int, options: Mapping[str, Any]) -> None:
    unknown = sorted(set(options) - set(info.options))
    if unknown:
        raise ActcliError(
            f"model {info.name} has no option {', '.join(unknown)}. Its options: {', '.join(sorted(info.options))}."
        )
    backbone = options.get("backbone", info.options.get("backbone"))
    if backbone not in info.backbones:
        raise ActcliError(
            f"model {info.name} has no backbone {backbone!r}. Its backbones: {', '.join(info.backbones)}."
        )
    hints = typing.get_type_hints(_MODELS[info.name].function)
    for name, value in options.items():
        if not _has_type(value, hints[name]):
            allowed = str(getattr(hints[name], "__name__", hints[name]))
            raise ActcliError(f"{name} of {info.name} is {value!r}; it has to be of type {allowed}.")
    for name, value in [("num_classes", num_classes), ("num_frames", options.get("num_frames", 1))]:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ActcliError(f"{name} is {value!r}; it has to be a whole number of at least 1.")


def _has_type(value: Any, hint: Any) -> bool:
    """Whether ``value`` is what ``hint`` says; a truth is no number, and an integer is a float too."""
    if isinstance(hint, types.UnionType):
        return any(_has_type(value, option) for option in hint.__args__)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)
