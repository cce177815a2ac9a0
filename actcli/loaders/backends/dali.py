"""Carry out plans with NVIDIA DALI: decoding, crop, resize and flip, on the GPU where there is one.

DALI gets the encoded pictures of a batch and, per picture, the boxes and flips of the plan; it never draws anything
itself. Each picture is decoded once and resized once per crop. What DALI has no operator for, the colour operations,
runs in torch on the device where the pixels are.
"""

import gc
from collections.abc import Iterator
from contextlib import suppress
from itertools import tee
from typing import Any

import numpy as np
import simplejpeg
import torch
import torch.utils.dlpack
from torch import Tensor

from actcli.errors import ActcliError
from actcli.loaders.backends._layout import BatchLayout, make_batch
from actcli.loaders.backends._pixels import apply_torch
from actcli.loaders.backends._source import PictureSource
from actcli.loaders.backends.jpeg import check_header
from actcli.loaders.batch import Batch
from actcli.loaders.plan import BatchPlan, ClipPlan, ViewSettings, WantedPictures, broken_clip
from actcli.shards import ShardSet

# P pictures of a batch, S size; B batch, K test clips, T frames, C channels, H W pixels

_PREFETCH = 2


class DaliBackend:
    """Turns plans into batches with a DALI pipeline per modality."""

    def __init__(
        self, shards: ShardSet, settings: ViewSettings, workers: int, batch_size: int, device: torch.device | None
    ) -> None:
        self._settings = settings
        self._device = device or torch.device("cpu")
        on_gpu = self._device.type == "cuda"
        self._cuda_stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        if shards.card.payload == "source" and settings.modality != "flow":
            raise ActcliError(
                "DALI does not decode videos that are stored as they were downloaded. Use backend cpu (--loader cpu)."
            )
        video = shards.card.payload == "mp4"
        names = [name for name in ("rgb", "flow") if settings.modality in (name, "two_stream")]
        self._pipelines = {
            name: _ModalityPipeline(name, shards, settings, video and name == "rgb", workers, batch_size, self._device)
            for name in names
        }

    def batches(self, plans: Iterator[BatchPlan]) -> Iterator[tuple[BatchPlan, Batch]]:
        """The batches of ``plans``, read ahead."""
        ours, *copies = tee(plans, 1 + len(self._pipelines))
        for pipeline, copy in zip(self._pipelines.values(), copies, strict=True):
            pipeline.start(plan for plan in copy if plan.clips)
        for plan in ours:
            if not plan.clips:  # a rank for which no clip is left; DALI takes no empty batch
                arrays = BatchLayout.of(self._settings, 1).views(np.empty(0, np.uint8), num_clips=0)
                yield plan, make_batch(plan, *arrays).to(self._device)
                continue
            with torch.cuda.stream(self._cuda_stream):  # nothing on the CPU; on a GPU, beside the training step
                outputs = {name: pipeline.run(plan, self._cuda_stream) for name, pipeline in self._pipelines.items()}
                batch = self._batch(plan, outputs)
            if self._cuda_stream is not None:
                self._cuda_stream.synchronize()  # DALI uses its buffers again from here on
                batch.record_stream(torch.cuda.current_stream(self._device))
            yield plan, batch

    def _batch(self, plan: BatchPlan, outputs: dict[str, Tensor]) -> Batch:
        rgb, flow = outputs.get("rgb"), outputs.get("flow")
        if rgb is not None:
            _change_colours(plan, rgb)
        if flow is not None:
            _turn_mirrored_x(plan, flow)
        labels, keys = (
            torch.tensor([getattr(clip, name) for clip in plan.clips], dtype=torch.int64, device=self._device)
            for name in ("label", "key")
        )
        return Batch(None if rgb is None else rgb.movedim(-1, -3), flow, labels, keys)

    def close(self) -> None:
        """Free the pipelines, at once: a process forked later must not inherit them."""
        self._pipelines.clear()
        gc.collect()


def _change_colours(plan: BatchPlan, clips_BVTHWC: Tensor) -> None:
    for clip, views_VTHWC in zip(plan.clips, clips_BVTHWC, strict=True):
        if clip.operations:
            for view in views_VTHWC:
                view.copy_(apply_torch(view, clip.operations))


def _turn_mirrored_x(plan: BatchPlan, flow_BVTCHW: Tensor) -> None:
    for clip, views_VTCHW in zip(plan.clips, flow_BVTCHW, strict=True):
        for number, view in enumerate(views_VTCHW):
            if clip.crops[number % len(clip.crops)].flip:
                view[:, 0::2] = 255 - view[:, 0::2]


class _ModalityPipeline:
    """Decodes and crops RGB or flow."""

    def __init__(
        self,
        name: str,
        shards: ShardSet,
        settings: ViewSettings,
        video: bool,
        workers: int,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self._name = name
        self._source = PictureSource(shards)
        self._settings = settings
        self._video = video
        self._on_gpu = device.type == "cuda"
        self._plans: Iterator[BatchPlan] = iter(())
        self._pipeline = self._build(max(workers, 1), batch_size, device)

    # --- The graph ----------------------------------------------------------------------------------------------------

    def _build(self, num_threads: int, batch_size: int, device: torch.device) -> Any:
        dali = _import_dali()
        pipeline = dali.Pipeline(
            batch_size=batch_size * self._most_samples_per_clip(),
            num_threads=num_threads,
            device_id=(device.index or 0) if self._on_gpu else None,
            prefetch_queue_depth=_PREFETCH,
        )
        num_inputs = 2 if self._video else 1
        with pipeline:
            inputs = dali.fn.external_source(
                source=self._next_inputs, num_outputs=num_inputs + 3 * self._settings.num_crops, batch=True
            )
            pictures = self._decode(dali, inputs[:num_inputs], "mixed" if self._on_gpu else "cpu")
            pipeline.set_outputs(*self._views(dali, pictures, inputs[num_inputs:]))
        pipeline.build()
        return pipeline

    def _most_samples_per_clip(self) -> int:
        settings = self._settings
        if self._video:
            return 1
        channels = 1 if self._name == "rgb" else 2 * settings.flow_stack
        return settings.sampling.num_test_clips * settings.num_frames * channels

    def _decode(self, dali: Any, inputs: Any, device: str) -> Any:
        if self._video:
            return dali.fn.decoders.video(inputs[0], frames=inputs[1], device=device)
        return dali.fn.decoders.image(
            inputs[0],
            device=device,
            output_type=dali.types.RGB if self._name == "rgb" else dali.types.GRAY,
            jpeg_fancy_upsampling=True,  # on the GPU as on the CPU
        )

    def _views(self, dali: Any, pictures: Any, numbers: Any) -> list[Any]:
        """One output per crop; ``numbers`` are start, end and flip of each crop."""
        cubic = self._settings.rule.interpolation == "cubic"
        views = []
        for crop in range(self._settings.num_crops):
            start, end, flip = numbers[3 * crop : 3 * crop + 3]
            view = dali.fn.resize(
                pictures,
                roi_start=start,
                roi_end=end,
                roi_relative=True,  # flow may be stored in another size than RGB
                size=[self._settings.size] * 2,
                interp_type=dali.types.INTERP_CUBIC if cubic else dali.types.INTERP_LINEAR,
                antialias=True,  # smooths when it shrinks, as Pillow does
            )
            views.append(dali.fn.flip(view, horizontal=flip))
        return views

    # --- Feeding ------------------------------------------------------------------------------------------------------

    def _next_inputs(self) -> list[Any]:
        """What DALI asks for before each batch; ends the epoch when the plans end."""
        plan = next(self._plans)
        self._source.begin(plan)
        encoded: list[Any] = []
        frames, counts = [], []
        for clip, wanted in self._wanted(plan):
            pictures = self._read(clip, wanted)
            encoded += pictures
            counts.append(len(pictures))
            frames.append(np.array(wanted.frames, np.int32)[wanted.slots.reshape(-1)])
        return [encoded, *([frames] if self._video else []), *self._crop_inputs(plan, counts)]

    def _wanted(self, plan: BatchPlan) -> list[tuple[ClipPlan, WantedPictures]]:
        return [(clip, clip.rgb if self._name == "rgb" else clip.flow) for clip in plan.clips]  # type: ignore[misc]

    def _read(self, clip: ClipPlan, wanted: WantedPictures) -> list[Any]:
        try:
            pictures = self._source.pictures(wanted)
            for picture in [] if self._video else pictures:
                check_header(picture, clip.frame_size if self._name == "rgb" else None)
            return [np.frombuffer(picture, np.uint8) for picture in pictures]
        except (ValueError, OSError) as error:
            raise broken_clip(clip, wanted, error) from error

    def _crop_inputs(self, plan: BatchPlan, counts: list[int]) -> list[Any]:
        inputs: list[Any] = []
        for number in range(self._settings.num_crops):
            crops = [clip.crops[number] for clip in plan.clips]
            sides = np.array([(clip.frame_size.height, clip.frame_size.width) for clip in plan.clips], np.float32)
            start = np.array([(crop.y, crop.x) for crop in crops], np.float32) / sides
            end = np.array([(crop.y + crop.height, crop.x + crop.width) for crop in crops], np.float32) / sides
            flip = np.array([crop.flip for crop in crops], np.int32)
            inputs += [np.repeat(values, counts, axis=0) for values in (start, end, flip)]
        return inputs

    # --- Running ------------------------------------------------------------------------------------------------------

    def start(self, plans: Iterator[BatchPlan]) -> None:
        """Begin with new plans; what is left of abandoned ones is thrown away."""
        self._plans = iter(())
        with suppress(StopIteration):
            while True:
                self._pipeline.run()
        self._pipeline.reset()
        self._plans = plans

    def run(self, plan: BatchPlan, cuda_stream: torch.cuda.Stream | None) -> Tensor:
        """The pictures of the next batch: RGB ``[B, V, T, H, W, 3]``, flow ``[B, V, T, C, H, W]``."""
        try:
            outputs = self._pipeline.run(cuda_stream)
        except RuntimeError as error:
            raise self._explain(plan, error) from error
        views = [self._placed(torch.utils.dlpack.from_dlpack(output.as_tensor()), plan) for output in outputs]
        clips: Tensor = torch.stack(views, dim=2).flatten(1, 2)  # B K crops T … -> B V T …
        return clips if self._name == "rgb" else clips[..., 0]

    def _placed(self, pictures: Tensor, plan: BatchPlan) -> Tensor:
        """``pictures [P, S, S, channels]`` to their places, ``[B, *slots, S, S, channels]``."""
        wanted = [one for _, one in self._wanted(plan)]
        if self._video:  # already the wanted frames of each clip, B (K T) H W C
            return pictures.view(len(wanted), *wanted[0].slots.shape, *pictures.shape[2:])
        first = np.cumsum([0, *(len(one.offsets) for one in wanted)])
        places = np.stack([one.slots + begin for one, begin in zip(wanted, first, strict=False)])
        return pictures[torch.from_numpy(places).to(pictures.device)]

    def _explain(self, plan: BatchPlan, error: RuntimeError) -> ActcliError:
        """Find the picture that DALI could not decode."""
        if self._video and not self._on_gpu:
            return ActcliError(
                "DALI decodes H.264 video on a GPU only. Use backend cpu (--loader cpu) for these shards."
            )
        self._source.begin(plan)
        for clip, wanted in self._wanted(plan):
            for picture in [] if self._video else self._read(clip, wanted):
                try:
                    simplejpeg.decode_jpeg(picture)
                except ValueError as problem:
                    return broken_clip(clip, wanted, problem)
        first, last = plan.clips[0].key, plan.clips[-1].key
        return ActcliError(
            f"DALI failed in the batch of clips {first:09d} … {last:09d}: {error}. Try backend cpu (--loader cpu)."
        )


def _import_dali() -> Any:
    try:
        from nvidia import dali
        from nvidia.dali import fn, types  # noqa: F401  dali.fn and dali.types are used
    except ImportError as error:
        raise ActcliError(
            "the DALI loader needs NVIDIA DALI, which is not installed. "
            "Run: pip install nvidia-dali-cuda130, or use backend cpu (--loader cpu)."
        ) from error
    return dali
