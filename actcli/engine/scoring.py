"""Run a model over a split; shared by validation during training and by ``actcli eval``."""

from collections.abc import Callable
from itertools import islice
from typing import TypeVar, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from actcli.engine.inputs import model_inputs
from actcli.engine.metrics import Scores
from actcli.loaders import Loader
from actcli.models import InputSpec

Part = TypeVar("Part")


def score_split(
    model: nn.Module,
    loader: Loader,
    spec: InputSpec,
    fabric: Fabric,
    *,
    keep_views: bool = False,
    num_batches: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Logits of every clip of the loader's split, averaged over its views, from all processes.

    Args:
        model: The bare module on the fabric's device, so that processes with different numbers of batches never wait
            for each other; left in the mode it was in.
        loader: Opened with ``training=False``.
        spec: What the model wants to see.
        fabric: Device, precision and processes.
        keep_views: Keep the logits of each view as well.
        num_batches: Look at the first so many only.
        progress: Called with (batches done, batches).
    """
    was_training = model.training
    model.eval()
    keys, labels, views = [], [], []
    with torch.inference_mode():
        for number, batch in enumerate(islice(loader, num_batches)):
            if len(batch):  # a process may have fewer clips than the others
                batch = batch.to(fabric.device)
                with fabric.autocast():
                    logits = model(*model_inputs(batch, spec)).float()
                views.append(logits.view(len(batch), -1, logits.shape[-1]).cpu().numpy())
                keys.append(batch.keys.cpu().numpy())
                labels.append(batch.labels.cpu().numpy())
            if progress:
                progress(number + 1, len(loader))
    model.train(was_training)
    parts = _gather((keys, labels, views), fabric)
    all_views = np.concatenate([view for part in parts for view in part[2]])
    return Scores(
        keys=np.concatenate([key for part in parts for key in part[0]]).astype(np.int64),
        labels=np.concatenate([label for part in parts for label in part[1]]).astype(np.int64),
        logits=all_views.mean(1),
        view_logits=all_views if keep_views else None,
    ).sorted()


def _gather(part: Part, fabric: Fabric) -> list[Part]:
    if fabric.world_size == 1:
        return [part]
    parts: list[Part | None] = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, part)
    return cast(list[Part], parts)
