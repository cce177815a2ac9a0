"""The loader on the CPU: what is in a batch, in which order, and how it goes on after a stop."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch
from PIL import Image

from actcli.errors import ActcliError
from actcli.loaders import Augmentation, open_loader
from actcli.loaders.originals import find_sampling
from actcli.shards import ShardSet, Subset

from .conftest import CLASSES, ShardMaker, flow_picture, jpeg, picture

SMALL = {"num_frames": 4, "size": 40, "scale_size": 40, "batch_size": 2, "workers": 0}


def decoded(pixels, colorspace="RGB"):
    return simplejpeg.decode_jpeg(jpeg(pixels), colorspace)


def expected_view(clip, frames, box, size=40):
    x, y, width, height = box
    crops = [decoded(picture(clip, frame))[y : y + height, x : x + width] for frame in frames]
    return np.stack([pillow_resize(crop, size) for crop in crops])


def pillow_resize(pixels, size=40):
    return np.array(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)).astype(int)


def assert_same_pixels(actual, wanted):
    """Up to one grey level, by which Pillow's and torch's filters round differently."""
    assert np.abs(actual.numpy().astype(int) - wanted).max() <= 1


def test_an_evaluation_batch_holds_the_centre_crop_of_the_middle_frames(make_shards):
    with open_loader(make_shards(), training=False, **SMALL) as loader:
        batch = next(iter(loader))
    assert batch.clips.shape == (2, 1, 4, 3, 40, 40)
    assert batch.clips.dtype == torch.uint8
    for clip in range(2):
        wanted = expected_view(clip, [1, 4, 7, 10], (16, 0, 64, 64))
        assert_same_pixels(batch.clips[clip, 0].movedim(1, -1), wanted)
    assert batch.keys.tolist() == [0, 1]
    assert batch.labels.tolist() == [0, 1]


def test_views_are_clips_times_crops_clip_by_clip(make_shards):
    with open_loader(make_shards(), training=False, num_test_clips=2, num_crops=3, **SMALL) as loader:
        batch = next(iter(loader))
    assert batch.clips.shape == (2, 6, 4, 3, 40, 40)
    for number, frames in enumerate(
        find_sampling("segments", num_test_clips=2).sample(12, 4, np.random.default_rng(0))
    ):
        for crop, x in enumerate((0, 32, 16)):
            wanted = expected_view(1, frames, (x, 0, 64, 64))
            assert_same_pixels(batch.clips[1, number * 3 + crop].movedim(1, -1), wanted)


def test_ten_crops_mirror_every_second_one(make_shards):
    with open_loader(make_shards(), training=False, num_crops=10, **SMALL) as loader:
        clips = next(iter(loader)).clips
    assert torch.equal(clips[:, 1::2], clips[:, 0::2].flip(-1))


def test_a_frame_that_views_share_is_read_once(make_shards):
    root = make_shards(num_clips=2, num_frames=3)
    with open_loader(root, training=False, num_test_clips=4, num_crops=3, **SMALL) as loader:
        list(loader)
        payload = sum(os.path.getsize(path) for path in root.glob("*.tar"))
        assert 0 < loader.num_bytes_read < payload
        frames = [len(jpeg(picture(clip, frame))) for clip in range(2) for frame in range(3)]
        assert loader.num_bytes_read == sum(frames)


def test_large_frames_are_decoded_smaller_without_moving_the_picture(make_shards):
    root = make_shards(num_clips=1, num_frames=1, sizes=[(768, 512)])
    with open_loader(root, training=False, num_frames=1, size=64, scale_size=64, batch_size=1, workers=0) as loader:
        clip = next(iter(loader)).clips[0, 0, 0].movedim(0, -1).numpy()
    whole = decoded(picture(0, 0, 768, 512))[:, 128:640]
    assert np.abs(clip.astype(int) - pillow_resize(whole, 64)).mean() < 1.0


def collect(loader):
    """Keys, labels and pixel sums of what is left of the epoch."""
    return [(b.keys.tolist(), b.labels.tolist(), b.clips.long().sum((1, 2, 3, 4, 5)).tolist()) for b in loader]


def test_workers_give_the_same_batches_as_none(make_shards):
    root = make_shards(num_clips=9)
    results = []
    for workers in (0, 1, 3):
        with open_loader(root, seed=5, **SMALL | {"workers": workers}) as loader:
            results.append(collect(loader))
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 4


def test_the_same_seed_repeats_an_epoch_and_another_epoch_differs(make_shards):
    with open_loader(make_shards(num_clips=8), seed=1, **SMALL) as loader:
        first = collect(loader)
        assert collect(loader) == first
        loader.set_epoch(1)
        assert collect(loader) != first


def test_random_views_do_not_depend_on_the_batch_size(make_shards):
    root = make_shards(num_clips=8)
    sums = []
    for batch_size in (2, 4):
        with open_loader(root, seed=3, **SMALL | {"batch_size": batch_size}) as loader:
            sums.append([value for _, _, values in collect(loader) for value in values])
    assert sums[0] == sums[1]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 3, 5])
def test_resume_continues_where_it_stopped(make_shards, workers, stop):
    root = make_shards(num_clips=10)
    setup = SMALL | {"workers": workers, "seed": 7}
    with open_loader(root, **setup) as loader:
        loader.set_epoch(3)
        whole = collect(loader)
    with open_loader(root, **setup) as loader:
        loader.set_epoch(3)
        batches = iter(loader)
        first = collect(next(batches) for _ in range(stop))
        state = loader.state_dict()
    with open_loader(root, **setup) as resumed:
        resumed.load_state_dict(state)
        resumed.set_epoch(3)
        assert resumed.state_dict() == state
        assert first + collect(resumed) == whole
        assert collect(resumed) == whole


def test_a_changed_setup_is_refused_by_name(make_shards):
    root = make_shards(num_clips=8)
    with open_loader(root, **SMALL) as loader:
        state = loader.state_dict()
    other = open_loader(root, **SMALL | {"batch_size": 4, "seed": 2})
    with pytest.raises(ActcliError, match=r"batch size of all ranks \(was 2, is 4\); seed \(was 0, is 2\)"):
        other.load_state_dict(state)


def test_a_state_of_another_version_is_refused(make_shards):
    loader = open_loader(make_shards(num_clips=4), **SMALL)
    with pytest.raises(ActcliError, match="loader state of version 0; this one reads 1"):
        loader.load_state_dict(loader.state_dict() | {"version": 0})


def test_a_subset_is_taken_where_shards_are_opened(make_shards):
    subset = Subset(max_clips_per_class=1)
    with pytest.raises(ActcliError, match="these shards are open already; give subset to select_shards"):
        open_loader(ShardSet.open(make_shards(num_clips=6)), subset=subset, **SMALL)


def test_what_works_on_colours_only_is_refused_for_flow(make_shards):
    augmentation = Augmentation(erasing=0.5)
    with pytest.raises(ActcliError, match="RandAugment and erasing work on RGB clips only"):
        open_loader(make_shards(flow=True), modality="flow", training=True, augmentation=augmentation, **SMALL)


@pytest.mark.parametrize("device", ["quantum", "cuda:99", torch.device("cuda", 99)])
def test_a_device_that_is_not_there_is_refused(make_shards, device):
    with pytest.raises(ActcliError, match=r"unknown device|is not here: torch sees \d+ CUDA GPUs"):
        open_loader(make_shards(num_clips=3), device=device, **SMALL)
    assert open_loader(make_shards(num_clips=3, name="again"), device="cpu", **SMALL).device == torch.device("cpu")


def test_a_training_goes_on_with_the_same_clips_on_another_number_of_ranks(make_shards):
    root = make_shards(num_clips=18)

    def opened(rank, world_size):
        settings = SMALL | {"batch_size": 4 // world_size, "rank": rank, "world_size": world_size}
        return open_loader(root, training=True, **settings)

    whole = [batch.keys.tolist() for batch in opened(0, 1)]
    first = opened(1, 4)
    next(iter(first))
    state = first.state_dict()
    ranks = [opened(rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(state)
    left = [torch.stack([one.keys, other.keys], 1).flatten().tolist() for one, other in zip(*ranks, strict=True)]
    assert left == whole[1:]


def test_a_flipped_clip_takes_the_label_of_its_mirror_image(make_shards):
    root = make_shards(num_clips=30, num_frames=4, flip="swap")
    still = Augmentation(crop="center")
    with open_loader(root, augmentation=still, **SMALL | {"batch_size": 30}) as loader:
        [batch] = loader
    swapped = 0
    for key, label, clip in zip(batch.keys.tolist(), batch.labels.tolist(), batch.clips, strict=True):
        plain = torch.from_numpy(expected_view(key, [0, 1, 2, 3], (16, 0, 64, 64))).movedim(-1, 1).int()
        is_flipped = (clip[0].int() - plain.flip(-1)).abs().float().mean() < (
            clip[0].int() - plain
        ).abs().float().mean()
        assert label == ([1, 0, 2] if is_flipped else [0, 1, 2])[key % 3]
        swapped += int(is_flipped)
    assert 5 < swapped < 25


def test_a_dataset_that_forbids_flipping_is_never_mirrored(make_shards):
    root = make_shards(num_clips=12, num_frames=4, flip="forbidden")
    with open_loader(root, augmentation=Augmentation(crop="center"), **SMALL | {"batch_size": 12}) as loader:
        [batch] = loader
    for key, clip in zip(batch.keys.tolist(), batch.clips, strict=True):
        plain = expected_view(key, [0, 1, 2, 3], (16, 0, 64, 64)).astype(int)
        assert np.abs(clip[0].movedim(1, -1).numpy() - plain).mean() < 3


def test_flow_batches_stack_x_and_y_in_turn(make_shards):
    root = make_shards(num_clips=3, num_frames=10, flow=True)
    with open_loader(root, training=False, modality="flow", flow_stack=3, **SMALL) as loader:
        batch = next(iter(loader))
    assert batch.clips.shape == (2, 1, 4, 6, 40, 40)
    starts = find_sampling("segments").sample(9, 4, np.random.default_rng(0), stack=3)[0]
    for segment, start in enumerate(starts):
        for channel in range(6):
            grey = decoded(flow_picture(1, start + channel // 2, channel % 2), "GRAY")[:, 16:80, 0]
            assert_same_pixels(batch.clips[1, 0, segment, channel], pillow_resize(grey))


def test_flipping_flow_mirrors_it_and_turns_x_round(make_shards):
    root = make_shards(num_clips=3, num_frames=10, flow=True)
    flipped, plain = (
        open_loader(root, modality="two_stream", augmentation=Augmentation(crop="center", flip=chance), **SMALL)
        for chance in (1.0, 0.0)
    )
    with flipped, plain:
        for one, other in zip(flipped, plain, strict=True):
            assert torch.equal(one.rgb, other.rgb.flip(-1))
            assert torch.equal(one.flow[:, :, :, 0::2], 255 - other.flow[:, :, :, 0::2].flip(-1))
            assert torch.equal(one.flow[:, :, :, 1::2], other.flow[:, :, :, 1::2].flip(-1))


def test_two_stream_flow_surrounds_the_rgb_frame(make_shards):
    root = make_shards(num_clips=1, num_frames=30, flow=True)
    with open_loader(root, training=False, modality="two_stream", **SMALL) as loader:
        batch = next(iter(loader))
    assert batch.rgb.shape == (1, 1, 4, 3, 40, 40)
    assert batch.flow.shape == (1, 1, 4, 20, 40, 40)
    centre = find_sampling("segments").sample(30, 4, np.random.default_rng(0))[0][1]
    grey = decoded(flow_picture(0, centre - 5, 1), "GRAY")[:, 16:80, 0]
    assert_same_pixels(batch.flow[0, 0, 1, 1], pillow_resize(grey))


def test_clips_without_flow_are_left_out_and_counted(make_shards):
    root = make_shards(num_clips=8, flow=True)
    with open_loader(root, training=False, modality="flow", **SMALL) as loader:
        keys = [key for batch in loader for key in batch.keys.tolist()]
        assert keys == [0, 1, 2, 4, 5, 6]
        assert loader.num_without_flow == 2
        assert loader.num_clips == 6


def test_a_batch_that_is_kept_is_not_overwritten(make_shards):
    root = make_shards(num_clips=20)
    with open_loader(root, training=False, **SMALL | {"workers": 2}) as loader:
        kept = list(loader)
        sums = collect(loader)
    assert collect(kept) == sums


def test_a_broken_sample_names_shard_and_clip(make_shards):
    root = make_shards(num_clips=4, num_shards=1)
    data = bytearray((root / "train-000000.tar").read_bytes())
    position = data.index(b"\xff\xd8", data.index(b"000000002.mjpeg"))
    data[position : position + 300] = bytes(300)
    (root / "train-000000.tar").write_bytes(data)
    for workers in (0, 1):
        with open_loader(root, training=False, **SMALL | {"workers": workers, "num_frames": 12}) as loader:
            batches = iter(loader)
            assert next(batches).keys.tolist() == [0, 1]
            with pytest.raises(ActcliError, match=r"clip 000000002 in shard train-000000\.tar cannot be read"):
                next(batches)
    assert not multiprocessing.active_children()


def test_a_truncated_shard_names_shard_and_clip(make_shards):
    root = make_shards(num_clips=4, num_shards=1)
    path = root / "train-000000.tar"
    path.write_bytes(path.read_bytes()[:6000])
    with open_loader(root, training=False, **SMALL) as loader, pytest.raises(ActcliError, match=r"clip 00000000\d in"):
        list(loader)


def test_a_dead_worker_is_reported_and_leaves_no_process(make_shards):
    with open_loader(make_shards(num_clips=40), training=False, **SMALL | {"workers": 2}) as loader:
        batches = iter(loader)
        next(batches)
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
        with pytest.raises(ActcliError, match=r"worker was ended by SIGKILL while it read shard train"):
            list(batches)
        assert not multiprocessing.active_children()
        assert len(list(loader)) == 20


def test_an_interrupt_leaves_no_process(make_shards):
    with open_loader(make_shards(num_clips=40), training=False, **SMALL | {"workers": 2}) as loader:
        batches = iter(loader)
        next(batches)
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt())
        assert not multiprocessing.active_children()


LOOP = """
import multiprocessing, os, signal, sys
from actcli.loaders import open_loader
with open_loader(sys.argv[1], num_frames=2, size=40, batch_size=2, workers=2) as loader:
    for epoch in range(10**6):
        for batch in loader:
            if epoch == 0:
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
                epoch = 1
            elif epoch == 3:  # Ctrl-C of a terminal reaches every process of the group
                os.killpg(0, signal.SIGINT) if sys.argv[2] == "SIGINT" else os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_or_a_killed_parent_leaves_no_worker(make_shards, stop):
    command = [sys.executable, "-c", LOOP, str(make_shards(num_clips=8)), stop.name]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, start_new_session=True)
    assert done.returncode == -stop
    assert done.stderr.count("KeyboardInterrupt") == (1 if stop == signal.SIGINT else 0)
    workers = done.stdout.splitlines()[0].split()
    assert len(workers) == 2
    while any(is_alive(pid) for pid in workers):  # they have let go of the pipe, or this would not be reached
        time.sleep(0.02)


def is_alive(pid):
    status = Path(f"/proc/{pid}/status")
    try:
        return "\nState:\tZ" not in status.read_text()
    except FileNotFoundError:
        return False


def test_closing_ends_the_workers_and_keeps_batches(make_shards):
    loader = open_loader(make_shards(num_clips=8), training=False, **SMALL | {"workers": 2})
    batch = next(iter(loader))
    before = batch.clips.clone()
    loader.close()
    loader.close()
    assert not multiprocessing.active_children()
    assert torch.equal(batch.clips, before)


def test_nothing_is_put_into_dev_shm(make_shards):
    before = of_dev_shm(os.getpid())
    with open_loader(make_shards(num_clips=8), training=False, **SMALL | {"workers": 2}) as loader:
        batch = next(iter(loader))
        workers = [child.pid for child in multiprocessing.active_children()]
        assert len(workers) == 2
        for pid in (os.getpid(), *workers):
            assert of_dev_shm(pid) <= before
    del batch


def of_dev_shm(pid):
    """Files there that a process has open or in its memory; other processes have theirs."""
    opened = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            opened.append(os.readlink(path))
    mapped = [line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return {name for name in (*opened, *mapped) if name.startswith("/dev/shm")}


def test_no_memory_for_the_batches_is_said_plainly(make_shards, monkeypatch):
    import actcli.loaders.backends._ring as ring

    def fail(*_):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(ring.mmap, "mmap", fail)
    with open_loader(make_shards(), **SMALL) as loader, pytest.raises(ActcliError, match="Lower batch_size"):
        next(iter(loader))


def test_all_ranks_together_give_every_clip_once(make_shards):
    root = make_shards(num_clips=7)
    ranks = [open_loader(root, training=False, rank=rank, world_size=3, **SMALL) for rank in range(3)]
    keys = [[batch.keys.tolist() for batch in loader] for loader in ranks]
    assert {len(batches) for batches in keys} == {len(ranks[0])}
    assert sorted(key for batches in keys for batch in batches for key in batch) == list(range(7))


def test_classes_and_lengths_are_told(make_shards):
    with open_loader(make_shards(num_clips=5), training=False, **SMALL) as loader:
        assert loader.classes == list(CLASSES)
        assert (loader.num_clips, len(loader)) == (5, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"backend": "gpu"}, "unknown loader 'gpu'"),
        ({"sampling": "tms"}, "unknown sampling"),
        ({"modality": "flow"}, "no clip of split train has flow"),
        ({"size": 64, "scale_size": 40}, "cannot be cut from a short side of 40"),
        ({"num_crops": 4, "training": False}, "1, 3, 5, 10 crops, not 4"),
        ({"batch_size": 100}, "do not fill one batch"),
    ],
)
def test_a_wrong_request_is_refused_at_once(make_shards, wrong, message):
    with pytest.raises(ActcliError, match=message):
        open_loader(make_shards(), **SMALL | wrong)


def test_an_iteration_that_was_cut_off_says_so(make_shards):
    for workers in (0, 2):
        with open_loader(make_shards(num_clips=12), training=False, **SMALL | {"workers": workers}) as loader:
            one, other = iter(loader), iter(loader)
            next(one), next(other)
            with pytest.raises(ActcliError, match="cut off: another one was begun"):
                next(one)
            assert len(list(other)) == 5  # the newer one goes on undisturbed
            held = iter(loader)
            next(held)
            loader.close()
            with pytest.raises(ActcliError, match="cut off"):
                next(held)
            assert len(list(loader)) == 6
            for number, _ in enumerate(loader, 1):
                if number == 6:
                    loader.close()  # nothing was left to lose


@pytest.mark.parametrize("backend", ["cpu", "dali"])
def test_a_tar_cut_short_while_it_is_read_is_an_error(make_shards, backend):
    if backend == "dali":
        pytest.importorskip("nvidia.dali")
    root = make_shards(num_clips=30, num_shards=1)
    with open_loader(root, training=False, backend=backend, **SMALL) as loader:
        batches = iter(loader)
        next(batches)
        os.truncate(root / "train-000000.tar", 20_000)
        with pytest.raises(ActcliError, match=r"clip 0000000\d\d in shard train-000000\.tar.*was cut short"):
            list(batches)


def test_a_state_of_another_dataset_is_refused(make_shards, reseal):
    with open_loader(make_shards(num_clips=6), **SMALL) as loader:
        state = loader.state_dict()
    other = make_shards(num_clips=6, name="other")
    reseal(other, source_digest="six other clips")
    with open_loader(other, **SMALL) as loader, pytest.raises(ActcliError, match="another setup: clip list"):
        loader.load_state_dict(state)


def test_a_forked_child_leaves_the_workers_alone(make_shards):
    with open_loader(make_shards(num_clips=20), training=False, **SMALL | {"workers": 2}) as loader:
        batches = iter(loader)
        next(batches)
        child = multiprocessing.get_context("fork").Process(target=loader.close)
        child.start()
        child.join(30)
        assert child.exitcode == 0
        assert len(list(batches)) == 9


def _in_a_daemon(root, answers):
    try:
        with open_loader(root, **SMALL | {"workers": 1}) as loader:
            answers.put(len(list(loader)))
    except ActcliError as error:
        answers.put(str(error))


def test_a_loader_in_a_worker_process_says_what_to_do(make_shards):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=_in_a_daemon, args=(make_shards(), answers), daemon=True)
    process.start()
    assert "workers=0" in answers.get()
    process.join(30)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_test_clips": 0, "training": False}, "num_test_clips is 0; it must be at least 1"),
        ({"workers": -2}, "workers is -2"),
        ({"size": 0}, "size is 0"),
        ({"shuffle_buffer": 0}, "shuffle_buffer is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"modality": "depth"}, "unknown modality 'depth'"),
        ({"device": "gpu"}, "unknown device 'gpu'"),
        ({"device": 3.5}, "unknown device 3.5"),
        ({"device": "cuda:77"}, r"device cuda:77 is not here: torch sees \d+ CUDA GPUs"),
        ({"num_frames": "8"}, "num_frames is '8'; it must be a whole number"),
        ({"size": (32, 32)}, r"size is \(32, 32\); it must be a whole number"),
        ({"batch_size": True}, "batch_size is True; it must be a whole number"),
        ({"scale_size": 0}, "scale_size is 0; it must be at least 1"),
        ({"flow_stack": 0}, "flow_stack is 0; it must be at least 1"),
        ({"backend": ["cpu"]}, "unknown loader .*As backend, choose cpu, dali, auto"),
        ({"num_test_clips": 3}, "num_test_clips=3 and num_crops=1 are for tests.*training=False"),
        ({"num_crops": 10}, "num_test_clips=1 and num_crops=10 are for tests"),
        ({"augmentation": "none"}, "augmentation is 'none'; it must be an actcli.loaders.Augmentation"),
    ],
)
def test_numbers_and_words_are_checked(make_shards, wrong, message):
    with pytest.raises(ActcliError, match=message):
        open_loader(make_shards(), **SMALL | wrong)


def test_rgb_is_not_asked_of_shards_of_flow(tmp_path):
    maker = ShardMaker(tmp_path, flow=True)
    maker.add([], [jpeg(flow_picture(0, field, axis)) for field in range(5) for axis in (0, 1)])
    root = maker.finish()
    for modality in ("rgb", "two_stream"):
        with pytest.raises(ActcliError, match=r"no clip of split train has RGB frames.*modality flow"):
            open_loader(root, modality=modality, **SMALL)
    with open_loader(root, modality="flow", training=False, **SMALL) as loader:
        assert len(list(loader)) == 1


def test_the_smallest_clips_can_be_trained_on(tmp_path):
    maker = ShardMaker(tmp_path)
    for _ in range(2):
        maker.add([jpeg(picture(0, 0, 1, 1))], width=1, height=1)
    with open_loader(maker.finish(), **SMALL) as loader:
        assert [batch.clips.shape for batch in loader] == [(2, 1, 4, 3, 40, 40)]
