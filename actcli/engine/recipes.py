"""Recipes: every number of a training run, read from small YAML files."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from actcli.engine.schedules import Schedule
from actcli.errors import ActcliError
from actcli.loaders.augment import Augmentation

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Protocol:
    """How clips are looked at in a test."""

    clips: int = 1
    """Clips per video."""
    crops: int = 1
    """Crops per clip: 1, 3, 5 or 10."""
    size: int | None = None
    """Side of the crop in pixels; the training size unless given."""
    sampling: str | None = None
    """Sampling name; that of the training unless given."""


@dataclass(frozen=True)
class Recipe:
    """Every number of a training run. Defaults are those of TSM's published training."""

    name: str
    """Name after ``--recipe``."""
    model: str
    """Model name."""
    source: str = ""
    """Where the numbers come from, and what they leave open."""
    datasets: tuple[str, ...] = ()
    """Datasets it was published for; the first recipe that names the dataset is the default there."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model beside classes and frames."""
    num_frames: int = 8
    """Frames (segments) per clip."""
    size: int | None = None
    """Side of the crop in pixels; the model's own unless given."""
    sampling: str = "segments"
    """How frames are chosen, see ``actcli.loaders.sampling_names``."""
    pretrained: str | None = "imagenet"
    """``imagenet``, a file of backbone weights, or nothing."""
    epochs: int = 50
    """Passes over the training split."""
    batch_size: int = 64
    """Clips per step, over all processes."""
    accumulate: int = 1
    """Steps whose gradients are averaged into one update; the last update of an epoch may hold fewer."""
    learning_rate: float = 0.01
    """Base rate of SGD."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the rate changes."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 5e-4
    """Weight decay of SGD."""
    multipliers: bool = True
    """Whether the model's learning-rate and decay multipliers are applied (GSM and GSF declare and ignore them)."""
    fast_classifier: bool = False
    """TSM's fc_lr5: the classifier learns 5 times as fast, its bias 10 times."""
    partial_bn: bool = False
    """Freeze every batch norm but the first."""
    clip_norm: float | None = 20.0
    """Gradients are scaled down to this total norm."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    mixup: float = 0.0
    """Alpha of mixup; 0 switches it off."""
    cutmix: float = 0.0
    """Alpha of cutmix; 0 switches it off."""
    augmentation: Augmentation | None = None
    """What training changes at random; what the sampling's original code does unless given."""
    precision: Precision = "32-true"
    """Arithmetic: ``32-true``, ``bf16-mixed`` or ``16-mixed``."""
    seed: int = 0
    """Everything random hangs on it."""
    validate_every: int = 1
    """Epochs between validations; the last epoch is always validated."""
    validation: Protocol = field(default_factory=Protocol)
    """Views during training."""
    test: Protocol = field(default_factory=Protocol)
    """Views of the published test, the default of ``actcli eval``."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as written to ``config.yaml``."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]

    @staticmethod
    def from_dict(value: Mapping[str, Any], origin: str) -> "Recipe":
        """Read plain data; ``origin`` names it in errors.

        Raises:
            ActcliError: A field is unknown, missing or of another type.
        """
        return typing.cast(Recipe, _build(Recipe, value, origin))


def list_recipes() -> list[Recipe]:
    """All recipes that come with the package, by name."""
    folder = resources.files("actcli.engine") / "recipe_files"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return [_parse(file.read_text(), file.name.removesuffix(".yaml")) for file in files]


def find_recipe(model: str, dataset: str) -> Recipe:
    """The recipe for a model on a dataset: the first that names the dataset, else the model's first.

    Raises:
        ActcliError: There is no recipe for the model.
    """
    recipes = [recipe for recipe in list_recipes() if recipe.model == model]
    if not recipes:
        known = sorted({recipe.model for recipe in list_recipes()})
        raise ActcliError(f"there is no model {model!r}; --model takes one of: {', '.join(known)}.")
    return next((recipe for recipe in recipes if dataset in recipe.datasets), recipes[0])


def load_recipe(name: str) -> Recipe:
    """A recipe by name, or from a YAML file.

    Raises:
        ActcliError: There is no such recipe, or the file is none.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        try:
            return _parse(path.read_text(), path.stem)
        except OSError as error:
            raise ActcliError(f"the recipe {path} cannot be read ({error.strerror}).") from error
    for recipe in list_recipes():
        if recipe.name == name:
            return recipe
    raise ActcliError(f"there is no recipe {name!r}; see: actcli recipes. A file of your own ends with .yaml.")


def _parse(text: str, name: str) -> Recipe:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ActcliError(f"recipe {name} is no YAML: {error}") from error
    if not isinstance(value, dict):
        raise ActcliError(f"recipe {name} holds no fields.")
    return Recipe.from_dict({"name": name, **value}, f"recipe {name}")


def _build(kind: type, value: Mapping[str, Any], origin: str) -> Any:
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise ActcliError(f"{origin}: unknown field {', '.join(unknown)}; allowed are: {', '.join(hints)}.")
    try:
        return kind(**{name: _convert(hints[name], item, f"{origin}.{name}") for name, item in value.items()})
    except TypeError as error:
        raise ActcliError(f"{origin}: {error}.") from error


def _convert(hint: Any, value: Any, origin: str) -> Any:
    """Turn plain data into what a field's type says."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    if value is None and type(None) in options:
        return None
    chosen = next(option for option in options if option is not type(None))
    container = typing.get_origin(chosen)
    if dataclasses.is_dataclass(chosen):
        return value if isinstance(value, chosen) else _build(typing.cast(type, chosen), value, origin)  # type: ignore[arg-type]
    if container is tuple:
        if not isinstance(value, list | tuple):
            raise ActcliError(f"{origin} has to be a list, got {value!r}.")
        return tuple(value)
    if container is typing.Literal:
        allowed = typing.get_args(chosen)
        if value not in allowed:
            raise ActcliError(f"{origin} is {value!r}; allowed are: {', '.join(map(str, allowed))}.")
        return value
    if chosen is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    expected = dict if container is not None else chosen
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise ActcliError(f"{origin} has to be of type {expected.__name__}, got {value!r}.")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
