"""Networks of MatConvNet (``.mat``), which ST-MulNet starts from."""

import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actcli.errors import ActcliError


def is_matconvnet(path: str | Path) -> bool:
    """Whether a checkpoint is a MatConvNet file, by its name."""
    return str(path).endswith(".mat")


_EPS = 1e-5
Array = NDArray[np.number]


def read_matconvnet(path: str | Path) -> dict[str, Tensor]:
    """A ResNet-50 of MatConvNet (DagNN ``.mat``) → one of our streams, ``rgb_stream.…`` or ``flow_stream.…``.

    The number of input channels tells the stream. Batch-norm moments hold a standard deviation that includes eps.
    """
    params = dict(_mat_params(path))
    if "conv1_filter" not in params:
        raise ActcliError(f"{path} holds no ResNet of MatConvNet: it has no parameter conv1_filter.")
    stream = "rgb_stream" if _at_least_4d(params["conv1_filter"]).shape[2] == 3 else "flow_stream"
    converted: dict[str, Tensor] = {}
    for name, value in params.items():
        for key, tensor in _tensors(name, value):
            converted[f"{stream}.{key}"] = torch.from_numpy(np.ascontiguousarray(tensor, dtype=np.float32))
    return converted


def _mat_params(path: str | Path) -> Iterator[tuple[str, Array]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        contents: Mapping[str, object] = loadmat(path, squeeze_me=True, struct_as_record=False)
    except FileNotFoundError:
        raise ActcliError(f"there is no checkpoint at {path}.") from None
    except (MatReadError, NotImplementedError, ValueError, TypeError, IndexError, OSError, zlib.error) as error:
        raise ActcliError(f"{path} is no MATLAB file of version 5 to 7, or is damaged ({error}).") from error
    params = _find_params(contents)
    for param in params:
        yield str(param.name), np.asarray(param.value)


def _find_params(node: object) -> NDArray[np.object_]:
    """``params`` lies at the top or in nested structs, ``net`` or ``net.net``."""
    fields = node if isinstance(node, Mapping) else vars(node)
    if "params" in fields:
        return np.atleast_1d(fields["params"])
    for value in fields.values():
        if hasattr(value, "_fieldnames"):
            return _find_params(value)
    raise ActcliError("this .mat file holds no network of MatConvNet: it has no struct array params.")


def _tensors(name: str, value: Array) -> Iterator[tuple[str, Array]]:
    layer, _, kind = name.rpartition("_")
    is_norm = layer.startswith("bn")
    path = _layer_path(layer)
    if kind == "moments":
        yield f"{path}.running_mean", value[:, 0]
        yield f"{path}.running_var", value[:, 1] ** 2 - _EPS
    elif kind == "filter":
        kernel = _at_least_4d(value).transpose(3, 2, 0, 1)  # was H W in out
        yield f"{path}.weight", kernel[:, :, 0, 0] if path == "classifier" else kernel
    elif kind in ("mult", "bias"):
        yield f"{path}.{'weight' if kind == 'mult' and is_norm else 'bias'}", value.reshape(-1)


def _at_least_4d(kernel: Array) -> Array:
    """Undo the squeezing of 1 x 1 kernels: ``[in, out]`` → ``[1, 1, in, out]``."""
    return kernel if kernel.ndim == 4 else kernel.reshape(1, 1, *kernel.shape)


_BRANCHES = {"branch2a": "1", "branch2b": "2", "branch2c": "3"}


def _layer_path(layer: str) -> str:
    if layer in ("conv1", "bn_conv1"):
        return "network.conv1" if layer == "conv1" else "network.bn1"
    match = re.fullmatch(r"(res|bn)(\d)([a-z])_(branch\w+)", layer)
    if match is None:
        return "classifier"
    kind, stage, block, branch = match.groups()
    place = f"network.layer{int(stage) - 1}.{ord(block) - ord('a')}"
    if branch == "branch1":
        return f"{place}.downsample.{0 if kind == 'res' else 1}"
    return f"{place}.{'conv' if kind == 'res' else 'bn'}{_BRANCHES[branch]}"
