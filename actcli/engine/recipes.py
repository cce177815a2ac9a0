"""Recipes: every number of a training run, read from small YAML files."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeVar

import pydantic_core
import yaml
from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from actcli.engine.schedules import Schedule, StepPlace
from actcli.errors import ActcliError
from actcli.files import read_small_text
from actcli.loaders.augment import Augmentation
from actcli.loaders.epochs import ReadingOrder

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
TrackerName = Literal["tensorboard", "csv", "trackio", "wandb"]
Kind = TypeVar("Kind")
_SUFFIXES = (".yaml", ".yml")
Count = Annotated[int, Field(ge=1)]
Pixels = Annotated[int, Field(ge=8, le=4096)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Protocol:
    """How clips are looked at in a test."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    clips: Count = 1
    """Clips per video."""
    crops: Literal[1, 3, 5, 10] = 1
    """Crops per clip: 1, 3, 5 or 10."""
    size: Pixels | None = None
    """Side of the crop in pixels; the training size unless given."""
    scale_size: Pixels | None = None
    """Short side that frames are resized to before the crop; the original's for the training size unless given."""
    sampling: str | None = None
    """Sampling name; that of the training unless given."""


@dataclass(frozen=True)
class Recipe:
    """Every number of a training run. Defaults are those of TSM's published training."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    name: str
    """Name after ``--recipe``."""
    model: str
    """Model name."""
    source: str = ""
    """Where the numbers come from, and what they leave open."""
    datasets: tuple[str, ...] = ()
    """Datasets it was published for; the first recipe that names the dataset is the default there."""
    model_options: Mapping[str, object] = field(default_factory=dict)
    """Options of the model beside classes and frames."""
    num_frames: Count = 8
    """Frames (segments) per clip."""
    size: Pixels | None = None
    """Side of the crop in pixels; the model's own unless given."""
    order: ReadingOrder = "auto"
    """How training goes through the tars: ``index`` shuffles an epoch as a whole and reads the frames it needs,
    ``blocks`` shuffles and mixes large consecutive ranges; ``auto``: blocks behind a URL."""
    sampling: str = "segments"
    """How frames are chosen, see ``actcli.loaders.sampling_names``."""
    pretrained: str | None = "imagenet"
    """``imagenet``, a file of backbone weights, or nothing."""
    epochs: Count = 50
    """Passes over the training split."""
    batch_size: Count = 64
    """Clips per step, over all processes."""
    accumulate: Count = 1
    """Steps whose gradients are averaged into one update; the last update of an epoch may hold fewer."""
    learning_rate: Positive = 0.01
    """Base rate of the optimiser."""
    scale_lr: Literal["linear", "sqrt"] | None = None
    """How the base rate grows with the clips of an update: ``linear`` (Goyal et al. 2017) or ``sqrt`` (usual for Adam);
    not at all unless given."""
    base_batch: Count | None = None
    """Clips of an update that ``learning_rate`` belongs to; those of the recipe before flags changed it."""
    schedule: Schedule = field(default_factory=Schedule)
    """How the rate changes."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """``sgd`` or ``adamw``."""
    momentum: Share = 0.9
    """Momentum of SGD."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of AdamW's two averages."""
    weight_decay: NotNegative = 5e-4
    """Weight decay; AdamW's spares biases, norms, class tokens and position embeddings."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Transformers: each layer learns so many times as fast as the one above it (BEiT: 0.65 to 0.75)."""
    multipliers: bool = True
    """Whether the model's learning-rate and decay multipliers are applied (GSM and GSF declare and ignore them)."""
    fast_classifier: bool = False
    """TSM's fc_lr5: the classifier learns 5 times as fast, its bias 10 times."""
    partial_bn: bool = False
    """Freeze every batch norm but the first."""
    freeze: Literal["backbone"] | None = None
    """``backbone``: only the classifier learns, on features without gradients (linear probe)."""
    clip_norm: Positive | None = 20.0
    """Gradients are scaled down to this total norm."""
    ema: Share | None = None
    """Decay per update of a moving average of the weights, which is then what is validated and saved."""
    label_smoothing: Share = 0.0
    """Share of the target spread over all classes."""
    mixup: NotNegative = 0.0
    """Alpha of mixup; 0 switches it off."""
    cutmix: NotNegative = 0.0
    """Alpha of cutmix; 0 switches it off."""
    augmentation: Augmentation | None = None
    """What training changes at random; what the sampling's original code does unless given."""
    precision: Precision = "32-true"
    """Arithmetic: ``32-true``, ``bf16-mixed`` or ``16-mixed`` (CUDA only)."""
    compile: bool = False
    """Whether the step goes through ``torch.compile``; validation and tests do not."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Everything random hangs on it."""
    validate_every: Count = 1
    """Epochs between validations; the last epoch is always validated."""
    validation: Protocol = field(default_factory=Protocol)
    """Views during training."""
    test: Protocol = field(default_factory=Protocol)
    """Views of the published test, the default of ``actcli eval``."""
    keep_every: Count | None = None
    """Epochs after which a copy of the weights is kept for good; none unless given."""
    log: tuple[TrackerName, ...] = ("tensorboard",)
    """Where the curves go: ``tensorboard``, ``csv``, ``trackio``, ``wandb``."""

    @property
    def base_rate(self) -> float:
        """The base learning rate for the clips of an update, as ``scale_lr`` says."""
        clips = self.batch_size * self.accumulate
        ratio = clips / (self.base_batch or clips)
        powers = {None: 0.0, "linear": 1.0, "sqrt": 0.5}
        return self.learning_rate * float(ratio ** powers[self.scale_lr])

    def learning_rate_at(self, place: StepPlace) -> float:
        """The rate of a step for parameters whose multiplier is 1."""
        return self.schedule.learning_rate(self.base_rate, place.epoch, self.epochs, place.step, place.num_steps)

    def model_config(self, num_classes: int) -> dict[str, object]:
        """``VideoModel.config`` of its model for so many classes."""
        return {"name": self.model, "num_classes": num_classes, "num_frames": self.num_frames, **self.model_options}

    def to_dict(self) -> dict[str, object]:
        """Plain data, as written to ``config.yaml``."""
        return {name: _plain(value) for name, value in dataclasses.asdict(self).items()}

    @staticmethod
    def from_dict(value: Mapping[str, object], origin: str) -> "Recipe":
        """Read plain data; ``origin`` names it in errors.

        Raises:
            ActcliError: Fields are unknown, missing, of another type or out of range; all of them are named.
        """
        return read_fields(Recipe, value, origin)


def read_fields(kind: type[Kind], value: object, origin: str, text: str | None = None) -> Kind:
    """A dataclass from plain data, each field and each element of a list checked.

    Args:
        kind: The dataclass.
        value: As YAML gives it.
        origin: What to call the data in errors.
        text: The YAML that ``value`` was read from, for the line numbers of errors.

    Raises:
        ActcliError: Fields are unknown, missing, of another type or out of range; all of them are named.
    """
    try:
        # as JSON, in which a list is a tuple and an integer a float, but a text no number and a truth no integer
        return TypeAdapter(kind).validate_json(pydantic_core.to_json(value, inf_nan_mode="constants"), strict=True)
    except ValidationError as error:
        problems = "; ".join(_say(problem, kind, text) for problem in error.errors())
        raise ActcliError(f"{origin}: {problems}.") from error
    except (ValueError, RecursionError) as error:  # what no JSON can say: a set, a loop, a text of half a character
        raise ActcliError(f"{origin} holds what no recipe can ({error}).") from error


def _say(problem: ErrorDetails, kind: type, text: str | None) -> str:
    """One thing wrong in words, with its place."""
    place = [part for part in problem["loc"] if not _is_union_arm(part)]
    name = ".".join(map(str, place))
    line = "" if text is None else _line(text, place)
    match problem["type"]:
        case "unexpected_keyword_argument":
            return f"{line}unknown field {name}; allowed are: {', '.join(_siblings(kind, place))}"
        case "missing" | "missing_argument":
            return f"the field {name} is missing"
        case "value_error":
            return f"{line}{name}: {problem['ctx']['error']}".removesuffix(".")
    told = problem["msg"][0].lower() + problem["msg"][1:]
    return f"{line}{name} is {problem['input']!r}: {told}"


def _is_union_arm(part: str | int) -> bool:
    """Whether a part of a place names the type that was tried, not a field: ``constrained-float``, ``int``."""
    return isinstance(part, str) and (not part.isidentifier() or part in ("int", "float", "str", "none"))


def _siblings(kind: type, place: Sequence[str | int]) -> Iterator[str]:
    """The fields beside the one at ``place``."""
    owner = kind
    for part in place[:-1]:
        hint = next(field.type for field in dataclasses.fields(owner) if field.name == part)
        arms = getattr(hint, "__args__", (hint,))
        owner = next((arm for arm in arms if isinstance(arm, type) and dataclasses.is_dataclass(arm)), owner)
    return (field.name for field in dataclasses.fields(owner))


def _line(text: str, place: Sequence[str | int]) -> str:
    """``line 12: `` of the innermost field of ``place`` that the YAML ``text`` names."""
    node, line = yaml.compose(text), 0
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == part), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return f"line {line}: " if line else ""


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases: ten lines of them can stand for more values than any memory holds."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse an alias."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)


def read_yaml(text: str) -> object:
    """The value of a YAML text without aliases; ``yaml.YAMLError``, in one line, for anything else."""
    try:
        value: object = yaml.load(text, Loader=_PlainLoader)
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise yaml.YAMLError(f"{where}{error.problem or error.context}") from error


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
    if path.suffix in _SUFFIXES:
        try:
            text = read_small_text(path)
        except (OSError, UnicodeDecodeError) as error:
            raise ActcliError(f"the recipe {path} cannot be read ({error}).") from error
        return _parse(text, path.stem)
    for recipe in list_recipes():
        if recipe.name == name:
            return recipe
    raise ActcliError(f"there is no recipe {name!r}; see: actcli recipes. A file of your own ends with .yaml.")


def recipe_text(recipe: Recipe) -> str:
    """Every number of a recipe as YAML."""
    return yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True)


def copy_recipe(name: str, file: Path) -> None:
    """Write a recipe to a new file of that name, to be edited.

    Raises:
        ActcliError: There is no such recipe, the file is there already, or it has another suffix than YAML's.
    """
    recipe = load_recipe(name)
    if file.suffix not in _SUFFIXES:
        raise ActcliError(f"{file} would be no recipe for --recipe; choose a name that ends with .yaml.")
    try:
        with file.open("x") as opened:
            opened.write(recipe_text(dataclasses.replace(recipe, name=file.stem)))
    except FileExistsError as error:
        raise ActcliError(f"{file} is there already; choose another name, or remove it first.") from error
    except OSError as error:
        raise ActcliError(f"{file} cannot be written ({error.strerror or error}).") from error


def _parse(text: str, name: str) -> Recipe:
    try:
        value = read_yaml(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ActcliError(f"recipe {name} is no YAML: {error}") from error
    if not isinstance(value, dict):
        raise ActcliError(f"recipe {name} holds no fields.")
    return read_fields(Recipe, {"name": name, **value}, f"recipe {name}", text)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
