"""The public door: ``open_loader`` checks what is asked for and puts a ``Loader`` together."""

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import get_args

import torch

from actcli.errors import ActcliError
from actcli.loaders.augment import Augmentation
from actcli.loaders.backends import choose_backend
from actcli.loaders.epochs import Epochs, Reading, StreamedEpochs, open_indexed, with_cache
from actcli.loaders.iterating import Loader
from actcli.loaders.order import Order
from actcli.loaders.originals import find_original, find_sampling, original_of
from actcli.loaders.plan import Modality, ViewSettings
from actcli.loaders.views import Size
from actcli.shards import WHOLE, Selection, ShardSet, Subset, select_shards


def open_loader(
    shards: str | Path | ShardSet | Sequence[str | Path],
    split: str = "train",
    num_frames: int = 8,
    size: int = 224,
    batch_size: int = 8,
    workers: int = 2,
    backend: str = "cpu",
    seed: int = 0,
    *,
    split_id: str = "1",
    training: bool | None = None,
    modality: Modality = "rgb",
    flow_stack: int | None = None,
    sampling: str = "segments",
    views: str | None = None,
    num_test_clips: int = 1,
    num_crops: int = 1,
    scale_size: int | None = None,
    augmentation: Augmentation | None = None,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool | None = None,
    device: torch.device | str | None = None,
    reading: Reading | None = None,
    shuffle_buffer: int | None = None,
    subset: Subset = WHOLE,
) -> Loader:
    """Open a split of a shard set for training or evaluation.

    Args:
        shards: Folder or URL of the shards; several folders are joined, their classes by name.
        split: ``train``, ``val`` or ``test``.
        num_frames: Frames (segments) per clip, T.
        size: Height and width of the clips in pixels.
        batch_size: Clips per batch on this rank.
        workers: Processes that read and decode; 0 does it in this process.
        backend: ``cpu``, ``dali``, or ``auto``: DALI on a GPU, otherwise the CPU backend.
        seed: Everything random hangs on it.
        split_id: Split set of the dataset, for UCF101 and HMDB51.
        training: Random views and a shuffled epoch; by default when ``split`` is ``train``.
        modality: ``rgb``, ``flow`` or ``two_stream``.
        flow_stack: Flow fields per segment; 5 for ``flow`` and 10 for ``two_stream`` unless given.
        sampling: How frames are chosen, see ``sampling_names``.
        views: The code base whose resize rule, interpolation, crops and training augmentation are used, such as
            ``tokshift``; that of ``sampling`` unless given.
        num_test_clips: Test clips per video.
        num_crops: Test crops per clip.
        scale_size: Short side before the test crop; the published one for ``size`` unless given.
        augmentation: What training changes at random; the published one unless given.
        rank: Number of this process among ``world_size``.
        world_size: Processes that share the epoch.
        drop_last: Leave out clips that do not fill a batch on all ranks; by default in training.
        device: Where the batches go; they stay in host memory unless given.
        reading: In which order training reads the tars, and what it keeps of those that are far away.
        shuffle_buffer: Read the tars through from front to back, without an index, and shuffle among that many clips;
            by default the index is used, every epoch is shuffled as a whole, and only the frames needed are read. With
            several ranks each of them reads all tars.
        subset: Which clips of the split to take.

    Raises:
        ActcliError: When something asked for does not exist or does not fit together.
    """
    _check_least(0, workers=workers, seed=seed, rank=rank)
    _check_least(1, num_frames=num_frames, size=size, batch_size=batch_size, world_size=world_size)
    _check_least(1, num_test_clips=num_test_clips, num_crops=num_crops, shuffle_buffer=shuffle_buffer)
    _check_least(1, scale_size=scale_size, flow_stack=flow_stack)
    _check_word("modality", modality, get_args(Modality))
    if augmentation is not None and not isinstance(augmentation, Augmentation):
        raise ActcliError(f"augmentation is {augmentation!r}; it must be an actcli.loaders.Augmentation, or left out.")
    place = _find_device(device)
    choose_backend(backend, place)  # refuses an unknown one before anything is opened
    opened = _open_shards(shards, subset)
    backend = choose_backend(backend, place, opened.card.payload)
    training = split == "train" if training is None else training
    if training:
        _check_no_test(num_test_clips, num_crops)
    original = original_of(sampling) if views is None else find_original(views)
    settings = ViewSettings(
        num_frames=num_frames,
        size=size,
        scale_size=scale_size or original.rule.scale_size(size),
        training=training,
        modality=modality,
        flow_stack=flow_stack or (10 if modality == "two_stream" else 5),
        sampling=find_sampling(sampling, training, num_test_clips),
        num_crops=num_crops,
        rule=original.rule,
        augmentation=augmentation or original.augmentation,
        seed=seed,
    )
    _check(settings)
    drop_last = training if drop_last is None else drop_last
    epochs: Epochs
    if shuffle_buffer is None:
        reading = reading or Reading()
        opened = with_cache(opened, reading)
        epochs = open_indexed(opened, split, split_id, settings, reading)
    else:
        _check_stream(opened, modality, world_size)
        epochs = StreamedEpochs(opened, split, split_id, settings, shuffle_buffer)
    order = Order(epochs.num_clips, batch_size, training, drop_last, seed, rank, world_size)
    return Loader(opened, epochs, settings, order, workers, backend, place)


def _open_shards(shards: str | Path | ShardSet | Sequence[str | Path], subset: Subset) -> ShardSet:
    if not isinstance(shards, ShardSet):
        return select_shards([shards] if isinstance(shards, str | Path) else shards, subset)
    if subset != WHOLE:
        raise ActcliError("these shards are open already; give subset to select_shards, or the folder to open_loader.")
    return shards


def _check_stream(shards: ShardSet, modality: Modality, world_size: int) -> None:
    """Refuse what only the index can tell."""
    if isinstance(shards, Selection):
        raise ActcliError(
            "a stream reads all clips of one folder; leave shuffle_buffer out to take some, or join folders."
        )
    if world_size > 1 and modality != "rgb":
        raise ActcliError(
            f"a stream does not know beforehand which clips have flow, so {world_size} ranks would not make the same "
            "steps. Leave shuffle_buffer out, which takes the index."
        )


def _check_least(least: int, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise ActcliError(f"{name} is {number!r}; it must be a whole number.")
        if number < least:
            raise ActcliError(f"{name} is {number}; it must be at least {least}.")


def _check_no_test(num_test_clips: int, num_crops: int) -> None:
    if (num_test_clips, num_crops) != (1, 1):
        raise ActcliError(
            f"num_test_clips={num_test_clips} and num_crops={num_crops} are for tests; training draws one clip and one "
            "crop of a video. Leave them out, or open the loader with training=False."
        )


def _check_word(name: str, word: str, allowed: Sequence[str]) -> None:
    if word not in allowed:
        raise ActcliError(f"unknown {name} {word!r}. As {name}, choose {', '.join(allowed)}.")


def _check(settings: ViewSettings) -> None:
    augmentation = settings.augmentation
    if settings.training and settings.modality != "rgb" and (augmentation.rand_augment or augmentation.erasing):
        raise ActcliError("RandAugment and erasing work on RGB clips only; leave them out for flow.")
    if settings.size > settings.scale_size:
        raise ActcliError(
            f"an input of {settings.size} pixels cannot be cut from a short side of {settings.scale_size}. "
            "Raise scale_size or lower the size."
        )
    if not settings.training:
        square = Size(settings.scale_size, settings.scale_size)
        settings.rule.crops(square, settings.size, settings.num_crops)  # refuses an unknown number of crops


def _find_device(device: torch.device | str | None) -> torch.device | None:
    if device is None:
        return None
    try:
        place = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ActcliError(f"unknown device {device!r}. Choose cpu, cuda or cuda:0.") from error
    num_gpus = torch.cuda.device_count()
    if place.type == "cuda" and (place.index or 0) >= num_gpus:
        raise ActcliError(
            f"device {place} is not here: torch sees {num_gpus} CUDA GPUs. Choose device cpu, or leave device out; "
            "`actcli doctor` shows what is missing."
        )
    return place
