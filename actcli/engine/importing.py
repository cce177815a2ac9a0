"""Checkpoints of original code to ours, with everything that decides how they are tested."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from actcli.engine.recipes import Protocol
from actcli.errors import ActcliError
from actcli.loaders.originals import find_sampling
from actcli.models import (
    ImportReport,
    VideoModel,
    WeightFacts,
    checkpoint_num_classes,
    create_from_config,
    import_checkpoint,
    load_weights,
    save_weights,
)
from actcli.models.checkpoint import read_checkpoint
from actcli.models.identify import UNTOLD, Identity, identify
from actcli.models.matconvnet import is_matconvnet
from actcli.shards import ShardSet

TESTS: Mapping[str, tuple[str, Protocol]] = MappingProxyType(
    {
        "tsm": ("tsm", Protocol()),
        "gsm": ("gsm", Protocol()),
        "gsf": ("gsf", Protocol()),
        "masnet": ("masnet", Protocol()),
        "tokshift": ("tokshift", Protocol(clips=10, crops=3)),
        "stmulnet": ("stmulnet", Protocol()),
    }
)
"""Sampling and default test of each original code: what its test script does without further flags."""


@dataclass(frozen=True)
class ImportRequest:
    """A checkpoint and what is said about it."""

    checkpoint: Path
    """``.pth``, ``.pth.tar``, or for ``stmulnet`` a ``.mat``."""
    source: str
    """Original code, a key of :data:`TESTS`."""
    model: str | None = None
    """Our model; needed where the names fit several."""
    num_classes: int | None = None
    """Classes; those of the checkpoint unless given."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Options of ``create_model``; needed where names and shapes cannot tell them."""
    sampling: str | None = None
    """Sampling of the training; that of the original code unless given."""
    classes_from: str | None = None
    """Shards whose class names the checkpoint has, in the same order."""
    onto: Path | None = None
    """Imported weights to fill further."""
    allow_partial: bool = False
    """Take what fits."""
    out: Path | None = None
    """The result; beside the checkpoint unless given."""


@dataclass(frozen=True)
class Imported:
    """What was imported."""

    path: Path
    """The weights."""
    model: VideoModel
    """The model."""
    report: ImportReport
    """What fitted."""
    sampling: str
    """How frames will be chosen."""
    test: Protocol
    """How it will be tested."""


def import_original(request: ImportRequest) -> Imported:
    """Read a checkpoint of original code and write it as weights of ours.

    Raises:
        IncompleteImport: The checkpoint does not fit.
        ActcliError: What the file cannot tell was not said, something said contradicts it, or it is damaged.
    """
    if request.source not in TESTS:
        raise ActcliError(f"no importer for {request.source!r}. Known original code: {', '.join(sorted(TESTS))}.")
    sampling, test = TESTS[request.source]
    if request.sampling is not None:
        find_sampling(request.sampling, training=True)  # refuses an unknown one
        sampling = request.sampling
    path = request.out or _beside(request.checkpoint)
    _check_target(path)
    classes = list(ShardSet.open(request.classes_from).card.classes) if request.classes_from else None
    model, known = _model(request, classes)
    if classes and len(classes) != model.num_classes:
        raise ActcliError(
            f"{request.classes_from} has {len(classes)} classes, the model {model.config['num_classes']}. Name "
            f"shards of the classes that the checkpoint was trained on."
        )
    report = import_checkpoint(request.checkpoint, request.source, model, request.allow_partial)
    facts: WeightFacts = {
        "classes": classes or known,
        "sampling": sampling,
        "size": model.input_spec.size,
        "test": vars(test),
        "source": f"{request.source} checkpoint {request.checkpoint.name}",
    }
    save_weights(model, path, facts)
    return Imported(path, model, report, sampling, test)


def _model(request: ImportRequest, classes: Sequence[str] | None) -> tuple[VideoModel, list[str] | None]:
    """The model to fill, and the class names of the weights that are filled further."""
    if request.onto is not None:
        if request.model or request.num_classes or request.options:
            raise ActcliError("with onto (--onto) the model is that of the weights; leave out the model's options.")
        model, facts = load_weights(request.onto)
        return model, facts.get("classes")
    matlab = is_matconvnet(request.checkpoint)
    if matlab and request.source != "stmulnet":
        raise ActcliError(f"{request.checkpoint} is a .mat file, which only --from stmulnet reads.")
    identity = Identity(("stmulnet",), {}) if matlab else identify(request.source, read_checkpoint(request.checkpoint))
    name = request.model or (identity.models[0] if len(identity.models) == 1 else None)
    _check_told(request, identity, name)
    assert name is not None
    count = request.num_classes or (
        len(classes) if classes else checkpoint_num_classes(request.checkpoint, request.source)
    )
    return create_from_config({"name": name, "num_classes": count, **identity.options, **request.options}), None


def _check_told(request: ImportRequest, identity: Identity, name: str | None) -> None:
    """Refuse what contradicts the file, and ask for everything that it cannot tell, at once."""
    if name is not None and name not in identity.models:
        raise ActcliError(
            f"--model {name} does not fit: the names in {request.checkpoint} are those of "
            f"{' or '.join(identity.models)}."
        )
    other = [
        f"--{'backbone' if option == 'backbone' else f'set {option}='}{' ' if option == 'backbone' else ''}{given} "
        f"(the file has {identity.options[option]})"
        for option, given in request.options.items()
        if option in identity.options and identity.options[option] != given
    ]
    if other:
        raise ActcliError(f"{', '.join(other)} does not fit {request.checkpoint}. Leave it out.")
    missing = [] if name else [f"--model {' or --model '.join(identity.models)}"]
    for untold in UNTOLD:
        concerns = not untold.models or name in untold.models
        if concerns and untold.name not in request.options:
            flag = "--frames N" if untold.name == "num_frames" else f"--set {untold.name}=N"
            missing.append(f"{flag} (published: {untold.published})")
    if missing:
        raise ActcliError(
            f"the names and shapes in {request.checkpoint} cannot tell everything about the model. Say: "
            f"{', '.join(missing)}."
        )


def _check_target(path: Path) -> None:
    """Refuse to replace what is no weights of ours, such as the checkpoint itself."""
    if not path.exists():
        return
    try:
        load_weights(path)
    except ActcliError as error:
        raise ActcliError(
            f"{path} exists and is no weights of actcli; choose another file with out (--out)."
        ) from error


def _beside(checkpoint: Path) -> Path:
    return checkpoint.with_name(checkpoint.name.removesuffix(".tar")).with_suffix(".safetensors")
