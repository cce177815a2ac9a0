"""TSN: the mean of the scores of single frames, one drawn from each segment of the video.

Paper: Wang et al., "Temporal Segment Networks: Towards Good Practices for Deep Action Recognition", ECCV 2016,
https://arxiv.org/abs/1608.00859.  ``logits = 1/T Σ_t W f(frame_t) + b``: the order of frames plays no part.
"""

from actcli.models.backbones import FRAME_BACKBONES, build_tsn_backbone
from actcli.models.base import SegmentModel
from actcli.models.registry import Published, register

_PUBLISHED = [
    Published(
        "kinetics400",
        "ResNet-50, 8 frames, 1 clip, centre crop",
        68.8,
        "TSM repository, scripts/test_tsm_kinetics_rgb_8f.sh",
    ),
]


@register(backbones=FRAME_BACKBONES, source="tsm", published=_PUBLISHED)
def tsn(
    *, num_classes: int, num_frames: int = 8, backbone: str = "resnet50", modality: str = "rgb", dropout: float = 0.5
) -> SegmentModel:
    """Temporal Segment Network: frames are scored one by one and averaged."""
    network, input_spec = build_tsn_backbone(backbone, modality)
    return SegmentModel(network, input_spec, num_classes=num_classes, num_frames=num_frames, dropout=dropout)
