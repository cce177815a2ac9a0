"""``actcli ensemble``: fuse the scores of several evaluations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from actcli.cli._console import cell, console, percent, table
from actcli.cli._options import HERE, WorkspaceOption
from actcli.cli._workspace import Workspace
from actcli.errors import ActcliError

if TYPE_CHECKING:
    from actcli.engine.results import Metrics


def ensemble_command(
    parts: Annotated[list[str], typer.Argument(help="Evaluations: runs, or folders with scores.parquet.")],
    weights: Annotated[
        list[float] | None, typer.Option(help="One weight per evaluation: --weights 1 1.5", metavar="W W …")
    ] = None,
    workspace: WorkspaceOption = HERE,
    out_dir: Annotated[Path | None, typer.Option(help="Where the results go.", show_default="runs/ensembles/…")] = None,
) -> None:
    """Fuse saved scores: the weighted mean of class probabilities, joined on the clip's key."""
    from actcli.engine.comparison import find_evaluation, short_name
    from actcli.engine.ensemble import fuse
    from actcli.engine.evaluator import scored_shards, write_evaluation
    from actcli.engine.metrics import details, summarise
    from actcli.engine.results import plain_numbers, read_metrics

    names, numbers = _split_weights(parts, weights or [])
    folders = [find_evaluation(Workspace(workspace).runs, name) for name in names]
    fused = fuse(folders, numbers)
    texts = ("dataset", "shards", "split", "split_id", "model", "weights")
    numbers_of = ("gflops", "gflops_per_view", "num_views", "parameters")
    metrics = [read_metrics(folder, texts, numbers_of) for folder in folders]
    _check_dataset(folders, metrics)
    shards = scored_shards(metrics[0])
    shares = numbers or [1.0] * len(folders)
    result: Metrics = {
        **metrics[0],
        **summarise(fused),
        **details(fused, shards.card.classes),
        "model": " + ".join(part["model"] for part in metrics),
        "weights": " + ".join(part["weights"] for part in metrics),
        "trained": " + ".join(str(part.get("trained")) for part in metrics),
        "run": None,
        "num_views": sum(part["num_views"] for part in metrics),
        "protocol": "mean of class probabilities of "
        + ", ".join(f"{folder} (weight {share:g})" for folder, share in zip(folders, shares, strict=True)),
        "gflops": sum(part["gflops"] for part in metrics),
        "gflops_per_view": sum(part["gflops_per_view"] for part in metrics),
        "parameters": sum(part["parameters"] for part in metrics),
    }
    target = out_dir or Workspace(workspace).runs / "ensembles" / _folder_name(folders, shares)
    write_evaluation(target, fused, plain_numbers(result), shards, result["split"], result["split_id"])
    numbers_table = table("evaluation", "#weight", "#top-1", "#top-5", "#mean class")
    called = [short_name(Path(name), folder) for name, folder in zip(names, folders, strict=True)]
    for name, share, part in zip([*called, "fused"], [*shares, None], [*metrics, result], strict=True):
        accuracies = part.get("top1"), part.get("top5"), part.get("mean_class_accuracy")
        numbers_table.add_row(cell(name), "" if share is None else f"{share:g}", *map(percent, accuracies))
    console.print(numbers_table)
    console.print(f"report: {target / 'report.html'}", markup=False)


def _check_dataset(folders: list[Path], metrics: list["Metrics"]) -> None:
    """Refuse other datasets and splits, whose keys and labels may be the same by chance."""
    tested = [f"{part['dataset']}, {part['split']}, split set {part['split_id']}" for part in metrics]
    for folder, other in zip(folders, tested, strict=True):
        if other != tested[0]:
            raise ActcliError(
                f"{folders[0]} is of {tested[0]}; {folder} is of {other}. Fuse evaluations of the same split."
            )


def _split_weights(parts: list[str], weights: list[float]) -> tuple[list[str], list[float]]:
    """Weights after the first arrive among the arguments: ``A B --weights 1 1.5`` is parts A B 1.5, weights 1."""
    names = list(parts)
    trailing: list[float] = []
    while weights and names and _is_number(names[-1]) and not Path(names[-1]).exists():
        trailing.insert(0, float(names.pop()))
    return names, [*weights, *trailing]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _folder_name(folders: list[Path], shares: list[float]) -> str:
    """``rgb+flow-1x1.5-3f2a91c0``: other parts or weights give another name, however long the parts' names are."""
    import hashlib

    identity = "\n".join(str(folder.resolve()) for folder in folders) + repr(shares)
    names = "+".join(_short(folder) for folder in folders)[:80]
    weights = "x".join(f"{share:g}" for share in shares)
    return f"{names}-{weights}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def _short(folder: Path) -> str:
    return folder.parents[1].name if folder.parent.name == "eval" else folder.name
