"""Run folders: ``config.yaml``, checkpoints, TensorBoard and evaluations of one training."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

import yaml

from actcli import __version__
from actcli.engine.history import HISTORY_NAME, digest, is_finished, read_history
from actcli.engine.recipes import Recipe, read_fields, read_yaml
from actcli.engine.reporting import EpochReport
from actcli.errors import ActcliError
from actcli.files import read_small_text, write_text_whole
from actcli.shards import WHOLE, ShardSet, Subset, select_shards
from actcli.words import counted

CONFIG_NAME = "config.yaml"
LAST_CHECKPOINT = "checkpoints/last.ckpt"
BEST_WEIGHTS = "checkpoints/best.safetensors"
LAST_WEIGHTS = "checkpoints/last.safetensors"
_KEPT_WEIGHTS = "checkpoints/epoch-{:04d}.safetensors"
_SEAL = "# sha256 of the lines above: "
_EDITED = "{} was edited by hand, or is of an earlier version: it had no checksum"


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
    micro_batch: int | None = None
    """Clips per forward and backward pass, on each process; a batch that does not fit into memory is cut into passes.
    Chosen by the memory at hand unless given, and kept for good, since batch norm sees it."""
    joined: tuple[str, ...] = ()
    """Further folders of shards, whose classes are joined by name."""
    subset: Subset = WHOLE
    """Which clips are trained on; a validation leaves out the same classes and keys, but no share of the clips."""
    changes: tuple[str, ...] = ()
    """What was changed when the run was continued, in words."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ActcliError(f"micro_batch is {self.micro_batch}; it has to be at least 1.")

    def settings(self) -> "RunConfig":
        """What the user decided: without what the machine and later continuations added."""
        return replace(self, micro_batch=None, changes=())

    def open_shards(self, *, tests: bool = False) -> ShardSet:
        """The clips that are trained on, or tested on."""
        return select_shards((self.shards, *self.joined), self.subset.of_tests() if tests else self.subset)

    def write(self, run_dir: Path) -> None:
        """Write ``config.yaml``."""
        run_dir.mkdir(parents=True, exist_ok=True)
        subset = {
            name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.subset).items()
        }
        lists = {"joined": list(self.joined), "changes": list(self.changes), "subset": subset}
        value = {**asdict(self), "recipe": self.recipe.to_dict(), **lists, "actcli": __version__}
        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
        write_text_whole(run_dir / CONFIG_NAME, f"{text}{_SEAL}{digest(text)}\n")

    @staticmethod
    def read(run_dir: Path) -> "RunConfig":
        """Read ``config.yaml``; ``changes`` tell of one whose checksum was taken away to edit it.

        Raises:
            ActcliError: The folder is no run, or its configuration is not what was written, or is wrong.
        """
        path = run_dir / CONFIG_NAME
        try:
            text = read_small_text(path)
            value = read_yaml(text)
            if not isinstance(value, dict):
                raise TypeError("it holds no fields")
            value.pop("actcli")
        except (
            OSError,
            UnicodeDecodeError,
            yaml.YAMLError,
            KeyError,
            TypeError,
            RecursionError,
        ) as error:
            raise ActcliError(
                f"{run_dir} is no run: its {CONFIG_NAME} cannot be read ({error}). Name a run with --run."
            ) from error
        config = read_fields(RunConfig, value, str(path))
        return config if _is_sealed(text, path) else config.edited(CONFIG_NAME)

    def edited(self, name: str) -> "RunConfig":
        """The same, and ``changes`` tell that a file of the run had no checksum."""
        told = _EDITED.format(name)
        return self if told in self.changes else replace(self, changes=(*self.changes, told))


def _is_sealed(text: str, path: Path) -> bool:
    """Whether the last line of a configuration holds its checksum; False where there is none.

    Raises:
        ActcliError: It is that of another text.
    """
    written, seal, found = text.rpartition(_SEAL)
    if seal and found != f"{digest(written)}\n":
        raise ActcliError(
            f"{path} is not what was written: it was edited, or is damaged. Undo the change; or, if you mean it, "
            "delete the last line, which holds the checksum, and all results will say that the run was edited."
        )
    return bool(seal)


@dataclass(frozen=True)
class RunState:
    """How far a run came."""

    run_dir: Path
    """Folder of the run."""
    config: RunConfig
    """What it was started with."""
    epochs: tuple[EpochReport, ...]
    """The epochs that were done."""
    finished: bool
    """Whether it came to its last epoch."""

    @property
    def best_top1(self) -> float | None:
        """The best validation, 0..1, or None before the first."""
        return max((epoch.val_top1 for epoch in self.epochs if epoch.val_top1 is not None), default=None)

    def in_words(self) -> str:
        """``finished``, or ``interrupted after 3 of 50 epochs``."""
        if self.finished:
            return "finished"
        return f"interrupted after {len(self.epochs)} of {counted(self.config.recipe.epochs, 'epoch')}"


def read_state(run_dir: Path) -> RunState:
    """How far a run came.

    Raises:
        ActcliError: The folder is no run, or its history is not what was written, or cannot be read.
    """
    config = RunConfig.read(run_dir)
    epochs, is_sealed = read_history(run_dir)
    return RunState(run_dir, config if is_sealed else config.edited(HISTORY_NAME), epochs, is_finished(run_dir))


def kept_weights(epoch: int) -> str:
    """Where the weights after ``epoch`` (0-based) are kept for good; the name counts epochs that were done."""
    return _KEPT_WEIGHTS.format(epoch + 1)


@contextmanager
def writing_run(run_dir: Path) -> Iterator[None]:
    """Say of every error of the disk what is kept and how to go on.

    Raises:
        ActcliError: Something in ``run_dir`` could not be written or read.
    """
    try:
        yield
    except OSError as error:
        where = run_dir if error.filename is None else error.filename
        raise ActcliError(
            f"{where} cannot be written or read ({error.strerror or error}). What the last checkpoint holds is kept; "
            f"when the disk is well again, continue with: actcli train --resume --run-dir {shlex.quote(str(run_dir))}"
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


def find_run(runs: Path, name: str | None) -> Path:
    """The run called ``name`` (or that folder), or the newest.

    Raises:
        ActcliError: There is none.
    """
    found = list_runs(runs)
    if name is None:
        if not found:
            raise ActcliError(f"there is no run in {runs}. Train one first: actcli train --model tsm")
        return found[-1]
    for candidate in (Path(name), runs / name):
        if (candidate / CONFIG_NAME).exists():
            return candidate
    known = ", ".join(run.name for run in found[-5:]) or "none"
    raise ActcliError(f"there is no run {name!r} in {runs}; the newest are: {known}. Choose one with --run.")


def find_same(runs: Path, config: RunConfig, *, finished: bool) -> Path | None:
    """The newest run with exactly these settings that did, or did not, come to its end."""
    return next((run for run in reversed(list_runs(runs)) if is_finished(run) == finished and _has(run, config)), None)


def _has(run_dir: Path, config: RunConfig) -> bool:
    try:
        return RunConfig.read(run_dir).settings() == config.settings()
    except ActcliError:  # made by another version: whatever it was started with, it was not this
        return False


def weights_path(run_dir: Path, which: str = "best") -> Path:
    """The best or last weights of a run.

    Raises:
        ActcliError: The run has none yet.
    """
    path = run_dir / (BEST_WEIGHTS if which == "best" else LAST_WEIGHTS)
    if not path.exists():
        raise ActcliError(
            f"{run_dir} has no {which} weights yet: no epoch was validated. Continue it with: actcli train --resume "
            f"--run-dir {shlex.quote(str(run_dir))}"
        )
    return path
