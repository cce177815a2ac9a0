"""What the importers of TSN's descendants have in common."""

import re
from collections.abc import Callable

from torch import Tensor

from actcli.models.backbones import bninception, inceptionv3, mobilenet

_HEAD = re.compile(r"(new_fc|base_model\.(fc|last_linear|classifier|top_cls_fc))\.")


def convert_segment_model(state_dict: dict[str, Tensor], backbone_name: Callable[[str], str]) -> dict[str, Tensor]:
    """``base_model.…`` → ``backbone.…`` by ``backbone_name``; the classifier → ``classifier.…``.

    The originals call their classifier ``new_fc``, or, trained without dropout, keep the backbone's own.
    """
    return {_segment_name(key, backbone_name): value for key, value in state_dict.items()}


def _segment_name(key: str, backbone_name: Callable[[str], str]) -> str:
    head = _HEAD.match(key)
    if head:
        return f"classifier.{key[head.end() :]}"
    return f"backbone.{backbone_name(key.removeprefix('base_model.'))}"


def frame_name(key: str) -> str:
    """Name of a parameter of any 2-D backbone of the originals → ours."""
    if key.startswith(("layer", "conv1.", "bn1.")):
        return key
    if key.startswith("features."):
        return mobilenet.our_name(key)
    if re.match(r"(mixed|conv)(_\w+)?_(Conv2D|batchnorm)\.", key):
        return inceptionv3.our_name(key)
    return bninception.our_name(key)


def gated_name(key: str) -> str:
    """:func:`frame_name` for backbones with the gated shifts of GSM (``gsm_…``) or GSF (``gsf_…``)."""
    inception = re.fullmatch(r"gs[mf]_(\w+?)(_Conv2D)?\.(\w+)\.(\w+)", key)
    if inception:
        layout = inceptionv3 if inception[2] else bninception
        return f"{layout.unit_path(inception[1])}.before_bn.{_GATE_PARTS[inception[3]]}.{inception[4]}"
    resnet = re.fullmatch(r"(layer\d\.\d+)\.gsf\.(\w+)\.(\w+)", key)
    if resnet:
        return f"{resnet[1]}.before_bn3.{_GATE_PARTS[resnet[2]]}.{resnet[3]}"
    return frame_name(key)


_GATE_PARTS = {"bn": "bn", "conv3D": "gate", "channel_conv1": "fuse_1", "channel_conv2": "fuse_2"}
