"""The public door: ``open_loader`` gives batches of clips, in an order that can be taken up anywhere."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from actcli.errors import ActcliError
from actcli.loaders._ring import BatchRing
from actcli.loaders._workers import Backend, WorkerPool
from actcli.loaders.augment import Augmentation
from actcli.loaders.batch import Batch
from actcli.loaders.cpu import BatchLayout, CpuBackend
from actcli.loaders.order import Order
from actcli.loaders.originals import find_original, find_sampling, original_of
from actcli.loaders.plan import BatchPlan, FlipPolicy, Modality, Planner, ViewSettings
from actcli.loaders.streaming import StreamPlans
from actcli.loaders.views import Size
from actcli.shards import ShardIndex, ShardSet

_STATE_VERSION = 1
_PREFETCH = 2
_HELD_BY_USER = 2


def open_loader(
    shards: str | Path | ShardSet,
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
    shuffle_buffer: int | None = None,
) -> "Loader":
    """Opens a split of a shard set for training or evaluation.

    Args:
        shards: folder or URL of the shards.
        split: ``train``, ``val`` or ``test``.
        num_frames: frames (segments) per clip, T.
        size: height and width of the clips in pixels.
        batch_size: clips per batch on this rank.
        workers: processes that read and decode; 0 does it in this process.
        backend: ``cpu``, ``dali``, or ``auto``: DALI on a GPU, otherwise the CPU backend.
        seed: everything random hangs on it.
        split_id: split set of the dataset, for UCF101 and HMDB51.
        training: random views and a shuffled epoch; by default when ``split`` is ``train``.
        modality: ``rgb``, ``flow`` or ``two_stream``.
        flow_stack: flow fields per segment; 5 for ``flow`` and 10 for ``two_stream`` unless given.
        sampling: how frames are chosen, see ``sampling_names``.
        views: the code base whose resize rule, interpolation, crops and training augmentation are used, such as
            ``tokshift``; that of ``sampling`` unless given.
        num_test_clips: test clips per video.
        num_crops: test crops per clip.
        scale_size: short side before the test crop; the published one for ``size`` unless given.
        augmentation: what training changes at random; the published one unless given.
        rank: number of this process among ``world_size``.
        world_size: processes that share the epoch.
        drop_last: leave out clips that do not fill a batch on all ranks; by default in training.
        device: where the batches go; they stay in host memory unless given.
        shuffle_buffer: read the tars through from front to back, without an index, and shuffle among that many clips;
            by default the index is used, every epoch is shuffled as a whole, and only the frames needed are read. With
            several ranks each of them reads all tars.

    Raises:
        ActcliError: when something asked for does not exist or does not fit together.
    """
    _check_least(0, workers=workers, seed=seed, rank=rank)
    _check_least(1, num_frames=num_frames, size=size, batch_size=batch_size, world_size=world_size)
    _check_least(1, num_test_clips=num_test_clips, num_crops=num_crops, shuffle_buffer=shuffle_buffer)
    _check_least(1, scale_size=scale_size, flow_stack=flow_stack)
    _check_word("modality", modality, get_args(Modality))
    _check_word("backend", backend, ("cpu", "dali", "auto"))
    if augmentation is not None and not isinstance(augmentation, Augmentation):
        raise ActcliError(f"augmentation is {augmentation!r}; it must be an actcli.loaders.Augmentation, or left out.")
    opened = shards if isinstance(shards, ShardSet) else ShardSet.open(str(shards))
    training = split == "train" if training is None else training
    if training and (num_test_clips, num_crops) != (1, 1):
        raise ActcliError(
            f"num_test_clips={num_test_clips} and num_crops={num_crops} are for tests; training draws one clip and one "
            "crop of a video. Leave them out, or open the loader with training=False."
        )
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
    place = _find_device(device)
    backend = _choose_backend(backend, place)
    _check(settings)
    drop_last = training if drop_last is None else drop_last
    plans: IndexedPlans | StreamPlans
    if shuffle_buffer is None:
        plans = IndexedPlans(opened, split, split_id, settings)
    elif world_size > 1 and modality != "rgb":
        raise ActcliError(
            f"a stream does not know beforehand which clips have flow, so {world_size} ranks would not make the same "
            "steps. Leave shuffle_buffer out, which takes the index."
        )
    else:
        plans = StreamPlans(opened, split, split_id, settings, shuffle_buffer)
    order = Order(plans.num_clips, batch_size, training, drop_last, seed, rank, world_size)
    return Loader(opened, plans, settings, order, workers, backend, place)


class IndexedPlans:
    """The plans of an epoch, by random access through the index."""

    def __init__(self, shards: ShardSet, split: str, split_id: str, settings: ViewSettings) -> None:
        index = shards.index(split, split_id)
        self._rows = _usable_rows(index, settings.modality, split)
        self.num_clips = len(self._rows)
        self.num_without_flow = len(index.keys) - len(self._rows)
        keys = hashlib.sha256(index.keys[self._rows].tobytes()).hexdigest()
        self.identity = f"{shards.card.source_digest[:16]} {keys[:16]}"
        self._planner = Planner(index, FlipPolicy.of(shards.card), settings, video=shards.card.payload == "mp4")

    def epoch(self, order: Order, epoch: int, first_step: int) -> Iterator[BatchPlan]:
        """The batches from ``first_step`` on."""
        for places, positions in order.batches(epoch, first_step):
            yield self._planner.batch(self._rows[places], positions, epoch)


def _usable_rows(index: ShardIndex, modality: Modality, split: str) -> NDArray[np.int64]:
    """The rows of the clips that have what ``modality`` needs."""
    if not len(index.keys):
        raise ActcliError(f"split {split} has no clips. Look at dataset.json, or extract and shard that split.")
    if modality != "flow" and not index.num_frames.any():
        raise ActcliError(
            f"no clip of split {split} has RGB frames. Use modality flow, or extract (--modality rgb) and shard them."
        )
    if modality != "rgb" and not index.flow_num_frames.any():
        raise ActcliError(
            f"no clip of split {split} has flow. Extract it (--modality flow) and shard again, or use modality rgb."
        )
    has_rgb, has_flow = index.num_frames > 0, index.flow_num_frames > 0
    return np.flatnonzero({"rgb": has_rgb, "flow": has_flow, "two_stream": has_rgb & has_flow}[modality])


def _check_least(least: int, **numbers: int | None) -> None:
    for name, number in numbers.items():
        if number is None:
            continue
        if isinstance(number, bool) or not isinstance(number, Integral):
            raise ActcliError(f"{name} is {number!r}; it must be a whole number.")
        if number < least:
            raise ActcliError(f"{name} is {number}; it must be at least {least}.")


def _check_word(name: str, word: str, allowed: Sequence[str]) -> None:
    if word not in allowed:
        what = {"backend": "loader"}.get(name, name)
        raise ActcliError(f"unknown {what} {word!r}. As {name}, choose {', '.join(allowed)}.")


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


def _choose_backend(backend: str, device: torch.device | None) -> str:
    if backend == "auto":
        return "dali" if device is not None and device.type == "cuda" else "cpu"
    return backend


@dataclass
class _Progress:
    """Where the iteration is: batches of ``epoch`` that were handed out."""

    epoch: int = 0
    step: int = 0


class Loader:
    """Batches of one split, epoch after epoch. Made by ``open_loader``.

    Iterating gives the epoch set by ``set_epoch``, or what is left of it after ``load_state_dict``. Worker processes
    stay between epochs; ``close`` ends them, as do the end of a ``with`` block and garbage collection.
    """

    def __init__(
        self,
        shards: ShardSet,
        plans: IndexedPlans | StreamPlans,
        settings: ViewSettings,
        order: Order,
        workers: int,
        backend: str,
        device: torch.device | None,
    ) -> None:
        self.shards = shards
        self.settings = settings
        self.order = order
        self.backend = backend
        self.device = device
        self.num_bytes_read = 0
        """Bytes that the batches handed out so far took from the shards."""
        self._plans = plans
        self._workers = workers
        self._progress = _Progress()
        self._resume_step = 0
        self._engine: _CpuEngine | Any = None
        self._current: object = None

    @property
    def num_clips(self) -> int:
        """Clips of the split over all ranks."""
        return self._plans.num_clips

    @property
    def num_without_flow(self) -> int:
        """Clips that were left out because they have no flow; a stream knows only of those that came by this epoch."""
        return self._plans.num_without_flow

    @property
    def classes(self) -> list[str]:
        """Class names in the order of the labels."""
        return list(self.shards.card.classes)

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.order.num_steps

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration gives; a new one starts at its beginning."""
        if epoch != self._progress.epoch:
            self._progress = _Progress(epoch)
            self._resume_step = 0

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the epoch that are left."""
        epoch, first_step, self._resume_step = self._progress.epoch, self._resume_step, 0
        self._progress = progress = _Progress(epoch, first_step)
        self._current = this = object()
        try:
            for plan, batch in self._start().batches(self._plans.epoch(self.order, epoch, first_step)):
                progress.step += 1
                self.num_bytes_read += plan.num_bytes
                yield batch
                if self._current is not this:  # the batches that were read ahead are gone
                    break
        except GeneratorExit:
            raise
        except BaseException:  # a broken sample, a dead worker, Ctrl-C: no process stays behind
            self.close()
            raise
        if self._current is not this and progress.step < len(self):
            raise ActcliError(
                "this iteration was cut off: another one was begun on the same loader, or the loader was closed. "
                "Finish one before the next, or open a second loader."
            )

    def _start(self) -> Any:
        if self._engine is None:
            if self.backend == "dali":
                from actcli.loaders.dali import DaliEngine

                self._engine = DaliEngine(self.shards, self.settings, self._workers, self.order.batch_size, self.device)
            else:
                self._engine = _CpuEngine(self.shards, self.settings, self._workers, self.order.batch_size, self.device)
        return self._engine

    def state_dict(self) -> dict[str, Any]:
        """Where the iteration is, counted in batches handed out, and the setup it belongs to; plain data."""
        return {
            "version": _STATE_VERSION,
            "epoch": self._progress.epoch,
            "step": self._resume_step or self._progress.step,
            "setup": self._setup(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes to a place saved by ``state_dict``; the next iteration gives the batches that were left.

        Raises ``ActcliError`` when the loader was opened in another way than the one that was saved.
        """
        if state.get("version") != _STATE_VERSION:
            raise ActcliError(f"loader state of version {state.get('version')}; this one reads {_STATE_VERSION}.")
        saved, current = state.get("setup", {}), self._setup()
        changed = [
            f"{name} (was {saved.get(name)}, is {value})" for name, value in current.items() if saved.get(name) != value
        ]
        if changed:
            raise ActcliError(
                f"the loader state belongs to another setup: {'; '.join(changed)}. "
                "Open the loader as before, or start the epoch anew without the state."
            )
        self._progress = _Progress(state["epoch"], state["step"])
        self._resume_step = state["step"]

    def _setup(self) -> dict[str, Any]:
        """Everything that decides what a batch holds, as plain data."""
        settings = self.settings
        return {
            "clips": self._plans.num_clips,
            "clip list": self._plans.identity,
            "batch size": self.order.batch_size,
            "world size": self.order.world_size,
            "seed": self.order.seed,
            "shuffle": self.order.shuffle,
            "drop last": self.order.drop_last,
            "frames": settings.num_frames,
            "size": settings.size,
            "scale size": settings.scale_size,
            "modality": settings.modality,
            "flow stack": settings.flow_stack,
            "sampling": settings.sampling.name,
            "views": None if settings.rule == original_of(settings.sampling.name).rule else settings.rule.name,
            "crops": settings.num_crops,
            "clips per video": settings.sampling.num_test_clips,
            "augmentation": repr(settings.augmentation) if settings.training else None,
        }

    def close(self) -> None:
        """Ends the workers and frees their memory; batches handed out stay valid."""
        self._current = None
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _CpuEngine:
    """Turns plans into batches with worker processes."""

    def __init__(
        self, shards: ShardSet, settings: ViewSettings, workers: int, batch_size: int, device: torch.device | None
    ) -> None:
        self._layout = batch_layout(settings, batch_size)
        self._depth = max(workers * _PREFETCH, 1)
        self._ring = BatchRing(self._depth + _HELD_BY_USER, self._layout.num_bytes)
        backend: Backend = CpuBackend(
            shards.root,
            self._layout,
            settings.rule.interpolation,
            settings.training,
            video=shards.card.payload == "mp4",
        )
        self._pool = WorkerPool(backend, self._ring, workers)
        self._device = device

    def batches(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchPlan, Batch]]:
        """The batches of ``plans``, read ahead."""
        self._pool.drain()  # what an abandoned iteration left behind
        host_batches = self._host_batches(plans)
        if self._device is None:
            yield from host_batches
        elif self._device.type == "cuda":
            yield from _copied_ahead(host_batches, self._device)
        else:
            for plan, batch in host_batches:
                yield plan, batch.to(self._device)

    def _host_batches(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchPlan, Batch]]:
        more = True
        while more or self._pool.num_waiting:
            while more and self._pool.num_waiting < self._depth:
                plan = next(plans, None)
                if plan is None:
                    more = False
                    break
                self._pool.submit(self._ring.take(), plan)
            if self._pool.num_waiting:
                yield self._receive()

    def _receive(self) -> tuple[BatchPlan, Batch]:
        slot, plan = self._pool.wait()
        rgb, flow = self._layout.views(self._ring.hand_out(slot), len(plan.clips))
        batch = make_batch(plan, rgb, flow)
        if (
            self._ring.num_used - self._pool.num_waiting > _HELD_BY_USER
        ):  # batches are kept: this one gets its own memory
            batch = batch.copy()
            del rgb, flow
        return plan, batch

    def close(self) -> None:
        """Ends the workers."""
        self._pool.close()


def _copied_ahead(
    batches: Iterator[tuple[BatchPlan, Batch]], device: torch.device
) -> Iterator[tuple[BatchPlan, Batch]]:
    """Copies each batch to the GPU while the one before it is being used."""
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ready: tuple[BatchPlan, Batch, torch.cuda.Event] | None = None
    for plan, host in batches:
        pinned = host.pinned()
        with torch.cuda.stream(stream):
            copy = pinned.to(device, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(stream)
        if ready is not None:
            yield _arrived(*ready)
        ready = plan, copy, done
    if ready is not None:
        yield _arrived(*ready)


def _arrived(plan: BatchPlan, batch: Batch, done: torch.cuda.Event) -> tuple[BatchPlan, Batch]:
    """Makes the current stream wait for the copy."""
    current = torch.cuda.current_stream(batch.labels.device)
    current.wait_event(done)
    batch.record_stream(current)
    return plan, batch


def batch_layout(settings: ViewSettings, batch_size: int) -> BatchLayout:
    """The arrays of a full batch."""
    views = (batch_size, settings.num_views, settings.num_frames)
    pixels = (settings.size, settings.size)
    return BatchLayout(
        (*views, *pixels, 3) if settings.modality != "flow" else None,
        (*views, 2 * settings.flow_stack, *pixels) if settings.modality != "rgb" else None,
    )


def make_batch(plan: BatchPlan, rgb: NDArray[np.uint8] | None, flow: NDArray[np.uint8] | None) -> Batch:
    """A batch of filled arrays; nothing is copied."""
    return Batch(
        rgb=None if rgb is None else torch.from_numpy(rgb).movedim(-1, -3),  # B V T H W C -> B V T C H W
        flow=None if flow is None else torch.from_numpy(flow),
        labels=torch.tensor([clip.label for clip in plan.clips], dtype=torch.int64),
        keys=torch.tensor([clip.key for clip in plan.clips], dtype=torch.int64),
    )
