"""The largest batch that goes through a network at once."""

from bisect import bisect_left
from collections.abc import Mapping

import torch

from actcli.engine.hardware import available_memory
from actcli.engine.memory import is_out_of_memory, step_memory
from actcli.engine.optimizer import build_optimizer
from actcli.engine.recipes import Precision, Recipe
from actcli.errors import ActcliError
from actcli.models import VideoModel, create_from_config
from actcli.models.profile import example_inputs

_SPARE = 0.9
"""Share of what was found that is taken: memory falls to pieces over a long training."""
_ROUND = 8
"""Batches of more clips than this are multiples of it."""
_HALF: dict[Precision, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def largest_batch(recipe: Recipe, num_classes: int, device: torch.device, most: int) -> int:
    """Clips, ``most`` at most, that ``device`` can take in one training step.

    A GPU is asked by steps on noise until one fails. The host is not: a process that takes too much of it is killed,
    so there the memory is counted.

    Raises:
        ActcliError: Not even one clip fits.
    """
    config = recipe.model_config(num_classes)
    if device.type != "cuda":
        size = recipe.size or _on_meta(config).input_spec.size
        found = step_memory(config, size).fitting_clips(available_memory(device))
    else:
        with device:
            model = create_from_config(config)
        step = _Trial(model.to(memory_format=torch.channels_last), recipe, device)
        found = bisect_left(range(1, most + 1), True, key=lambda clips: not step.fits(clips))
        if not found:
            raise ActcliError(
                f"not even one clip fits into the memory of {torch.cuda.get_device_name(device)}. Lower --frames or "
                "--size, or take a smaller --backbone."
            )
    return min(most, _rounded(max(1, int(_SPARE * found))))


def _on_meta(config: Mapping[str, object]) -> VideoModel:
    """The network without its numbers."""
    with torch.device("meta"):
        return create_from_config(config)


def _rounded(clips: int) -> int:
    """100 -> 96, 5 -> 5."""
    return clips if clips < _ROUND else clips - clips % _ROUND


class _Trial:
    """Training steps on noise."""

    def __init__(self, model: VideoModel, recipe: Recipe, device: torch.device) -> None:
        if recipe.freeze == "backbone":
            model.freeze_backbone()
        self.model, self.recipe, self.device = model.train(), recipe, device
        self.optimizer = build_optimizer(model, recipe)

    def fits(self, num_clips: int) -> bool:
        """Whether a step with so many clips finds the memory it needs."""
        try:
            self._step(num_clips)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return True

    def _step(self, num_clips: int) -> None:
        dtype = _HALF.get(self.recipe.precision)
        with self.device:
            inputs = example_inputs(self.model, batch_size=num_clips, size=self.recipe.size)
            labels = torch.zeros(num_clips, dtype=torch.long)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            loss, _ = self.model.training_loss(inputs, labels, torch.nn.CrossEntropyLoss())
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        torch.cuda.synchronize(self.device)
