"""The batches of a small loader as values that can be compared."""

import torch

from actcli.loaders import open_loader

SMALL = {"num_frames": 4, "size": 40, "scale_size": 40, "batch_size": 2, "workers": 0}


def batches(root, **setup):
    with open_loader(root, **SMALL | setup) as loader:
        return [(batch.keys.tolist(), batch.labels.tolist(), batch.clips.clone()) for batch in loader]


def same(one, other):
    return len(one) == len(other) and all(
        a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(one, other, strict=True)
    )
