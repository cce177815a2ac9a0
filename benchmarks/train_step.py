"""Our training step beside the plain PyTorch loop of a TSM user: same model, batch, precision and optimiser.

    python benchmarks/train_step.py [--model tsm] [--backbone resnet50] [--size 224] [--frames 8] [--batch-size 8]
                                    [--precision 32-true] [--device auto] [--rounds 10] [--steps 1] [--write]

The plain loop is that of the published ``main.py``: forward, loss, backward, clipped gradients, SGD with the model's
parameter groups, and the loss fetched at every step. Ours is ``engine.step.TrainingStep`` with what the trainer adds at
each step. Both take the same uint8 batch from memory; they alternate, and the order changes each round. On a CPU
the time is that of the processor, so that other work on the machine counts little (give OMP_NUM_THREADS=1).
``--write`` keeps the medians in ``results/train_step.json``.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from actcli.engine.clock import Phase, Stopwatch
from actcli.engine.hardware import Hardware, launch
from actcli.engine.inputs import seed_step
from actcli.engine.recipes import Recipe
from actcli.engine.schedules import StepPlace
from actcli.engine.step import TrainingStep
from actcli.loaders import Batch, Normalise
from actcli.models import VideoModel, create_model

RESULTS = Path(__file__).parent / "results" / "train_step.json"
NUM_CLASSES = 174


def made_batch(arguments: argparse.Namespace, device: torch.device) -> Batch:
    """Clips of noise, as a loader gives them."""
    shape = (arguments.batch_size, 1, arguments.frames, arguments.size, arguments.size, 3)
    clips = torch.randint(0, 256, shape, dtype=torch.uint8).movedim(-1, -3)
    labels = torch.randint(0, NUM_CLASSES, (arguments.batch_size,))
    return Batch(clips, None, labels, torch.arange(arguments.batch_size)).to(device)


def plain_loop(model: VideoModel, recipe: Recipe, batch: Batch, half: torch.dtype | None) -> Callable[[int], None]:
    """What a user of the published code runs."""
    model = model.to(batch.labels.device).train()
    criterion = nn.CrossEntropyLoss()
    groups = model.parameter_groups(recipe.learning_rate, recipe.weight_decay)
    optimizer = torch.optim.SGD(groups, recipe.learning_rate, momentum=recipe.momentum)
    normalise = Normalise(model.input_spec.mean, model.input_spec.std)

    def step(_: int) -> None:
        inputs = normalise(batch.clips).flatten(0, 1)
        with torch.autocast(inputs.device.type, dtype=half, enabled=half is not None):
            loss = criterion(model(inputs), batch.labels)
        loss.backward()
        clip_grad_norm_(model.parameters(), recipe.clip_norm or 20.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()

    return step


def our_step(model: VideoModel, recipe: Recipe, batch: Batch, hardware: Hardware) -> Callable[[int], None]:
    """What the trainer runs."""
    training = TrainingStep(model, recipe, NUM_CLASSES, recipe.batch_size, launch(hardware, recipe.precision))
    training.model.train()

    def step(number: int) -> None:
        outcome = training.run(batch, StepPlace(0, number, 1_000_000))
        float(outcome.loss)
        training.stopwatch.settle()

    return step


def bookkeeping_seconds(recipe: Recipe, num_steps: int = 1000) -> float:
    """What a step does so that the training can go on from it and tell where time went; per step, on one process."""
    fabric, stopwatch = launch(Hardware("cpu"), "32-true"), Stopwatch(torch.device("cpu"))
    before = time.process_time()
    for number in range(num_steps):
        place = StepPlace(0, number, num_steps)
        seed_step(recipe.seed, place.number, 0)
        recipe.learning_rate_at(place)
        for phase in get_args(Phase):
            with stopwatch.measure(phase):
                pass
        stopwatch.settle()
        fabric.all_reduce(torch.tensor([False, False], dtype=torch.int32), reduce_op="sum")
    return (time.process_time() - before) / num_steps


def seconds(step: Callable[[int], None], first: int, num_steps: int, device: torch.device) -> float:
    """Per step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    before = clock()
    for number in range(first, first + num_steps):
        step(number)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (clock() - before) / num_steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tsm")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    options = {"num_frames": arguments.frames, "backbone": arguments.backbone}
    recipe = Recipe("bench", arguments.model, batch_size=arguments.batch_size, num_frames=arguments.frames)
    recipe = replace(recipe, model_options={"backbone": arguments.backbone}, size=arguments.size, pretrained=None)
    recipe = replace(recipe, precision=arguments.precision)
    hardware = Hardware(arguments.device)
    device = launch(hardware, recipe.precision).device
    batch = made_batch(arguments, device)
    half = {"bf16-mixed": torch.bfloat16}.get(arguments.precision)
    steps = {
        "plain": plain_loop(create_model(arguments.model, num_classes=NUM_CLASSES, **options), recipe, batch, half),
        "actcli": our_step(create_model(arguments.model, num_classes=NUM_CLASSES, **options), recipe, batch, hardware),
    }
    for step in steps.values():
        seconds(step, 0, 2, device)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(arguments.rounds):
        for name in list(steps)[:: 1 if number % 2 else -1]:
            times[name].append(seconds(steps[name], 2 + number * arguments.steps, arguments.steps, device))
    ratios = [plain / ours for plain, ours in zip(times["plain"], times["actcli"], strict=True)]
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "setting": {name: value for name, value in vars(arguments).items() if name not in ("write", "device")},
        "seconds_per_step": {name: round(statistics.median(values), 4) for name, values in times.items()},
        "speed_of_ours_relative_to_plain": round(statistics.median(ratios), 3),
        "milliseconds_of_bookkeeping_per_step": round(1000 * bookkeeping_seconds(recipe), 3),
        "lowest_and_highest_round": [round(min(ratios), 3), round(max(ratios), 3)],
    }
    print(json.dumps(result, indent=1))
    if arguments.write:
        known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        place = f"{device.type} {arguments.model} {arguments.backbone} {arguments.precision}"
        RESULTS.write_text(json.dumps(known | {place: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
