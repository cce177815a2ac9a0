"""Optical flow: fields of motion between neighbouring frames, quantised to bytes.

A field has two planes, x and y displacement in pixels from one frame to the next. Byte q stands for
``(q / 255 * 2 - 1) * bound``; larger motion is clipped to the bound, as in the dumps of the two-stream literature.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.ingest.decode import Plane

FlowMethod = Literal["dis", "farneback", "tvl1", "raft"]
FLOW_METHODS: tuple[FlowMethod, ...] = ("dis", "farneback", "tvl1", "raft")

Field = NDArray[np.float32]
"""``[H, W, 2]``: x and y displacement in pixels."""

_RAFT_MULTIPLE = 8
_RAFT_LEAST = 128


def flow_fields(frames: Iterable[Plane], method: FlowMethod) -> Iterator[Field]:
    """Field i is the motion from frame i to frame i + 1: N grey frames give N - 1 fields."""
    estimate = _ESTIMATORS[method]()
    previous: Plane | None = None
    for frame in frames:
        if previous is not None:
            yield estimate(previous, frame)
        previous = frame


def quantise(field: Field, bound: float) -> tuple[Plane, Plane]:
    """The x and the y plane as bytes."""
    scaled = np.rint((np.clip(field, -bound, bound) / bound + 1) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(scaled[..., 0]), np.ascontiguousarray(scaled[..., 1])


def dequantise(x: Plane, y: Plane, bound: float) -> Field:
    """The field that two planes of bytes stand for, in pixels."""
    return ((np.stack([x, y], axis=-1).astype(np.float32) / 255 * 2 - 1) * bound).astype(np.float32)


def flow_to_colour(field: Field, full_scale: float | None = None) -> NDArray[np.uint8]:
    """The field as an RGB picture ``[H, W, 3]``: hue is the direction (red: to the right), saturation the speed.

    ``full_scale`` is the speed in pixels that is fully saturated; by default the 99th percentile of this field,
    but at least one pixel, so that noise on a still picture stays pale.
    """
    speed, angle = cv2.cartToPolar(
        field[..., 0].astype(np.float32), field[..., 1].astype(np.float32), angleInDegrees=True
    )
    scale = full_scale or max(float(np.percentile(speed, 99)), 1.0)
    saturation = np.clip(speed / scale * 255, 0, 255)
    hsv = np.stack([angle / 2, saturation, np.full_like(speed, 255)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def flow_version(method: FlowMethod) -> str:
    """The library that computes the method, for the manifest."""
    if method == "raft":
        import torchvision

        return f"torchvision {torchvision.__version__} raft"
    return f"opencv {cv2.__version__} {method}"


def check_method(method: FlowMethod) -> None:
    """Raise ``ActcliError`` where the method's package or weights are missing."""
    if method == "raft":
        _raft()


def _dis() -> Callable[[Plane, Plane], Field]:
    """Dense inverse search (Kroeger et al., 2016), medium preset."""
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # its stub forbids flow=None
    return lambda first, second: flow.calc(first, second, None)


def _farneback() -> Callable[[Plane, Plane], Field]:
    """Polynomial expansion (Farnebäck, 2003) with OpenCV's customary parameters."""
    calculate: Any = cv2.calcOpticalFlowFarneback
    return lambda first, second: calculate(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)


def _tvl1() -> Callable[[Plane, Plane], Field]:
    """Total variation with L1 data term (Zach et al., 2007), the flow of the two-stream literature."""
    flow: Any = cv2.optflow.DualTVL1OpticalFlow.create()
    return lambda first, second: flow.calc(first, second, None)


@lru_cache(maxsize=1)
def _raft() -> Callable[[Plane, Plane], Field]:
    """RAFT small (Teed and Deng, 2020) from torchvision, on the GPU where there is one.

    Raises:
        ActcliError: torchvision or the weight file is missing.
    """
    try:
        import torch
        from torchvision.models.optical_flow import Raft_Small_Weights, raft_small
    except ImportError:
        raise ActcliError(
            "The flow method raft needs torchvision: pip install torchvision, or use --flow-method dis."
        ) from None
    weights = Raft_Small_Weights.DEFAULT
    file = f"{torch.hub.get_dir()}/checkpoints/{weights.url.rsplit('/', 1)[-1]}"
    model = raft_small(weights=None)
    try:
        model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise ActcliError(
            f"The weights of raft are not at {file}. Bring torchvision's {weights} there, or use --flow-method dis."
        ) from None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)

    def estimate(first: Plane, second: Plane) -> Field:
        with torch.inference_mode():
            pair = [_raft_input(torch, plane).to(device) for plane in (first, second)]
            field = model(*pair)[-1][0].permute(1, 2, 0).cpu().numpy()
        return np.ascontiguousarray(field[: first.shape[0], : first.shape[1]])

    return estimate


def _raft_input(torch: Any, plane: Plane) -> Any:
    """``[1, 3, H, W]`` in -1..1, its sides padded to multiples of 8 and to at least 128."""
    height, width = (max(_RAFT_LEAST, -(-side // _RAFT_MULTIPLE) * _RAFT_MULTIPLE) for side in plane.shape)
    padded = np.pad(plane, ((0, height - plane.shape[0]), (0, width - plane.shape[1])), mode="edge")
    return (torch.from_numpy(padded).float() / 127.5 - 1).expand(1, 3, height, width)


_ESTIMATORS: dict[FlowMethod, Callable[[], Callable[[Plane, Plane], Field]]] = {
    "dis": _dis,
    "farneback": _farneback,
    "tvl1": _tvl1,
    "raft": _raft,
}
