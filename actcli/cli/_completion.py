"""What the shell completes: names that can be listed without loading anything heavy."""

import os
from importlib import resources
from pathlib import Path


def complete_models(incomplete: str) -> list[str]:
    """Models, by the names of their recipes' first word."""
    return _starting(sorted({name.split("-", 1)[0] for name in _recipe_names()}), incomplete)


def complete_recipes(incomplete: str) -> list[str]:
    """Recipes that come with the package."""
    return _starting(_recipe_names(), incomplete)


def complete_datasets(incomplete: str) -> list[str]:
    """Datasets that the workspace holds in any form."""
    space = _workspace()
    folders = [path for part in ("raw", "frames", "shards") for path in _folders(space / part)]
    return _starting(sorted({path.name for path in folders}), incomplete)


def complete_runs(incomplete: str) -> list[str]:
    """Runs of the workspace, newest first."""
    return _starting(sorted((path.name for path in _folders(_workspace() / "runs")), reverse=True), incomplete)


def _recipe_names() -> list[str]:
    folder = resources.files("actcli.engine") / "recipe_files"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _workspace() -> Path:
    return Path(os.environ.get("ACTCLI_WORKSPACE", "."))


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _starting(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
