"""What a training would take on this machine, before it is begun."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import ceil

import torch

from actcli.engine.hardware import Hardware, available_memory, training_device
from actcli.engine.memory import micro_batch_size, step_memory
from actcli.engine.run_files import run_bytes
from actcli.engine.runs import RunConfig
from actcli.engine.splits import check_fills_a_batch
from actcli.models import create_from_config, profile_config
from actcli.models.profile import example_inputs

_TIMED_CLIPS = 2


@dataclass(frozen=True)
class TrainingPlan:
    """What a training would take."""

    num_clips: Mapping[str, int]
    """Clips per split of the split set."""
    steps_per_epoch: int
    """Updates of the loader, the incomplete batch left out."""
    epochs: int
    """Passes over the training split."""
    parameters: int
    """Trained values."""
    gflops: float
    """Multiply-accumulates of one clip, forward, in units of 1e9."""
    micro_batch: int
    """Clips through the network at once on this machine."""
    memory_bytes: int
    """What that takes."""
    free_bytes: int
    """What is free."""
    disk_bytes: int
    """What the run's folder will hold at most."""
    clip_seconds: float
    """Time of a training step per clip on this machine, reading and validation left out."""

    def rows(self) -> list[tuple[str, str]]:
        """As a table: what, value."""
        clips = ", ".join(f"{split} {count}" for split, count in self.num_clips.items())
        epoch_seconds = self.clip_seconds * self.num_clips["train"]
        epoch, whole = (timedelta(seconds=ceil(seconds)) for seconds in (epoch_seconds, epoch_seconds * self.epochs))
        return [
            ("clips", clips),
            ("steps", f"{self.steps_per_epoch} an epoch, {self.steps_per_epoch * self.epochs} in all"),
            ("parameters", f"{self.parameters / 1e6:.1f} M"),
            ("GFLOPs per clip", f"{self.gflops:.1f} forward, about three times that for a training step"),
            ("clips at once", str(self.micro_batch)),
            ("memory", f"{self.memory_bytes / 1e9:.1f} GB of {self.free_bytes / 1e9:.1f} GB free"),
            ("disk", f"{self.disk_bytes / 1e9:.2f} GB"),
            ("time", f"about {epoch} an epoch, {whole} in all (h:min:s; a step timed, reading left out)"),
        ]


def plan_training(config: RunConfig, hardware: Hardware) -> TrainingPlan:
    """What ``config`` would take on this machine: counted, and timed on two clips of noise.

    Raises:
        ActcliError: There is no such split set, or its training clips do not fill one batch.
    """
    recipe = config.recipe
    card = config.open_shards().card
    splits = card.splits(config.split_id) | {
        split: count
        for split, count in config.open_shards(tests=True).card.splits(config.split_id).items()
        if split != "train"
    }
    check_fills_a_batch(card, config.split_id, recipe)
    model = recipe.model_config(len(card.classes))
    profile = profile_config(model, recipe.size)
    memory = step_memory(model, recipe.size or profile.input_shapes[0][-1])
    device = training_device(hardware)
    free = available_memory(device)
    micro_batch = config.micro_batch or micro_batch_size(recipe.batch_size, memory.fitting_clips(free))
    return TrainingPlan(
        num_clips=splits,
        steps_per_epoch=splits.get("train", 0) // recipe.batch_size,
        epochs=recipe.epochs,
        parameters=profile.parameters,
        gflops=profile.macs / 1e9,
        micro_batch=micro_batch,
        memory_bytes=memory.of(micro_batch),
        free_bytes=free,
        disk_bytes=run_bytes(recipe, profile.parameters),
        clip_seconds=_clip_seconds(device, min(_TIMED_CLIPS, micro_batch), model, recipe.size),
    )


def _clip_seconds(device: torch.device, num_clips: int, config: Mapping[str, object], size: int | None) -> float:
    """What a training step takes per clip, measured on clips of noise after one step to warm up."""
    with device:
        model = create_from_config(config).train().to(memory_format=torch.channels_last)
        inputs = example_inputs(model, batch_size=num_clips, size=size)
        labels = torch.zeros(num_clips, dtype=torch.long)

    def step() -> None:
        loss, _ = model.training_loss(inputs, labels, torch.nn.CrossEntropyLoss())
        loss.backward()  # type: ignore[no-untyped-call]
        loss.item()  # waits for the device

    step()
    before = time.perf_counter()
    step()
    return (time.perf_counter() - before) / num_clips
