"""A backend is whatever turns plans into batches."""

import pytest
import torch

from actcli.errors import ActcliError
from actcli.loaders import Batch, backends, open_loader
from actcli.loaders.backends import backend_names, register_backend

SMALL = {"num_frames": 4, "size": 40, "batch_size": 2, "workers": 0}


class Counting:
    """Pictures without a picture: every pixel is 7."""

    def __init__(self, shards, settings, workers, batch_size, device):
        self.settings, self.closed = settings, False

    def batches(self, plans):
        for plan in plans:
            labels, keys = (torch.tensor([getattr(clip, name) for clip in plan.clips]) for name in ("label", "key"))
            size = self.settings.size
            rgb = torch.full((len(keys), self.settings.num_views, self.settings.num_frames, 3, size, size), 7)
            yield plan, Batch(rgb.byte(), None, labels, keys)

    def close(self):
        self.closed = True


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))
    register_backend("counting", Counting)


@pytest.mark.usefixtures("counting")
def test_a_backend_of_ones_own_gives_the_clips_of_the_others(make_shards):
    root = make_shards()
    with open_loader(root, backend="counting", **SMALL) as own, open_loader(root, **SMALL) as cpu:
        for one, other in zip(own, cpu, strict=True):
            assert (one.keys.tolist(), one.labels.tolist()) == (other.keys.tolist(), other.labels.tolist())
            assert one.clips.shape == other.clips.shape


@pytest.mark.usefixtures("counting")
def test_a_backend_is_closed_with_its_loader(make_shards):
    loader = open_loader(make_shards(), backend="counting", **SMALL)
    next(iter(loader))
    opened = loader._opened
    loader.close()
    assert opened.closed


def test_an_unknown_backend_lists_the_known_ones(make_shards):
    with pytest.raises(ActcliError, match=r"unknown loader 'gpu'\. As backend, choose cpu, dali, auto"):
        open_loader(make_shards(), backend="gpu", **SMALL)


def test_a_name_that_is_taken_is_refused():
    for name in backend_names():
        with pytest.raises(ActcliError, match=f"there is a backend '{name}' already"):
            register_backend(name, Counting)
