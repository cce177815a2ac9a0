"""The DALI backend against the CPU backend: the same plan must give the same batch, up to rounding.

The two decode to the same pixels on the CPU (the GPU's decoder rounds otherwise) and differ in the resize: training on
the CPU shrinks by up to 1.2 without smoothing, which is most of the difference; weights are rounded in other places;
and at the edge of a box the CPU repeats the last pixel while DALI looks at the picture beyond it.
"""

import sys

import cv2
import pytest
import torch

from actcli.errors import ActcliError
from actcli.loaders import Augmentation, open_loader
from actcli.loaders.augment import ColourJitter

from .conftest import ShardMaker, jpeg, picture
from .test_video import encode, video_shards

TOLERANCE = 1.5
"""Mean absolute difference in grey levels of 255."""

SETUP = {"num_frames": 3, "size": 112, "batch_size": 2, "seed": 3}


def check_same_batches(root, device=None, **setup):
    setup = SETUP | setup
    with (
        open_loader(root, workers=0, backend="cpu", **setup) as cpu,
        open_loader(root, workers=1, backend="dali", device=device, **setup) as dali,
    ):
        num_batches = 0
        for ours, theirs in zip(cpu, dali, strict=True):
            theirs = theirs.to("cpu")
            assert ours.keys.tolist() == theirs.keys.tolist()
            assert ours.labels.tolist() == theirs.labels.tolist()
            for name in ("rgb", "flow"):
                one, other = getattr(ours, name), getattr(theirs, name)
                if one is not None:
                    assert one.shape == other.shape
                    difference = (one.int() - other.int()).abs().float().mean((2, 3, 4, 5))
                    assert difference.max() < TOLERANCE
            num_batches += 1
        assert num_batches == len(cpu) > 1


CASES = {
    "training": {},
    "evaluation": {"training": False, "num_test_clips": 2, "num_crops": 3},
    "ten crops": {"training": False, "num_crops": 10},
    "cubic": {"sampling": "tokshift"},
    "small": {"training": False, "size": 32},
    "small, cubic": {"training": False, "size": 56, "sampling": "tokshift"},
    "random resized": {"augmentation": Augmentation(crop="random_resized", erasing=1.0)},
    "colour": {
        "augmentation": Augmentation(colour_jitter=ColourJitter((0.5, 2), (0.5, 2), (0, 2), (0.5, 2), (-0.5, 0.5)))
    },
}


@pytest.mark.parametrize("case", CASES)
def test_dali_gives_the_cpu_batches_on_real_footage(real_shards, case):
    check_same_batches(real_shards, **CASES[case])


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_dali_on_the_gpu_gives_the_cpu_batches_on_real_footage(real_shards, case):
    check_same_batches(real_shards, device="cuda", **CASES[case])


@pytest.mark.gpu
def test_workers_forked_after_cuda_has_begun_decode_the_same(real_shards):
    """nvImageCodec runs in the workers too, and must keep off the GPU there."""
    with open_loader(real_shards, backend="cpu", **SETUP) as loader:
        before = [batch.clips.clone() for batch in loader]
    torch.zeros(1, device="cuda")
    with open_loader(real_shards, backend="cpu", device="cuda", **SETUP) as loader:
        after = [batch.clips.cpu() for batch in loader]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("modality", ["rgb", "flow", "two_stream"])
@pytest.mark.parametrize("training", [True, False])
def test_dali_gives_the_cpu_batches_of_every_modality(make_shards, modality, training):
    root = make_shards(num_clips=8, flow=True)
    check_same_batches(root, modality=modality, training=training, size=40, scale_size=40, batch_size=2)


@pytest.mark.parametrize("backend", ["cpu", "dali"])
def test_flow_of_another_size_than_rgb_is_cut_at_the_same_place(tmp_path, backend):
    maker = ShardMaker(tmp_path, flow=True)
    rgb = [jpeg(cv2.resize(picture(0, 0), (192, 128)))] * 4
    maker.add(rgb, [jpeg(picture(0, 0)[..., 0])] * 6, width=192, height=128)
    setup = {"num_frames": 1, "size": 40, "batch_size": 1, "training": False, "num_crops": 3}
    with open_loader(maker.finish(), backend=backend, modality="two_stream", flow_stack=2, **setup) as loader:
        [batch] = loader
    difference = batch.rgb[:, :, :, 0].int() - batch.flow[:, :, :, 0].int()
    assert difference.abs().float().mean() < 6


def test_dali_starts_again_after_an_abandoned_epoch(make_shards):
    root = make_shards(num_clips=10)
    setup = SETUP | {"size": 40, "batch_size": 2}
    with open_loader(root, backend="dali", **setup) as loader:
        whole = [batch.keys.tolist() for batch in loader]
        for stop in (1, 4, 5):
            for _ in zip(range(stop), loader, strict=False):
                pass
            state = loader.state_dict()
            loader.load_state_dict(state)
            assert [batch.keys.tolist() for batch in loader] == whole[stop:]
        assert [batch.keys.tolist() for batch in loader] == whole


def test_dali_batches_stay_when_the_next_one_comes(make_shards):
    with open_loader(make_shards(num_clips=8), backend="dali", training=False, **SETUP | {"size": 40}) as loader:
        kept = list(loader)
        again = [batch.clips.clone() for batch in loader]
    assert all(torch.equal(one.clips, other) for one, other in zip(kept, again, strict=True))


def test_dali_names_shard_and_clip_of_a_broken_sample(make_shards):
    root = make_shards(num_clips=4, num_shards=1)
    data = bytearray((root / "train-000000.tar").read_bytes())
    position = data.index(b"\xff\xd8", data.index(b"000000002.mjpeg"))
    data[position : position + 300] = bytes(300)
    (root / "train-000000.tar").write_bytes(data)
    setup = {"training": False, "num_frames": 12, "size": 40, "batch_size": 2}
    with (
        open_loader(root, backend="dali", **setup) as loader,
        pytest.raises(ActcliError, match=r"clip 000000002 in shard train-000000\.tar"),
    ):
        list(loader)


def test_a_missing_dali_is_said_in_one_sentence(make_shards, monkeypatch):
    for name in ("nvidia", "nvidia.dali"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        open_loader(make_shards(), backend="dali", **SETUP | {"size": 40}) as loader,
        pytest.raises(ActcliError, match=r"pip install nvidia-dali"),
    ):
        next(iter(loader))


def test_auto_takes_the_cpu_backend_without_a_gpu(make_shards):
    assert open_loader(make_shards(), backend="auto", **SETUP | {"size": 40}).backend == "cpu"


@pytest.mark.parametrize("modality", ["rgb", "flow", "two_stream"])
def test_a_rank_without_clips_gets_empty_batches(make_shards, modality):
    root = make_shards(num_clips=2, flow=True)
    setup = {"num_frames": 2, "size": 40, "batch_size": 1, "training": False, "rank": 3, "world_size": 4}
    shapes = []
    for backend in ("cpu", "dali"):
        with open_loader(root, backend=backend, modality=modality, **setup) as loader:
            [batch] = loader
        shapes.append([None if stream is None else stream.shape for stream in (batch.rgb, batch.flow, batch.keys)])
    assert shapes[0] == shapes[1]


def test_h264_on_the_cpu_is_refused_in_one_sentence(tmp_path):
    root = video_shards(tmp_path, [(encode(10), 10)] * 2)
    message = r"^DALI decodes H.264 video on a GPU only\. Use backend cpu"
    with open_loader(root, backend="dali", **SETUP | {"size": 40}) as loader, pytest.raises(ActcliError, match=message):
        next(iter(loader))
