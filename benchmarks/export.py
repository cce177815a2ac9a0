"""Export every model and compare the scores of onnxruntime and of the exported program with ours, on real clips.

The clips are videos of a folder, extracted as frames and as optical flow.

python benchmarks/export.py --clips ../shared/clips [--only tsm vit] --write     # results/export.json

With ``--only`` the rows of other models stay in the file as they are.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from actcli.engine.export import export_model, real_inputs
from actcli.ingest import ExtractOptions, extract_dataset
from actcli.models import VideoModel, create_model, list_models, save_weights
from actcli.shards import ShardOptions, ShardSet, write_shards

RESULTS = Path(__file__).with_name("results") / "export.json"
SMALL = {"vit": {"image_size": 32, "backbone": "vit_ti16"}, "tokshift": {"image_size": 32, "backbone": "vit_ti16"}}
"""Options that keep the run short; the operators are the same."""
NUM_CLIPS = 6
"""Videos to take; broken ones are left out."""
SIZES = {"gsm": 224, "gsf": 224, "stmulnet": 64}
"""Inception networks pool over a fixed window."""


def real_shards(clips: Path, folder: Path) -> ShardSet:
    """The shortest videos as shards of frames and flow."""
    videos = sorted((path for path in clips.iterdir() if path.suffix == ".mp4"), key=lambda path: path.stat().st_size)
    for number, video in enumerate(videos[:NUM_CLIPS]):
        for split in ("train", "val"):
            place = folder / "raw" / split / ("even", "odd")[number % 2] / f"{split}-{video.name}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(video.absolute())
    for modality in ("rgb", "flow"):
        extract_dataset(ExtractOptions("real", folder / "raw", folder / "frames", modality=modality, short_side=256))
    write_shards(ShardOptions(folder / "frames", folder / "shards"))
    return ShardSet.open(folder / "shards")


def settle(model: VideoModel, size: int, shards: ShardSet) -> None:
    """Give batch norm the statistics of real clips, as a training does.

    Random weights with those of nothing let values grow from layer to layer, until rounding alone changes the scores.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for inputs in real_inputs(model, size, shards):
            model(*inputs)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    model.eval()


def main() -> None:
    """Export one backbone of each model, in both forms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=Path, required=True, help="Folder of videos.")
    parser.add_argument("--only", nargs="+", choices=[info.name for info in list_models()], help="Models.")
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        shards = real_shards(arguments.clips, Path(folder))
        for info in list_models():
            if arguments.only and info.name not in arguments.only:
                continue
            options = SMALL.get(info.name, {})
            weights = Path(folder) / "model.safetensors"
            model = create_model(info.name, num_classes=174, num_frames=4, **options)
            settle(model, SIZES.get(info.name, 32), shards)
            save_weights(model, weights, {"size": SIZES.get(info.name, 32)})
            for form in ("onnx", "torch"):
                began = time.perf_counter()
                done = export_model(weights, Path(folder) / "model", form, shards=shards)
                row = {
                    "model": info.name,
                    "backbone": model.config["backbone"],
                    "form": form,
                    "difference": done.difference,
                    "real_clips": done.num_real_clips,
                    "seconds": round(time.perf_counter() - began, 1),
                    "megabytes": round(done.path.stat().st_size / 1e6, 1),
                }
                rows.append(row)
                print(row, flush=True)
    if arguments.write:
        done = {row["model"] for row in rows}
        kept = [row for row in json.loads(RESULTS.read_text()) if row["model"] not in done]
        RESULTS.write_text(json.dumps(sorted(kept + rows, key=lambda row: str(row["model"])), indent=1) + "\n")


if __name__ == "__main__":
    main()
