"""Where the arrays of a batch lie in its memory.

RGB batches lie as ``[B, V, T, H, W, C]`` and flow batches as ``[B, V, T, C, H, W]``, so that OpenCV writes each picture
into its place and nothing is transposed.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from actcli.loaders.batch import Batch
from actcli.loaders.plan import BatchPlan, ViewSettings

Pixels = NDArray[np.uint8]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class BatchLayout:
    """The arrays of a batch, one after the other."""

    rgb: Shape | None
    """``[B, V, T, H, W, 3]``."""
    flow: Shape | None
    """``[B, V, T, C, H, W]``."""

    @classmethod
    def of(cls, settings: ViewSettings, batch_size: int) -> "BatchLayout":
        """The arrays of a full batch."""
        views = (batch_size, settings.num_views, settings.num_frames)
        pixels = (settings.size, settings.size)
        return cls(
            (*views, *pixels, 3) if settings.modality != "flow" else None,
            (*views, 2 * settings.flow_stack, *pixels) if settings.modality != "rgb" else None,
        )

    @cached_property
    def num_bytes(self) -> int:
        """Memory of a full batch."""
        return sum(int(np.prod(shape)) for shape in (self.rgb, self.flow) if shape)

    def views(self, memory: Pixels, num_clips: int) -> tuple[Pixels | None, Pixels | None]:
        """The RGB and the flow array of a batch of ``num_clips`` in ``memory``."""
        arrays: list[Pixels | None] = []
        begin = 0
        for shape in (self.rgb, self.flow):
            if shape is None:
                arrays.append(None)
                continue
            used = (num_clips, *shape[1:])
            end = begin + int(np.prod(used))
            arrays.append(memory[begin:end].reshape(used))
            begin = end
        return arrays[0], arrays[1]


def make_batch(plan: BatchPlan, rgb: Pixels | None, flow: Pixels | None) -> Batch:
    """A batch of filled arrays; nothing is copied."""
    return Batch(
        rgb=None if rgb is None else torch.from_numpy(rgb).movedim(-1, -3),  # B V T H W C -> B V T C H W
        flow=None if flow is None else torch.from_numpy(flow),
        labels=torch.tensor([clip.label for clip in plan.clips], dtype=torch.int64),
        keys=torch.tensor([clip.key for clip in plan.clips], dtype=torch.int64),
    )
