"""Export every model and compare the scores of onnxruntime and of the exported program with ours.

python benchmarks/export.py --write     # results/export.json
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from actcli.engine.export import export_model
from actcli.models import create_model, list_models, save_weights

RESULTS = Path(__file__).with_name("results") / "export.json"
SMALL = {"vit": {"image_size": 32, "backbone": "vit_ti16"}, "tokshift": {"image_size": 32, "backbone": "vit_ti16"}}
"""Options that keep the run short; the operators are the same."""
SIZES = {"gsm": 224, "gsf": 224, "stmulnet": 64}
"""Inception networks pool over a fixed window."""


def main() -> None:
    """Export one backbone of each model, in both forms."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for info in list_models():
            options = SMALL.get(info.name, {})
            weights = Path(folder) / "model.safetensors"
            model = create_model(info.name, num_classes=174, num_frames=4, **options)
            save_weights(model, weights, {"size": SIZES.get(info.name, 32)})
            for form in ("onnx", "torch"):
                began = time.perf_counter()
                done = export_model(weights, Path(folder) / "model", form)
                row = {
                    "model": info.name,
                    "backbone": model.config["backbone"],
                    "form": form,
                    "difference": done.difference,
                    "seconds": round(time.perf_counter() - began, 1),
                    "megabytes": round(done.path.stat().st_size / 1e6, 1),
                }
                rows.append(row)
                print(row, flush=True)
    if parser.parse_args().write:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
