"""Loaders that feed a GPU: clips per second, and how much of a training step is spent waiting for data.

    python benchmarks/gpu_loader.py                    on the GPU; writes results/gpu_loader.json
    python benchmarks/gpu_loader.py --device cpu       the same code on the CPU, to see that it runs

The model is a ResNet-50 over 8 frames with averaged scores (TSN), trained under automatic mixed precision. Waiting is
the time in which the training loop asks for the next batch, measured with the device idle before and after.
"""

import argparse
import json
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torchvision
from _shards import SHAPES, endless, make_shards
from loader import processor_seconds

from actcli.loaders import Batch, Normalise, open_loader

RESULTS = Path(__file__).parent / "results" / "gpu_loader.json"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batches_of(shards: Path, backend: str, workers: int, options: argparse.Namespace) -> Iterator[Batch]:
    return endless(
        open_loader(
            shards, "train", options.frames, options.size, options.batch_size, workers, backend, device=options.device
        )
    )


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Utilisation(threading.Thread):
    """Reads the GPU's own utilisation figure every tenth of a second."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(daemon=True)
        self.device, self.values, self.running = device, [], device.type == "cuda"

    def run(self) -> None:
        """Until ``mean`` is asked for."""
        while self.running:
            self.values.append(torch.cuda.utilization(self.device))
            time.sleep(0.1)

    def mean(self) -> float | None:
        """Per cent; ``None`` without a GPU."""
        self.running = False
        return round(sum(self.values) / len(self.values), 1) if self.values else None


def loader_alone(batches: Iterator[Batch], device: torch.device, seconds: float) -> dict[str, float | None]:
    """How fast batches come when nothing else is done."""
    for _ in range(3):
        next(batches)
    synchronize(device)
    begin, busy, clips = time.perf_counter(), processor_seconds(), 0
    gauge = Utilisation(device)
    gauge.start()
    while time.perf_counter() - begin < seconds:
        clips += len(next(batches))
    synchronize(device)
    passed = time.perf_counter() - begin
    return {
        "clips_per_second": round(clips / passed, 1),
        "processor_cores": round((processor_seconds() - busy) / passed, 2),
        "gpu_percent": gauge.mean(),
    }


class AveragedFrames(torch.nn.Module):
    """A ResNet-50 on each frame, scores averaged (TSN): ``[B, T, 3, H, W]`` to ``[B, 174]``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.resnet50(weights=None, num_classes=174).to(memory_format=torch.channels_last)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Scores."""
        frames = clips.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        scores: torch.Tensor = self.backbone(frames).unflatten(0, (len(clips), -1)).mean(1)
        return scores


class VolumeNet(torch.nn.Module):
    """An R3D-18 of torchvision: ``[B, T, 3, H, W]`` to ``[B, 174]``."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torchvision.models.video.r3d_18(weights=None, num_classes=174)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        """Scores."""
        volume = clips.movedim(1, 2).contiguous(memory_format=torch.channels_last_3d)
        scores: torch.Tensor = self.backbone(volume)
        return scores


NETWORKS = {"resnet50": AveragedFrames, "r3d18": VolumeNet}


def training(batches: Iterator[Batch], device: torch.device, seconds: float, network: str) -> dict[str, float | None]:
    """A training loop; ``waiting_share`` is the part of its time spent in waiting for batches."""
    model = NETWORKS[network]().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    normalise = Normalise(MEAN, STD)
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def step(batch: Batch) -> None:
        clips = normalise(batch.clips[:, 0])
        with torch.autocast(device.type, dtype):
            loss = torch.nn.functional.cross_entropy(model(clips).float(), batch.labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    for _ in range(2 if device.type == "cpu" else 10):
        step(next(batches))
    synchronize(device)
    waiting, clips, begin = 0.0, 0, time.perf_counter()
    gauge = Utilisation(device)
    gauge.start()
    while time.perf_counter() - begin < seconds:
        asked = time.perf_counter()
        batch = next(batches)
        synchronize(device)
        waiting += time.perf_counter() - asked
        step(batch)
        synchronize(device)
        clips += len(batch)
    passed = time.perf_counter() - begin
    return {
        "clips_per_second": round(clips / passed, 1),
        "waiting_share": round(waiting / passed, 4),
        "gpu_percent": gauge.mean(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--network", choices=list(NETWORKS), default="resnet50")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[4, 8, 14])
    parser.add_argument("--clips", type=int, default=256)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    if not on_gpu:
        print("CPU mode: this shows that the benchmark runs; its figures say nothing about a GPU.")
    results: dict[str, object] = {
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu (no GPU figures)",
        "processor": platform.processor(),
        "batch_size": options.batch_size,
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, shape in SHAPES.items():
            shards = Path(folder) / name
            make_shards(shards, replace(shape, num_clips=min(options.clips, shape.num_clips)))
            for backend in ("cpu", "dali"):
                for workers in options.workers:
                    row = {}
                    measures = (
                        ("loader_alone", loader_alone),
                        ("training", partial(training, network=options.network)),
                    )
                    for what, measure in measures:
                        batches = batches_of(shards, backend, workers, options)
                        row[what] = measure(batches, device, options.seconds)
                        batches.close()
                    results[f"{name}, {backend}, {workers} workers"] = row
                    print(name, backend, workers, json.dumps(row))
    options.results.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
