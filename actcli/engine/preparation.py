"""What a training needs before its first step: the network with its optimiser, and the loaders."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from lightning_fabric import Fabric

from actcli.engine.hardware import Hardware, available_memory
from actcli.engine.initial import build_model
from actcli.engine.memory import StepMemory, micro_batch_size, step_memory
from actcli.engine.protocols import AskedViews, choose_views
from actcli.engine.runs import RunConfig
from actcli.engine.splits import check_fills_a_batch, open_test, open_training
from actcli.engine.step import TrainingStep
from actcli.engine.tracking import check_trackers
from actcli.loaders import Loader
from actcli.models import VideoModel
from actcli.shards import ShardCard, ShardSet

Note = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """A training on one process, ready for its first step."""

    config: RunConfig
    """With the number of clips of a pass settled."""
    card: ShardCard
    """Of the shards that are trained on."""
    step: TrainingStep
    """The network and its optimiser."""
    train_loader: Loader
    """This process's share of each batch."""
    val_loader: Loader
    """Every clip once over all processes."""


def prepare(config: RunConfig, hardware: Hardware, fabric: Fabric, note: Note) -> Prepared:
    """Build everything, on each process alike.

    Raises:
        ActcliError: Something does not fit together.
    """
    check_trackers(config.recipe.log)
    shards = config.open_shards()
    check_fills_a_batch(shards.card, config.split_id, config.recipe)  # before weights are looked for and steps tried
    model = build_model(config, shards.card.classes, note)
    config = _settle_passes(config, model, fabric, note)
    train_loader, val_loader = _open_loaders(config, model, shards, hardware, fabric, note)
    assert config.micro_batch is not None
    step = TrainingStep(model, config.recipe, len(shards.card.classes), config.micro_batch, fabric)
    return Prepared(config, shards.card, step, train_loader, val_loader)


def _settle_passes(config: RunConfig, model: VideoModel, fabric: Fabric, note: Note) -> RunConfig:
    """Settle how many clips go through the network at once, on all processes alike; say so if not all do."""
    recipe = config.recipe
    batch_size = max(1, recipe.batch_size // fabric.world_size)
    memory = step_memory(model.config, recipe.size or model.input_spec.size)
    if config.micro_batch is None:
        sharing = 1 if fabric.device.type == "cuda" else fabric.world_size
        fitting = memory.fitting_clips(available_memory(fabric.device) // sharing)
        config = replace(config, micro_batch=int(fabric.broadcast(micro_batch_size(batch_size, fitting))))
    assert config.micro_batch is not None
    if config.micro_batch < batch_size:
        note(_cut_note(batch_size, config.micro_batch, memory))
    else:
        note(f"a step takes about {memory.of(batch_size) / 1e9:.1f} GB of memory")
    return config


def _open_loaders(
    config: RunConfig, model: VideoModel, shards: ShardSet, hardware: Hardware, fabric: Fabric, note: Note
) -> tuple[Loader, Loader]:
    recipe, split_id, spec = config.recipe, config.split_id, model.input_spec
    assert config.micro_batch is not None
    views = choose_views(
        AskedViews(),
        recipe.validation,
        training_size=recipe.size or spec.size,
        trained_with=recipe.sampling,
        note=note,
    )
    share = recipe.batch_size // fabric.world_size
    train_loader = open_training(shards, split_id, recipe, spec, hardware, fabric)
    tested = config.open_shards(tests=True)
    val_loader = open_test(
        tested,
        tested.card.evaluation_split(split_id),
        split_id,
        views,
        spec,
        hardware,
        fabric,
        num_frames=recipe.num_frames,
        batch_size=max(1, min(share, 4 * config.micro_batch) // views.num_views),
    )
    return train_loader, val_loader


def _cut_note(batch_size: int, micro_batch: int, memory: StepMemory) -> str:
    return (
        f"each batch of {batch_size} clips goes through the network {micro_batch} at a time, which takes about "
        f"{memory.of(micro_batch) / 1e9:.1f} GB of memory; all at once would take {memory.of(batch_size) / 1e9:.1f} "
        f"GB. Updates are those of the whole batch, but batch norm sees {micro_batch} clips at a time. "
        f"To change that: --micro-batch, --batch-size, --size, --frames, --backbone."
    )
