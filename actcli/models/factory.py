"""Make a model by name, with every option checked."""

import types
import typing
from collections.abc import Mapping
from pathlib import Path

from actcli.errors import ActcliError
from actcli.models.base import VideoModel
from actcli.models.pretrained import load_imagenet
from actcli.models.registry import ModelInfo, find_entry


def create_model(name: str, *, num_classes: int, pretrained: str | Path | None = None, **options: object) -> VideoModel:
    """Make a model.

    Args:
        name: One of :func:`list_models`.
        num_classes: Number of logits.
        pretrained: ``"imagenet"`` for the backbone's ImageNet weights from the local cache, or a file that holds them.
        **options: ``num_frames``, ``backbone`` and what else the model knows; see ``ModelInfo.options``.

    Raises:
        ActcliError: a name, an option or a value that the model does not know; the message lists what it knows.
    """
    return create_from_config({"name": name, "num_classes": num_classes, **options}, pretrained)


def create_from_config(config: Mapping[str, object], pretrained: str | Path | None = None) -> VideoModel:
    """The model of a ``VideoModel.config``: name, class count and options as plain data.

    Raises:
        ActcliError: As :func:`create_model`.
        KeyError: Name or class count is not there.
    """
    name, num_classes = str(config["name"]), config["num_classes"]
    options = {option: value for option, value in config.items() if option not in ("name", "num_classes")}
    entry = find_entry(name)
    _check_options(entry.info, num_classes, options)
    model = entry.function(num_classes=num_classes, **options)
    model.config = {"name": name, "num_classes": num_classes, **entry.info.options, **options}
    if pretrained is not None:
        load_imagenet(model, pretrained)
    return model


def _check_options(info: ModelInfo, num_classes: object, options: Mapping[str, object]) -> None:
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
    hints = typing.get_type_hints(find_entry(info.name).function)
    for name, value in options.items():
        if not _has_type(value, hints[name]):
            allowed = str(getattr(hints[name], "__name__", hints[name]))
            raise ActcliError(f"{name} of {info.name} is {value!r}; it has to be of type {allowed}.")
    for name, value in [("num_classes", num_classes), ("num_frames", options.get("num_frames", 1))]:
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ActcliError(f"{name} is {value!r}; it has to be a whole number of at least 1.")


def _has_type(value: object, hint: object) -> bool:
    """Whether ``value`` is what ``hint`` says; a truth is no number, and an integer is a float too."""
    if isinstance(hint, types.UnionType):
        return any(_has_type(value, option) for option in hint.__args__)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(hint, type) and isinstance(value, (int, float) if hint is float else hint)
