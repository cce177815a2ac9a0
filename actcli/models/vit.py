"""ViT on video: an image transformer on every frame, the mean of the frames' logits.

Paper: Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929, as the baseline
of TokShift (https://arxiv.org/abs/2108.02432): ``logits = 1/T Σ_t head(norm(encoder(frame_t))[class token])``. The
order of frames plays no part.
"""

import math
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from timm.models import group_parameters
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from actcli.errors import ActcliError
from actcli.models.base import InputSpec, VideoModel, check_frames
from actcli.models.registry import Published, register, upstream

# B clips, T frames, N = B * T, C channels, H W spatial, P positions (class token first), D width

PATCH = 16


class _Size(NamedTuple):
    """Of a transformer."""

    width: int
    depth: int
    num_heads: int


_SIZES = {"vit_ti16": _Size(192, 12, 3), "vit_b16": _Size(768, 12, 12), "vit_l16": _Size(1024, 24, 16)}
TRANSFORMERS = tuple(_SIZES)


class FrameTransformer(VideoModel):
    """A vision transformer on every frame; the mean of the logits."""

    def __init__(
        self,
        backbone: str,
        *,
        num_classes: int,
        num_frames: int,
        image_size: int,
        block: Callable[..., nn.Module] = Block,
    ) -> None:
        """``block`` builds one encoder block; timm's own sees each frame alone."""
        super().__init__()
        if image_size % PATCH:
            raise ActcliError(f"image_size is {image_size}; it has to be a multiple of the patch, {PATCH} pixels.")
        self.num_frames = num_frames
        self.image_size = image_size
        size = _SIZES[backbone]
        self.input_spec = InputSpec("rgb", mean=(0.5,) * 3, std=(0.5,) * 3, size=image_size, scale_size=image_size)
        self.backbone = VisionTransformer(
            image_size,
            PATCH,
            num_classes=num_classes,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            block_fn=cast(type[nn.Module], block),  # timm only calls it
            weight_init="jax",  # that of the paper
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.num_heads,
        )
        self._make_classifier(num_classes)  # that of the paper is all zeros, which compare equal whatever is wrong

    def _make_classifier(self, num_classes: int) -> None:
        """Start a fresh head."""
        self.backbone.reset_classifier(num_classes)

    def classifiers(self) -> list[nn.Module]:
        """The head."""
        return [self.backbone.get_submodule("head")]

    def undecayed(self) -> set[str]:
        """The class token and the position embeddings."""
        return {f"backbone.{name}" for name in self.backbone.no_weight_decay()}

    def layer_numbers(self) -> dict[str, int]:
        """0 for the embeddings, then one for each block (the norm after the last has its number), then the head."""
        numbers = group_parameters(self.backbone, self.backbone.group_matcher(coarse=False), reverse=True)
        return {f"backbone.{name}": int(number) for name, number in numbers.items()}

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """``[B, T, 3, H, W]``, H = W = ``image_size`` → logits ``[B, num_classes]``."""
        check_frames(clip_BTCHW, self.num_frames)
        if clip_BTCHW.shape[-2:] != (self.image_size, self.image_size):
            raise ActcliError(
                f"the model was made for frames of {self.image_size} x {self.image_size} pixels and got "
                f"{clip_BTCHW.shape[-1]} x {clip_BTCHW.shape[-2]}. Crop to that size, or give another image_size."
            )
        logits_NK: Tensor = self.backbone(clip_BTCHW.flatten(0, 1))
        return logits_NK.view(-1, self.num_frames, logits_NK.shape[1]).mean(1)


def resize_position_embedding(embedding_1PD: Tensor, image_size: int) -> Tensor:
    """Linear interpolation of the patch grid to that of ``image_size``; the class position is kept.

    Corners stay on corners, as in TokShift (an order-1 zoom), so the values differ from timm's bicubic resize.
    """
    class_token, patches = embedding_1PD[:, :1], embedding_1PD[:, 1:]
    old, new = math.isqrt(patches.shape[1]), image_size // PATCH
    if old == new:
        return embedding_1PD
    grid = patches.view(1, old, old, -1).permute(0, 3, 1, 2)
    resized = functional.interpolate(grid, size=(new, new), mode="bilinear", align_corners=True)
    return torch.cat([class_token, resized.flatten(2).transpose(1, 2)], dim=1)


_GOOGLE_NAMES = {
    "LayerNorm_0": "norm1",
    "LayerNorm_2": "norm2",
    "MultiHeadDotProductAttention_1/out": "attn.proj",
    "MlpBlock_3/Dense_0": "mlp.fc1",
    "MlpBlock_3/Dense_1": "mlp.fc2",
}


def convert_google(arrays: Mapping[str, NDArray[np.generic]], image_size: int) -> dict[str, Tensor]:
    """Arrays of Google's ``.npz`` checkpoints → timm's names, without the classifier.

    Kernels are stored input first, ``[in, out]`` or ``[in, heads, head_width]``.
    """
    tensors = {name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()}
    try:
        converted = {
            "cls_token": tensors["cls"],
            "pos_embed": resize_position_embedding(tensors["Transformer/posembed_input/pos_embedding"], image_size),
            "patch_embed.proj.weight": tensors["embedding/kernel"].permute(3, 2, 0, 1),
            "patch_embed.proj.bias": tensors["embedding/bias"],
            "norm.weight": tensors["Transformer/encoder_norm/scale"],
            "norm.bias": tensors["Transformer/encoder_norm/bias"],
        }
        depth = len({name.split("/")[1] for name in tensors if name.startswith("Transformer/encoderblock_")})
        for index in range(depth):
            block = _google_block(tensors, f"Transformer/encoderblock_{index}")
            converted |= {f"blocks.{index}.{name}": value for name, value in block.items()}
    except KeyError as error:
        raise ActcliError(f"this .npz is no ViT in Google's format: it has no {error}.") from error
    return converted


def _google_block(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    block = {}
    for theirs, ours in _GOOGLE_NAMES.items():
        if "LayerNorm" in theirs:
            block[f"{ours}.weight"] = tensors[f"{prefix}/{theirs}/scale"]
        else:
            kernel = tensors[f"{prefix}/{theirs}/kernel"]
            block[f"{ours}.weight"] = kernel.flatten(0, -2).t()
        block[f"{ours}.bias"] = tensors[f"{prefix}/{theirs}/bias"]
    heads = [f"{prefix}/MultiHeadDotProductAttention_1/{part}" for part in ("query", "key", "value")]
    block["attn.qkv.weight"] = torch.cat([tensors[f"{head}/kernel"].flatten(1).t() for head in heads])
    block["attn.qkv.bias"] = torch.cat([tensors[f"{head}/bias"].flatten() for head in heads])
    return block


_UPSTREAM_NAMES = [
    (r"^base_model\.transformer\.embeddings\.position_embeddings$", "backbone.pos_embed"),
    (r"^base_model\.transformer\.embeddings\.cls_token$", "backbone.cls_token"),
    (r"^base_model\.transformer\.embeddings\.patch_embeddings\.", "backbone.patch_embed.proj."),
    (r"^base_model\.transformer\.encoder\.encoder_norm\.", "backbone.norm."),
    (r"^base_model\.transformer\.encoder\.layer\.", "backbone.blocks."),
    (r"^base_model\.head\.", "backbone.head."),
    (r"\.attention_norm\.", ".norm1."),
    (r"\.ffn_norm\.", ".norm2."),
    (r"\.ffn\.fc", ".mlp.fc"),
    (r"\.attn\.out\.", ".attn.proj."),
]


@upstream("tokshift")
def convert_tokshift(state_dict: dict[str, Tensor], image_size: int | None = None) -> dict[str, Tensor]:
    """Names of the TokShift repository (ViT and TokShift) → ours.

    The three projections of the attention become one. With ``image_size`` the position embeddings are resized to it.
    """
    converted: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if re.search(r"\.attn\.(key|value)\.", key):
            continue
        if ".attn.query." in key:
            parts = [state_dict[key.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            key, value = key.replace(".query.", ".qkv."), torch.cat(parts)
        for pattern, replacement in _UPSTREAM_NAMES:
            key = re.sub(pattern, replacement, key)
        converted[key] = value
    if image_size is not None and "backbone.pos_embed" in converted:
        converted["backbone.pos_embed"] = resize_position_embedding(converted["backbone.pos_embed"], image_size)
    return converted


_PUBLISHED = [
    Published("kinetics400", "ViT-B/16, 8 frames, 224 px, 10 clips x 3 crops", 76.02, "TokShift repository"),
]


@register(backbones=TRANSFORMERS, source="tokshift", published=_PUBLISHED)
def vit(*, num_classes: int, num_frames: int = 8, backbone: str = "vit_b16", image_size: int = 224) -> FrameTransformer:
    """Vision transformer on every frame, averaged."""
    return FrameTransformer(backbone, num_classes=num_classes, num_frames=num_frames, image_size=image_size)
