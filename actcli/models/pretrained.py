"""ImageNet weights for the backbones: torchvision's or timm's from the local cache, or a file the user brings."""

from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from actcli.errors import ActcliError
from actcli.models.backbones import INCEPTIONS, inflate, plain_names
from actcli.models.base import VideoModel
from actcli.models.checkpoint import read_checkpoint
from actcli.models.upstream import frame_name
from actcli.models.vit import FrameTransformer, convert_google, resize_position_embedding

_TORCHVISION_NAMES = {"mobilenetv2": "mobilenet_v2"}
_TIMM_NAMES = {
    "vit_ti16": "vit_tiny_patch16_224.augreg_in21k",
    "vit_b16": "vit_base_patch16_224.augreg_in21k",
    "vit_l16": "vit_large_patch16_224.augreg_in21k",
}
_GOOGLE_FILES = {"vit_ti16": "Ti_16.npz", "vit_b16": "ViT-B_16.npz", "vit_l16": "ViT-L_16.npz"}
_CLASSIFIERS = ("fc.", "classifier.", "last_linear.", "top_cls_fc.", "head.", "pre_logits.")


def load_imagenet(model: VideoModel, source: str | Path) -> None:
    """Fill the backbone of ``model`` with image weights; temporal modules and classifier keep their initial values.

    Args:
        model: Made by :func:`create_model`.
        source: ``"imagenet"``, or a file with the weights of the plain backbone: a state dict of torchvision or timm, a
            Caffe-style Inception, or Google's ``.npz`` for transformers.

    Raises:
        ActcliError: no weights at hand (the message says which file to bring), or weights of another network.
    """
    name = str(model.config["backbone"])
    if isinstance(model, FrameTransformer):
        weights = _transformer_weights(name, source, model.image_size)
        _load(model.backbone, weights, name, {key for key in model.backbone.state_dict() if "head." not in key})
        return
    weights = _convolutional_weights(name, source)
    for network in model.frame_networks():
        _load(network, weights, name, plain_names(name))


def _convolutional_weights(name: str, source: str | Path) -> dict[str, Tensor]:
    if name in INCEPTIONS:
        if source == "imagenet":
            raise ActcliError(
                f"neither torchvision nor timm has ImageNet weights for {name} in this layout. Bring those that the "
                "TSM, GSM or GSF repository links to, and give the file's path as pretrained."
            )
        # the Caffe conversion stores batch norms as [1, C]
        stored = read_checkpoint(source)
        return {frame_name(key): v.flatten() if v.ndim == 2 and len(v) == 1 else v for key, v in stored.items()}
    return _torchvision_weights(name) if source == "imagenet" else read_checkpoint(source)


def find_imagenet(backbone: str, source: str | Path) -> None:
    """See to it that the image weights of a backbone are at hand, without building a network where that is possible.

    Raises:
        ActcliError: They are neither in the cache nor can they be downloaded, or there is no such file.
    """
    if source != "imagenet":
        if not Path(source).is_file():
            raise ActcliError(f"there are no weights at {source}.")
    elif backbone in INCEPTIONS:
        _convolutional_weights(backbone, source)  # says what to bring
    elif backbone in _TIMM_NAMES:
        _timm_weights(backbone)
    else:
        _torchvision_file(backbone)


def _torchvision_weights(name: str) -> dict[str, Tensor]:
    return read_checkpoint(_torchvision_file(name))


def _torchvision_file(name: str) -> Path:
    """The file in the local cache, downloaded if need be."""
    weights = torchvision.models.get_model_weights(_TORCHVISION_NAMES.get(name, name)).IMAGENET1K_V1
    file_name = weights.url.rsplit("/", 1)[1]
    path: Path = Path(torch.hub.get_dir()) / "checkpoints" / str(file_name)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(weights.url, str(path), progress=False)
        except (URLError, OSError) as error:
            raise ActcliError(
                f"no ImageNet weights for {name}: {path} does not exist and {weights.url} cannot be reached "
                f"({error}). Put {file_name} there, or give another file's path as pretrained."
            ) from error
    return path


def _transformer_weights(name: str, source: str | Path, image_size: int) -> dict[str, Tensor]:
    if str(source).endswith(".npz"):
        if not Path(source).is_file():
            raise ActcliError(f"there are no weights at {source}.")
        with np.load(source, allow_pickle=False) as arrays:
            return convert_google(arrays, image_size)
    weights = _timm_weights(name) if source == "imagenet" else read_checkpoint(source)
    if "pos_embed" in weights:
        weights["pos_embed"] = resize_position_embedding(weights["pos_embed"], image_size)
    return weights


def _timm_weights(name: str) -> dict[str, Tensor]:
    import timm

    try:
        network = timm.create_model(_TIMM_NAMES[name], pretrained=True, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise ActcliError(
            f"no ImageNet weights for {name}: timm's {_TIMM_NAMES[name]} is neither in the local cache nor can it be "
            f"downloaded. Bring Google's {_GOOGLE_FILES[name]} (ImageNet-21k) and give its path as pretrained."
        ) from error
    return dict(network.state_dict())


def _load(network: nn.Module, weights: Mapping[str, Tensor], name: str, wanted: set[str]) -> None:
    """Load plain image weights; a first convolution with other inputs gets the mean over RGB, repeated."""
    own = network.state_dict()
    weights = {key: value for key, value in weights.items() if not key.startswith(_CLASSIFIERS)}
    wrong = sorted(key for key in wanted ^ set(weights) if "num_batches" not in key)
    if wrong:
        raise ActcliError(f"these are not the weights of {name}; {len(wrong)} names differ, the first is {wrong[0]}.")
    fitted = {key: _fit_first_conv(value, own[key]) for key, value in weights.items()}
    for key, value in fitted.items():
        if value.shape != own[key].shape:
            raise ActcliError(
                f"these are not the weights of {name}: {key} is {list(value.shape)}, wanted {list(own[key].shape)}."
            )
    network.load_state_dict(fitted, strict=False)


def _fit_first_conv(value: Tensor, own: Tensor) -> Tensor:
    if value.ndim == 4 and value.shape[1] == 3 and own.shape[1] != 3:
        return inflate(value, own.shape[1])
    return value
