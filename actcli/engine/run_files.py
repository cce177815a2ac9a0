"""What a training writes into its folder beside checkpoints: history, curves and weights."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actcli.engine.history import FINISHED_NAME, write_finished, write_history
from actcli.engine.recipes import Recipe
from actcli.engine.reporting import EpochReport, StepReport
from actcli.engine.runs import BEST_WEIGHTS, LAST_WEIGHTS, RunConfig, kept_weights
from actcli.engine.tracking import open_trackers
from actcli.files import remove_leftovers
from actcli.models import VideoModel, WeightFacts, save_weights
from actcli.shards import ShardCard

_BYTES = 4


def run_bytes(recipe: Recipe, num_values: int) -> int:
    """What the folder of a run with so many weights takes at most, files that are being written included."""
    moments = 2 if recipe.optimizer == "adamw" else 1
    checkpoint = 1 + moments + (recipe.ema is not None)
    kept = recipe.epochs // recipe.keep_every if recipe.keep_every else 0
    return (2 * checkpoint + 2 + kept) * _BYTES * num_values  # the old one lies there until the new one is whole


def missing_bytes(run_dir: Path, recipe: Recipe, num_values: int) -> int:
    """What the folder of a run will take beside what it holds."""
    held = sum(path.stat().st_size for path in (run_dir / "checkpoints").glob("*"))
    return run_bytes(recipe, num_values) - held


class RunFiles:
    """The folder of a run, as its first process writes it."""

    def __init__(
        self,
        run_dir: Path,
        config: RunConfig,
        card: ShardCard,
        history: Sequence[EpochReport],
        steps_done: int,
        *,
        complete: bool,
    ) -> None:
        """Write what the run is, and take back what a killed run wrote after the steps and epochs that are done."""
        self.run_dir, self.config, self.card = run_dir, config, card
        remove_leftovers(run_dir)
        remove_leftovers(run_dir / "checkpoints")
        config.write(run_dir)
        if history:
            write_history(run_dir, history)
        if not complete:
            (run_dir / FINISHED_NAME).unlink(missing_ok=True)
        self._trackers = open_trackers(run_dir, config, steps_done + 1)

    def close(self) -> None:
        """Close what is open."""
        for tracker in self._trackers:
            tracker.close()

    def step(self, report: StepReport, number: int) -> None:
        """Keep the numbers of the step ``number``, counted from the beginning of the training."""
        points = {
            "train/loss": report.loss,
            "train/clips_per_second": report.clips_per_second,
            "train/share_of_time_waiting_for_data": report.waiting,
        }
        self._add(number, points)

    def picture(self, name: str, picture_HWC: NDArray[np.uint8], number: int) -> None:
        """Keep a picture of the step ``number``."""
        for tracker in self._trackers:
            tracker.picture(number, name, picture_HWC)

    def epoch(self, history: list[EpochReport], model: VideoModel, number: int, *, is_best: bool) -> None:
        """Keep an epoch that was done, the last of ``history``, after ``number`` steps, and its weights."""
        report = history[-1]
        write_history(self.run_dir, history)
        points = {f"epoch/{name}": value for name, value in asdict(report).items() if value is not None}
        self._add(number, points)
        self._save_weights(model, LAST_WEIGHTS, report.epoch)
        every = self.config.recipe.keep_every
        if every and (report.epoch + 1) % every == 0:
            self._save_weights(model, kept_weights(report.epoch), report.epoch)
        if is_best:
            self._save_weights(model, BEST_WEIGHTS, report.epoch)

    def finished(self) -> None:
        """Mark the end of the run."""
        write_finished(self.run_dir)

    def _add(self, number: int, points: dict[str, float]) -> None:
        for tracker in self._trackers:
            tracker.add(number, points)

    def _save_weights(self, model: VideoModel, name: str, epoch: int) -> None:
        recipe = self.config.recipe
        rgb = self.card.extraction.get("rgb")
        facts: WeightFacts = {
            "classes": list(self.card.classes),
            "sampling": recipe.sampling,
            "size": recipe.size or model.input_spec.size,
            "test": asdict(recipe.test),
            "source": f"trained on {self.config.dataset} with the recipe {recipe.name}",
            "dataset": self.config.dataset,
            "extraction": dict(rgb.settings) if rgb else None,
            "epoch": epoch,
            "ema": recipe.ema,
        }
        save_weights(model, self.run_dir / name, facts)
