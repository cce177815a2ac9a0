"""Checkpoints of original code into our models."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from actcli.errors import ActcliError
from actcli.models.base import VideoModel
from actcli.models.checkpoint import read_checkpoint
from actcli.models.matconvnet import is_matconvnet, read_matconvnet
from actcli.models.registry import convert_upstream
from actcli.words import counted


@dataclass(frozen=True)
class ImportReport:
    """How a foreign checkpoint fitted a model; names are ours."""

    loaded: int
    """Number of tensors taken over."""
    missing: tuple[str, ...]
    """Tensors of the model that the checkpoint does not have."""
    unexpected: tuple[str, ...]
    """Tensors of the checkpoint that the model does not have."""
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    """Tensors of another shape: name, shape in the checkpoint, shape in the model."""

    @property
    def complete(self) -> bool:
        """Whether everything fitted."""
        return not (self.missing or self.unexpected or self.mismatched)

    def rows(self) -> list[tuple[str, str, str]]:
        """The problems as a table: kind, name, shapes."""
        return [
            *(("missing", name, "") for name in self.missing),
            *(("unexpected", name, "") for name in self.unexpected),
            *(("shape", name, f"{list(found)} found, {list(own)} wanted") for name, found, own in self.mismatched),
        ]


class IncompleteImport(ActcliError):
    """A checkpoint that does not fit; ``report`` says where."""

    def __init__(self, path: str | Path, report: ImportReport) -> None:
        self.report = report
        classes = [found[0] for name, found, _ in report.mismatched if "classifier" in name or ".head." in name]
        hint = f"It has {counted(classes[0], 'class')} (--num-classes {classes[0]}). " if classes else ""
        super().__init__(
            f"{path} does not fit the model: {len(report.missing)} tensors missing, {len(report.unexpected)} "
            f"unexpected, {len(report.mismatched)} of another shape. {hint}Check --from, --model and --set, or take "
            "what fits with --allow-partial."
        )


def import_checkpoint(path: str | Path, source: str, model: VideoModel, allow_partial: bool = False) -> ImportReport:
    """Fill ``model`` from a checkpoint of original code; all of it or, with ``allow_partial``, what fits.

    Args:
        path: ``.pth``, ``.pth.tar``, or for ``stmulnet`` a MatConvNet ``.mat`` (which fills one of the two streams).
        source: As for :func:`convert_upstream`.
        model: Made with the checkpoint's options; unchanged when this function raises.
        allow_partial: Leave what is missing or of another shape as it is in the model.

    Raises:
        IncompleteImport: the checkpoint does not fit.
        ActcliError: the file is damaged, is no checkpoint, or would run code.
    """
    own = dict(model.state_dict())
    if is_matconvnet(path):
        converted = read_matconvnet(path)
        stream = next(iter(converted)).split(".")[0]
        wanted = {name for name in own if name.startswith(stream) and "before_conv3" not in name}
    else:
        hints = {"image_size": model.config["image_size"]} if source == "tokshift" else {}
        converted = convert_upstream(source, read_checkpoint(path), **hints)
        wanted = set(own)
    report = _compare(converted, own, wanted)
    if not report.complete and not allow_partial:
        raise IncompleteImport(path, report)
    fitting = {name: value for name, value in converted.items() if name in own and value.shape == own[name].shape}
    if not fitting:
        raise ActcliError(f"nothing in {path} fits the model. Is it a checkpoint of {source}?")
    model.load_state_dict(fitting, strict=False)
    return report


def _compare(converted: Mapping[str, Tensor], own: Mapping[str, Tensor], wanted: set[str]) -> ImportReport:
    common = [name for name in converted if name in own]
    mismatched = [
        (name, tuple(converted[name].shape), tuple(own[name].shape))
        for name in common
        if converted[name].shape != own[name].shape
    ]
    # checkpoints older than PyTorch 0.4.1 do not count batches, and nothing depends on it
    missing = [name for name in own if name in wanted and name not in converted and "num_batches" not in name]
    return ImportReport(
        loaded=len(common) - len(mismatched),
        missing=tuple(missing),
        unexpected=tuple(name for name in converted if name not in own),
        mismatched=tuple(mismatched),
    )


def checkpoint_num_classes(path: str | Path, source: str) -> int:
    """Number of classes that a checkpoint of original code was trained with."""
    converted = read_matconvnet(path) if is_matconvnet(path) else convert_upstream(source, read_checkpoint(path))
    for name, value in converted.items():
        if name.endswith(("classifier.bias", "backbone.head.bias")):
            return len(value)
    raise ActcliError(f"{path} has no classifier; give the number of classes with --num-classes.")
