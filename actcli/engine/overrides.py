"""Change single numbers of a recipe, as the command line does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from dataclasses import fields as dataclass_fields

import torch
import yaml

from actcli.engine.recipes import Recipe, read_yaml
from actcli.errors import ActcliError
from actcli.loaders.originals import original_of
from actcli.models import create_from_config, list_models
from actcli.models.pretrained import find_imagenet

_NESTED = ("model_options", "schedule")
"""Fields that hold fields."""


def override_recipe(recipe: Recipe, values: Mapping[str, object], settings: Sequence[str] = ()) -> Recipe:
    """A recipe with some numbers replaced.

    Args:
        recipe: The published one.
        values: Fields to replace; None leaves a field alone, and so it does inside ``model_options`` and ``schedule``.
        settings: ``field=value`` texts, value in YAML, dots for inner fields: ``schedule.kind=cosine``.

    Raises:
        ActcliError: A field does not exist or a value is of another type.
    """
    plain = recipe.to_dict()
    plain["base_batch"] = recipe.base_batch or recipe.batch_size * recipe.accumulate
    given = {name: value for name, value in values.items() if value is not None and name not in _NESTED}
    plain |= given
    for name in _NESTED:
        inner = values.get(name)
        if isinstance(inner, Mapping):
            _fields(plain, name).update({field: value for field, value in inner.items() if value is not None})
    if plain["pretrained"] == "none":
        plain["pretrained"] = None
    size = given.get("size")
    if isinstance(size, int):
        _follow_size(plain, size)
    for text in settings:
        _show_augmentation(plain, text)
        _set(plain, _in_model_options(plain, text))
    if plain["scale_lr"] is None:
        plain["base_batch"] = recipe.base_batch  # nothing hangs on it
    return Recipe.from_dict(plain, "the recipe with your changes")


def settle_pretrained(recipe: Recipe, *, explicit: bool, note: Callable[[str], None]) -> Recipe:
    """Check that the starting weights are at hand.

    Weights that the user asked for have to be there. Where they are only the recipe's default and cannot be had, the
    training starts from scratch, ``note`` is told, and ``config.yaml`` says so.
    """
    if recipe.pretrained is None:
        return recipe
    with torch.device("meta"):  # a wrong option is refused here, and is not taken for missing weights
        model = create_from_config(recipe.model_config(num_classes=2))
    try:
        find_imagenet(str(model.config["backbone"]), recipe.pretrained)
    except ActcliError as error:
        if explicit:
            raise
        note(f"{error} Until then training starts from random weights, which costs accuracy.")
        return replace(recipe, pretrained=None)
    return recipe


def _fields(plain: dict[str, object], name: str) -> dict[str, object]:
    """The fields inside a field."""
    inner = plain[name]
    assert isinstance(inner, dict)
    return inner


def _follow_size(plain: dict[str, object], size: int) -> None:
    """Let what depends on the input size follow it: a transformer's grid, the test, and the short-side jitter."""
    info = next(info for info in list_models() if info.name == plain["model"])
    if "image_size" in info.options:
        _fields(plain, "model_options")["image_size"] = size
    _fields(plain, "test").update(size=None, scale_size=None)  # the published test belongs to the published size
    augmentation = plain["augmentation"]
    if isinstance(augmentation, dict) and augmentation["short_side"]:
        augmentation["short_side"] = None  # in proportion to the size


def _show_augmentation(plain: dict[str, object], setting: str) -> None:
    """Write out the augmentation that a recipe leaves to its original code, so that one number of it can be changed."""
    if setting.startswith("augmentation.") and plain["augmentation"] is None:
        plain["augmentation"] = asdict(original_of(str(plain["sampling"])).augmentation)


def _in_model_options(plain: dict[str, object], setting: str) -> str:
    """``shift_div=4`` as ``model_options.shift_div=4``: an option of the model is a number of the recipe too."""
    name = setting.partition("=")[0]
    options = {option for info in list_models() if info.name == plain["model"] for option in info.options}
    fields = {field.name for field in dataclass_fields(Recipe)}
    return f"model_options.{setting}" if name in options - fields else setting


def _set(plain: dict[str, object], text: str) -> None:
    name, equals, value = text.partition("=")
    *path, last = name.split(".")
    if not equals:
        raise ActcliError(f"--set takes FIELD=VALUE, got {text!r}.")
    inner = plain
    for part in path:
        found = inner.setdefault(part, {})
        if not isinstance(found, dict):
            raise ActcliError(f"--set {text}: {part} holds no fields of its own, or is off in this recipe.")
        inner = found
    try:
        inner[last] = read_yaml(value)
    except yaml.YAMLError as error:
        raise ActcliError(f"--set {text}: {value!r} is no YAML value.") from error
