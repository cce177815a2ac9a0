"""What the names and shapes in a checkpoint of original code say about its model."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from torch import Tensor

from actcli.errors import ActcliError
from actcli.models.vit import PATCH

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Identity:
    """What is certain about the model of a checkpoint."""

    models: tuple[str, ...]
    """The models that these names fit; more than one where the names are the same."""
    options: Mapping[str, object]
    """Options of ``create_model`` that the names and shapes tell."""


@dataclass(frozen=True)
class Untold:
    """An option that changes what a model computes and leaves no trace in names and shapes."""

    name: str
    """The option."""
    models: tuple[str, ...]
    """Models that have it; all where empty."""
    published: str
    """What the original code published."""


UNTOLD = (
    Untold("num_frames", (), "8 or 16 for most; TSN 5 or 8, ST-MulNet 11"),
    Untold("shift_div", ("tsm",), "8"),
    Untold("shift_div", ("tokshift",), "4"),
)
"""What has to be said by whoever imports."""


def identify(source: str, state_dict: StateDict) -> Identity:
    """The model of a checkpoint of the original code ``source``.

    Raises:
        ActcliError: There is no such original code, or the names are not those of its models.
    """
    if source not in _SOURCES:
        raise ActcliError(f"no importer for {source!r}. Known original code: {', '.join(sorted(_SOURCES))}.")
    plain = {name.removeprefix("module.").removeprefix("base_model."): value for name, value in state_dict.items()}
    return _SOURCES[source](plain)


def _tsm(weights: StateDict) -> Identity:
    pooled = any(name.startswith("layer2.net.") for name in weights)
    names = [name.replace("layer2.net.", "layer2.") for name in weights]
    backbone = _backbone(dict(zip(names, weights.values(), strict=True)))
    options: dict[str, object] = {"backbone": backbone, "modality": _modality(weights)}
    whole = any(re.match(r"layer\d\.\d+(\.block)?\.net\.", name) for name in names)
    branch = any(re.search(r"\.(conv1|conv\.0)\.net\.weight$", name) for name in names)
    if whole or branch:
        options["shift_place"] = "block" if whole else "blockres"
    if backbone in ("bninception", "inceptionv3"):
        return Identity(("tsn", "tsm"), options)  # the shift is a function there and leaves the names alone
    if not (whole or branch):
        if pooled:
            raise ActcliError("the checkpoint has temporal pooling but no shift; actcli has no such model.")
        return Identity(("tsn",), options)
    if backbone.startswith("resnet"):
        options |= {"temporal_pool": pooled, "non_local": any(".nl." in name for name in names)}
    return Identity(("tsm",), options)


def _gsm(weights: StateDict) -> Identity:
    return Identity(("gsm",), {"backbone": _backbone(weights)})


def _gsf(weights: StateDict) -> Identity:
    return Identity(("gsf",), {"backbone": _backbone(weights), "channel_ratio": _channel_ratio(weights)})


def _masnet(weights: StateDict) -> Identity:
    return Identity(("masnet",), {"backbone": _backbone(weights)})


def _tokshift(weights: StateDict) -> Identity:
    places = _only(weights, r"(^|\.)position_embeddings$|(^|\.)pos_embed$", "position embeddings").shape[1] - 1
    width = _only(weights, r"(^|\.)cls_token$", "class token").shape[2]
    side = math.isqrt(places)
    if width not in _WIDTHS or side * side != places:
        raise ActcliError(f"no vision transformer of TokShift has {places} patches of width {width}.")
    return Identity(("vit", "tokshift"), {"backbone": _WIDTHS[width], "image_size": PATCH * side})


def _stmulnet(weights: StateDict) -> Identity:
    _only(weights, r"^spatial_stream\.conv1\.weight$", "spatial stream")
    return Identity(("stmulnet",), {})


_WIDTHS = {192: "vit_ti16", 768: "vit_b16", 1024: "vit_l16"}
_SOURCES: Mapping[str, Callable[[StateDict], Identity]] = MappingProxyType(
    {"tsm": _tsm, "gsm": _gsm, "gsf": _gsf, "masnet": _masnet, "tokshift": _tokshift, "stmulnet": _stmulnet}
)
_RESNETS = {(2, False): "resnet18", (6, False): "resnet34", (6, True): "resnet50", (23, True): "resnet101"}
"""Blocks of the third stage, and whether they have a third convolution."""


def _backbone(weights: StateDict) -> str:
    """The 2-D network that the names belong to."""
    third = {match[1] for name in weights if (match := re.match(r"layer3\.(\d+)\.", name))}
    if third:
        bottleneck = any(re.search(r"layer3\.0\..*conv3\.", f"{name}.") for name in weights)
        found = _RESNETS.get((len(third), bottleneck))
        if found is None:
            raise ActcliError(f"no ResNet of actcli has {len(third)} blocks in its third stage.")
        return found
    for pattern, name in (
        (r"features\.\d", "mobilenetv2"),
        (r"(gs[mf]_)?mixed_|conv_Conv2D", "inceptionv3"),
        (r"inception_3a|conv1_7x7_s2", "bninception"),
    ):
        if any(re.match(pattern, key) for key in weights):
            return name
    raise ActcliError("the names in the checkpoint are those of no network that actcli knows.")


def _modality(weights: StateDict) -> str:
    channels = next(value.shape[1] for value in weights.values() if value.ndim == 4)
    return "rgb" if channels == 3 else "flow"


def _channel_ratio(weights: StateDict) -> float:
    """Share of the channels that GSF processes: what its batch norm sees, of what the convolution before it gives."""
    for name, value in weights.items():
        inception = re.fullmatch(r"gsf_(\w+)\.bn\.weight", name)
        resnet = re.fullmatch(r"(layer\d\.\d+)\.gsf\.bn\.weight", name)
        before = f"{inception[1]}.weight" if inception else f"{resnet[1]}.conv3.weight" if resnet else ""
        if before in weights:
            return round(8 * value.shape[0] / weights[before].shape[0]) / 8
    raise ActcliError("the checkpoint has no gated shift of GSF. Is it one of --from gsm or tsm?")


def _only(weights: StateDict, pattern: str, what: str) -> Tensor:
    found = [value for name, value in weights.items() if re.search(pattern, name)]
    if len(found) != 1:
        raise ActcliError(f"the names in the checkpoint are not those of this original code: it has no {what}.")
    return found[0]
