"""What a training writes into its folder beside checkpoints: history, curves and weights."""

from dataclasses import asdict
from pathlib import Path

from actcli.engine.curves import Curves
from actcli.engine.recipes import Recipe
from actcli.engine.reporting import EpochReport, StepReport
from actcli.engine.runs import BEST_WEIGHTS, FINISHED_NAME, LAST_WEIGHTS, RunConfig, write_history
from actcli.files import remove_leftovers
from actcli.models import VideoModel, save_weights
from actcli.shards import ShardCard

_RUN_COPIES = 6
"""Sets of weights in the folder of a run: best, last, the checkpoint with momentum, and that again while written."""
_BYTES = 4


def run_bytes(num_values: int) -> int:
    """What the folder of a run with so many weights takes at most, files that are being written included."""
    return _RUN_COPIES * _BYTES * num_values


def missing_bytes(run_dir: Path, num_values: int) -> int:
    """What the folder of a run will take beside what it holds."""
    held = sum(path.stat().st_size for path in (run_dir / "checkpoints").glob("*"))
    return run_bytes(num_values) - held


class RunFiles:
    """The folder of a run, as its first process writes it."""

    def __init__(self, run_dir: Path, config: RunConfig, card: ShardCard, steps_done: int, *, complete: bool) -> None:
        """Write what the run is, and take back what a killed run wrote after ``steps_done``."""
        self.run_dir, self.config, self.card = run_dir, config, card
        remove_leftovers(run_dir)
        remove_leftovers(run_dir / "checkpoints")
        config.write(run_dir)
        if not complete:
            (run_dir / FINISHED_NAME).unlink(missing_ok=True)
        self._curves = Curves(run_dir / "tensorboard", first_step=steps_done + 1)

    def close(self) -> None:
        """Close what is open."""
        self._curves.close()

    def step(self, report: StepReport, number: int) -> None:
        """Keep the numbers of the step ``number``, counted from the beginning of the training."""
        points = {
            "train/loss": report.loss,
            "train/clips_per_second": report.clips_per_second,
            "train/share_of_time_waiting_for_data": report.waiting,
        }
        self._curves.add(number, points)

    def epoch(self, history: list[EpochReport], model: VideoModel, *, is_best: bool) -> None:
        """Keep an epoch that was done, the last of ``history``, and its weights."""
        report = history[-1]
        write_history(self.run_dir, history)
        points = {f"epoch/{name}": value for name, value in asdict(report).items() if value is not None}
        self._curves.add(report.epoch, points)
        self._save_weights(model, LAST_WEIGHTS, report.epoch)
        if is_best:
            self._save_weights(model, BEST_WEIGHTS, report.epoch)

    def finished(self) -> None:
        """Mark the end of the run."""
        (self.run_dir / FINISHED_NAME).touch()

    def _save_weights(self, model: VideoModel, name: str, epoch: int) -> None:
        recipe: Recipe = self.config.recipe
        rgb = self.card.extraction.get("rgb")
        metadata = {
            "classes": list(self.card.classes),
            "sampling": recipe.sampling,
            "size": recipe.size or model.input_spec.size,
            "test": recipe.to_dict()["test"],
            "source": f"trained on {self.config.dataset} with the recipe {recipe.name}",
            "dataset": self.config.dataset,
            "extraction": dict(rgb.settings) if rgb else None,
            "epoch": epoch,
        }
        save_weights(model, self.run_dir / name, metadata)
