"""Where a model looks: Grad-CAM for convolutional networks, attention roll-out for transformers.

Grad-CAM: Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391: feature maps of the last layer that has any,
weighted by the mean gradient of the class score, positive part. Attention roll-out: Abnar and Zuidema, ACL 2020,
https://arxiv.org/abs/2005.00928: the product over blocks of (mean over heads + identity) / 2, row of the class token.
Both are computed here in a few lines: the package ``grad-cam`` brings an OpenCV of its own, which overwrites the one
with optical flow that ``actcli`` needs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from actcli.errors import ActcliError
from actcli.models import VideoModel
from actcli.models.vit import FrameTransformer

# B clips (one here), T frames, N = B * T, C channels, H W spatial, P positions (class token first)

Heat = NDArray[np.float32]


def heat_maps(model: VideoModel, clip_BTCHW: Tensor, label: int | None = None) -> tuple[Heat, Tensor]:
    """How much each place of each frame speaks for a class.

    Args:
        model: In evaluation mode.
        clip_BTCHW: One clip, normalised, ``[1, T, 3, H, W]``.
        label: The class; the likeliest unless given. Attention is the same for all classes.

    Returns:
        ``[T, H, W]``, 0 to 1 at the strongest place of the clip, and the logits ``[num_classes]``.

    Raises:
        ActcliError: The network has no feature maps.
    """
    if isinstance(model, FrameTransformer):
        maps, logits = _attention_rollout(model, clip_BTCHW)
    else:
        maps, logits = _grad_cam(model, clip_BTCHW, label)
    num_frames = clip_BTCHW.shape[1]
    maps = maps[torch.arange(num_frames) * len(maps) // num_frames]  # pooling over time leaves fewer maps than frames
    size = clip_BTCHW.shape[-2:]
    heat = functional.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return (heat / heat.max().clamp(min=1e-12)).cpu().numpy().astype(np.float32), logits


def _grad_cam(model: VideoModel, clip_BTCHW: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
    with torch.enable_grad(), _last_maps(model) as found:
        logits_K: Tensor = model(clip_BTCHW)[0]
        if not found:
            raise ActcliError(f"{model.config['name']} has no feature maps to look at.")
        maps_NCHW = found[0]
        score = logits_K[int(logits_K.argmax()) if label is None else label]
        [gradients] = torch.autograd.grad(score, maps_NCHW)
    weights_NC11 = gradients.mean((2, 3), keepdim=True)
    return functional.relu((weights_NC11 * maps_NCHW).sum(1)).detach(), logits_K.detach()


@contextmanager
def _last_maps(model: nn.Module) -> Iterator[list[Tensor]]:
    """The newest output of any layer that is ``[N, C, H, W]`` with places to tell apart."""
    found: list[Tensor] = []

    def look(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[-2:]) > 1 and output.requires_grad:
            found[:] = [output]

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _attention_rollout(model: FrameTransformer, clip_BTCHW: Tensor) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(), _attentions(model) as found:
        logits_K: Tensor = model(clip_BTCHW)[0]
        rollout_NPP: Tensor | None = None
        for attention_NPP in found:
            mixed = (attention_NPP + torch.eye(attention_NPP.shape[-1], device=attention_NPP.device)) / 2
            rollout_NPP = mixed if rollout_NPP is None else mixed @ rollout_NPP
    assert rollout_NPP is not None
    side = model.image_size // int(model.backbone.patch_embed.patch_size[0])
    return rollout_NPP[:, 0, 1:].reshape(-1, side, side).clone(), logits_K


@contextmanager
def _attentions(model: FrameTransformer) -> Iterator[list[Tensor]]:
    """Attention of every block, mean over heads, ``[N, P, P]``; timm shows it only where it is not fused."""
    found: list[Tensor] = []
    layers: list[Any] = [block.attn for block in model.backbone.blocks]
    before = [layer.fused_attn for layer in layers]
    hooks = [layer.attn_drop.register_forward_hook(lambda _m, _i, out: found.append(out.mean(1))) for layer in layers]
    for layer in layers:
        layer.fused_attn = False
    try:
        yield found
    finally:
        for layer, fused, hook in zip(layers, before, hooks, strict=True):
            layer.fused_attn = fused
            hook.remove()
