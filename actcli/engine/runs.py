"""Run folders: ``config.yaml``, checkpoints, TensorBoard and evaluations of one training."""

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from actcli import __version__
from actcli.engine.recipes import Recipe
from actcli.errors import ActcliError

CONFIG_NAME = "config.yaml"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
BEST_WEIGHTS = "checkpoints/best.safetensors"
LAST_WEIGHTS = "checkpoints/last.safetensors"
HISTORY_NAME = "history.jsonl"


@dataclass(frozen=True)
class RunConfig:
    """What a run was started with; ``config.yaml`` holds exactly this."""

    recipe: Recipe
    """Every number of the training."""
    dataset: str
    """Dataset name."""
    shards: str
    """Folder or URL of the shards."""
    split_id: str = "1"
    """Split set trained on."""
    init: str | None = None
    """Weights the training starts from."""
    new_head: bool = False
    """Whether the classifier of ``init`` is replaced."""

    def write(self, run_dir: Path) -> None:
        """Write ``config.yaml``."""
        run_dir.mkdir(parents=True, exist_ok=True)
        value = {**self.__dict__, "recipe": self.recipe.to_dict(), "actcli": __version__}
        partial = run_dir / f".{CONFIG_NAME}.tmp"
        partial.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
        partial.replace(run_dir / CONFIG_NAME)

    @staticmethod
    def read(run_dir: Path) -> "RunConfig":
        """Read ``config.yaml``.

        Raises:
            ActcliError: The folder is no run.
        """
        path = run_dir / CONFIG_NAME
        try:
            value: dict[str, Any] = yaml.safe_load(path.read_text())
            value.pop("actcli")
            return RunConfig(**{**value, "recipe": Recipe.from_dict(value["recipe"], f"{path}: recipe")})
        except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
            raise ActcliError(
                f"{run_dir} is no run: its {CONFIG_NAME} cannot be read ({error}). Name a run with --run."
            ) from error


def run_name(recipe: Recipe, dataset: str, split_id: str, now: datetime) -> str:
    """``20260131-235959-masnet-sthv2-8f``, with the split set where it is not the first."""
    split = f"-split{split_id}" if split_id != "1" else ""
    return f"{now:%Y%m%d-%H%M%S}-{recipe.model}-{dataset}-{recipe.num_frames}f{split}"


def list_runs(folder: Path) -> list[Path]:
    """Run folders, oldest first, by the time their configuration was written."""
    if not folder.is_dir():
        return []
    runs = [path for path in folder.iterdir() if (path / CONFIG_NAME).exists()]
    return sorted(runs, key=lambda path: ((path / CONFIG_NAME).stat().st_mtime_ns, path.name))


def find_unfinished(folder: Path, config: RunConfig) -> Path | None:
    """The newest run with exactly this configuration that did not come to its end."""
    return next((run for run in reversed(list_runs(folder)) if not is_finished(run) and _has(run, config)), None)


def _has(run_dir: Path, config: RunConfig) -> bool:
    try:
        return RunConfig.read(run_dir) == config
    except ActcliError:  # made by another version: whatever it was started with, it was not this
        return False


def is_finished(run_dir: Path) -> bool:
    """Whether the training came to its last epoch."""
    return (run_dir / "finished").exists()


def weights_path(run_dir: Path, which: str = "best") -> Path:
    """The best or last weights of a run.

    Raises:
        ActcliError: The run has none yet.
    """
    path = run_dir / (BEST_WEIGHTS if which == "best" else LAST_WEIGHTS)
    if not path.exists():
        raise ActcliError(
            f"{run_dir} has no {which} weights yet: no epoch was validated. Continue it with: actcli train --resume "
            f"--run-dir {os.fspath(run_dir)}"
        )
    return path
