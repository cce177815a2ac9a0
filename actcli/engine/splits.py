"""Loaders for training and for testing, opened in one place."""

from collections.abc import Callable
from functools import partial
from typing import cast

from lightning_fabric import Fabric

from actcli.engine.hardware import Hardware
from actcli.engine.protocols import TestViews
from actcli.engine.recipes import Recipe
from actcli.errors import ActcliError
from actcli.loaders import Loader, Reading, open_loader
from actcli.loaders.plan import Modality
from actcli.models import InputSpec
from actcli.shards import ShardCard, ShardSet

VIEWS_PER_STEP = 16
"""Views that a test looks at together, unless a batch size is given."""


def check_shared(batch_size: int, num_processes: int) -> None:
    """Refuse batches that cannot be divided evenly.

    Raises:
        ActcliError: They cannot.
    """
    if batch_size % num_processes:
        raise ActcliError(
            f"batches of {batch_size} cannot be shared by {num_processes} processes. Take a number that divides them "
            f"(--devices), or begin a run with another --batch-size."
        )


def check_fills_a_batch(card: ShardCard, split_id: str, recipe: Recipe) -> None:
    """Raise ``ActcliError`` unless the training clips of a split set fill one batch."""
    num_clips = card.splits(split_id).get("train", 0)
    if num_clips < recipe.batch_size:
        raise ActcliError(
            f"{num_clips} training clips do not fill one batch of {recipe.batch_size}. Lower batch_size (--batch-size)."
        )


def open_training(
    shards: ShardSet, split_id: str, recipe: Recipe, spec: InputSpec, hardware: Hardware, fabric: Fabric
) -> Loader:
    """The training split as ``recipe`` wants it, this process's share of each batch."""
    check_shared(recipe.batch_size, fabric.world_size)
    return _opener(split_id, spec, hardware, fabric)(
        shards,
        "train",
        num_frames=recipe.num_frames,
        size=recipe.size or spec.size,
        batch_size=recipe.batch_size // fabric.world_size,
        seed=recipe.seed,
        training=True,
        sampling=recipe.sampling,
        augmentation=recipe.augmentation,
        reading=Reading(recipe.order, hardware.cache_dir, hardware.cache_bytes),
    )


def open_test(
    shards: ShardSet,
    split: str,
    split_id: str,
    views: TestViews,
    spec: InputSpec,
    hardware: Hardware,
    fabric: Fabric,
    *,
    num_frames: int,
    batch_size: int,
) -> Loader:
    """A split seen as ``views`` says, every clip once over all processes."""
    return _opener(split_id, spec, hardware, fabric)(
        shards,
        split,
        num_frames=num_frames,
        size=views.size,
        batch_size=batch_size,
        training=False,
        sampling=views.sampling,
        views=views.views,
        num_test_clips=views.clips,
        num_crops=views.crops,
        scale_size=views.scale_size,
        reading=Reading("index", hardware.cache_dir, hardware.cache_bytes),
    )


def _opener(split_id: str, spec: InputSpec, hardware: Hardware, fabric: Fabric) -> Callable[..., Loader]:
    """``open_loader`` with what training and tests have in common."""
    return partial(
        open_loader,
        split_id=split_id,
        modality=cast(Modality, spec.modality),
        flow_stack=spec.flow_stack or None,
        workers=hardware.workers,
        backend=hardware.loader,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        device=fabric.device if fabric.device.type == "cuda" else None,
    )
