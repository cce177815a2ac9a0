"""TokShift: a vision transformer whose class tokens look at the neighbouring frames.

Paper: Zhang, Hao, Ngo, "Token Shift Transformer for Video Classification", ACM MM 2021,
https://arxiv.org/abs/2108.02432. With S the temporal shift of the class token alone (a quarter of its values from frame
t + 1, a quarter from t - 1, zeros outside the clip), every encoder block is::

    x = S(x);  x = x + attention(norm(x));  x = S(x);  x = x + mlp(norm(x))

The shortcuts carry the shifted token as well. Patch tokens never move.
"""

from functools import partial
from typing import Any

import torch
from timm.models.vision_transformer import Block
from torch import Tensor

from actcli.errors import ActcliError
from actcli.models.registry import Published, register
from actcli.models.temporal.shift import shift_frames
from actcli.models.vit import TRANSFORMERS, FrameTransformer

# B clips, T frames, N = B * T, P positions (class token first), D width


class TokenShiftBlock(Block):
    """timm's encoder block with the shift before both of its halves."""

    def __init__(self, *args: Any, num_frames: int, shift_div: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_frames = num_frames
        self.shift_div = shift_div

    def forward(self, x_NPD: Tensor) -> Tensor:  # type: ignore[override]
        """Shape in = shape out."""
        x = self.shift(x_NPD)
        x = x + self.attn(self.norm1(x))
        x = self.shift(x)
        y: Tensor = x + self.mlp(self.norm2(x))
        return y

    def shift(self, x_NPD: Tensor) -> Tensor:
        """Shift the class token over time."""
        class_token_ND = shift_frames(x_NPD[:, 0], self.num_frames, self.shift_div)
        return torch.cat([class_token_ND[:, None], x_NPD[:, 1:]], dim=1)


_REPOSITORY = "TokShift repository"
_PUBLISHED = [
    Published("kinetics400", f"{setting}, 10 clips x 3 crops", top1, _REPOSITORY)
    for setting, top1 in [
        ("B/16, 8 frames, 224 px", 77.28),
        ("B/16, 8 frames, 256 px", 77.68),
        ("B/16, 8 frames, 384 px", 78.14),
        ("B/16, 16 frames, 224 px", 78.18),
        ("L/16, 8 frames, 384 px", 79.83),
        ("L/16, 12 frames, 384 px", 80.40),
    ]
]


@register(backbones=TRANSFORMERS, source="tokshift", published=_PUBLISHED)
def tokshift(
    *, num_classes: int, num_frames: int = 8, backbone: str = "vit_b16", image_size: int = 224, shift_div: int = 4
) -> FrameTransformer:
    """Token Shift Transformer: class tokens exchange a quarter of their values with each neighbouring frame."""
    if shift_div < 2:
        raise ActcliError(f"shift_div is {shift_div}; a shift both ways needs at least 2.")
    return FrameTransformer(
        backbone,
        num_classes=num_classes,
        num_frames=num_frames,
        image_size=image_size,
        block=partial(TokenShiftBlock, num_frames=num_frames, shift_div=shift_div),
    )
