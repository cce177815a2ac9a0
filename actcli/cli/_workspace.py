"""The workspace: where raw data, frames, shards and runs lie, and which of them is meant."""

from dataclasses import dataclass
from pathlib import Path

from actcli.errors import ActcliError


@dataclass(frozen=True)
class Workspace:
    """A folder with ``raw/``, ``frames/``, ``shards/`` and ``runs/``."""

    root: Path

    @property
    def raw(self) -> Path:
        """Datasets as downloaded."""
        return self.root / "raw"

    @property
    def frames(self) -> Path:
        """Extracted frames."""
        return self.root / "frames"

    @property
    def shards(self) -> Path:
        """Shards."""
        return self.root / "shards"

    @property
    def runs(self) -> Path:
        """Training runs."""
        return self.root / "runs"

    def raw_dataset(self, dataset: str | None) -> str:
        """The dataset to extract: the one named, or the only one under ``raw/``."""
        if dataset is not None:
            return dataset
        return _only(
            _folders(self.raw),
            f"there is no raw data in {self.raw}. Put a downloaded dataset there, for example "
            f"{self.raw / 'sthv2'}; what each dataset needs: actcli datasets",
            "--dataset",
        )

    def frame_datasets(self, dataset: str | None) -> list[str]:
        """The datasets to shard: the one named, or all under ``frames/``."""
        if dataset is not None:
            return [dataset]
        found = _folders(self.frames)
        if not found:
            raise ActcliError(
                f"there are no frames in {self.frames}. Extract a dataset first: actcli extract --dataset sthv2"
            )
        return found

    def shard_dataset(self, dataset: str | None, shards_dir: str | Path | None = None) -> str:
        """The shards to use: those given, those of the dataset named, or the only ones under ``shards/``."""
        if shards_dir is not None:
            if dataset is not None:
                raise ActcliError(
                    f"--shards-dir {shards_dir} says already which shards are meant; leave out --dataset."
                )
            return str(shards_dir)
        name = dataset or _only(
            _folders(self.shards),
            f"there are no shards in {self.shards}. Write them first: actcli extract --dataset sthv2 && actcli shard",
            "--dataset",
        )
        return str(self.shards / name)


def _folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _only(found: list[str], missing: str, flag: str) -> str:
    if not found:
        raise ActcliError(missing)
    if len(found) > 1:
        raise ActcliError(f"there are several datasets: {', '.join(found)}. Choose one with {flag}.")
    return found[0]
