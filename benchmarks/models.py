"""What every model costs beside a plain ResNet-50 TSN of the same input, in one run.

Each model alternates with TSN, so that whatever else the machine does hits both; times are seconds of CPU of one
thread, medians over the runs, and the figure to read is the ratio. Peak memory is the largest number of bytes in live
tensors during a training step (parameters and gradients included, scratch memory of single operators not).

    python benchmarks/models.py                    # everything, about ten minutes
    python benchmarks/models.py tsm gsf:resnet50   # some
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn.functional import cross_entropy

from actcli.models import VideoModel, create_model, profile_model
from actcli.models.profile import example_inputs

VARIANTS: dict[str, dict[str, object]] = {
    "tsm": {},
    "tsm:block": {"shift_place": "block"},
    "tsm:non_local": {"non_local": True},
    "gsf:resnet50": {"backbone": "resnet50"},
    "masnet": {},
    "lsnet": {},
    "stmulnet": {},
    "tsn:bninception": {"backbone": "bninception"},
    "tsm:bninception": {"backbone": "bninception"},
    "gsm:bninception": {"backbone": "bninception"},
    "gsf:bninception": {"backbone": "bninception"},
    "tsn:inceptionv3": {"backbone": "inceptionv3"},
    "gsm:inceptionv3": {"backbone": "inceptionv3"},
    "tsn:mobilenetv2": {"backbone": "mobilenetv2"},
    "tsm:mobilenetv2": {"backbone": "mobilenetv2"},
    "vit": {"backbone": "vit_ti16"},
    "tokshift": {"backbone": "vit_ti16"},
}
NUM_CLASSES = 174
RESULTS = Path(__file__).parent / "results" / "models.json"


@dataclass(frozen=True)
class Row:
    """One model beside TSN on ResNet-50."""

    model: str
    memory_format: str
    macs_ratio: float
    forward_seconds: float
    forward_ratio: float
    training_seconds: float
    training_ratio: float
    peak_mb: float
    peak_ratio: float


def make(
    name: str, options: dict[str, object], settings: argparse.Namespace, memory_format: torch.memory_format
) -> VideoModel:
    side = {"image_size": settings.size} if name in ("vit", "tokshift") else {}
    model = create_model(name, num_classes=NUM_CLASSES, num_frames=settings.frames, **options, **side)
    return model.to(memory_format=memory_format)


def forward_step(model: VideoModel, inputs: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    def step() -> None:
        model.eval()
        with torch.inference_mode():
            model(*inputs)

    return step


def training_step(model: VideoModel, inputs: tuple[torch.Tensor, ...]) -> Callable[[], None]:
    labels = torch.zeros(len(inputs[0]), dtype=torch.long)

    def step() -> None:
        model.train()
        model.zero_grad(set_to_none=True)
        loss, _ = model.training_loss(inputs, labels, cross_entropy)
        loss.backward()

    return step


def alternate(ours: Callable[[], None], baseline: Callable[[], None], runs: int) -> tuple[float, float]:
    """Median CPU seconds of ``ours``, and the median over the runs of its ratio to ``baseline``."""
    seconds, ratios = [], []
    for _ in range(runs + 1):
        base, own = cpu_seconds(baseline), cpu_seconds(ours)
        seconds.append(own)
        ratios.append(own / base)
    return statistics.median(seconds[1:]), statistics.median(ratios[1:])  # the first run warms up


def cpu_seconds(step: Callable[[], None]) -> float:
    start = time.process_time()
    step()
    return time.process_time() - start


def peak_bytes(model: VideoModel, inputs: tuple[torch.Tensor, ...]) -> int:
    step = training_step(model, inputs)
    model.zero_grad(set_to_none=True)
    tracker = MemTracker()
    tracker.track_external(model, *inputs)
    with tracker:
        step()
    snapshot = tracker.get_tracker_snapshot("peak")
    return max(int(categories["Total"]) for categories in snapshot.values())


def measure(variant: str, settings: argparse.Namespace, memory_format: torch.memory_format) -> Row:
    name, options = variant.split(":")[0], VARIANTS[variant]
    model = make(name, options, settings, memory_format)
    tsn = make("tsn", {}, settings, memory_format)
    size = settings.size + 5 if options.get("backbone") == "inceptionv3" else settings.size
    inputs = example_inputs(model, batch_size=settings.batch, size=size)
    tsn_inputs = example_inputs(tsn, batch_size=settings.batch, size=settings.size)
    forward_seconds, forward_ratio = alternate(
        forward_step(model, inputs), forward_step(tsn, tsn_inputs), settings.runs
    )
    training_seconds, training_ratio = alternate(
        training_step(model, inputs), training_step(tsn, tsn_inputs), settings.runs
    )
    peak, tsn_peak = peak_bytes(model, inputs), peak_bytes(tsn, tsn_inputs)
    macs = profile_model(**model.config, size=size).macs
    return Row(
        model=variant,
        memory_format=str(memory_format).removeprefix("torch."),
        macs_ratio=round(macs / profile_model(**tsn.config, size=settings.size).macs, 4),
        forward_seconds=round(forward_seconds, 4),
        forward_ratio=round(forward_ratio, 3),
        training_seconds=round(training_seconds, 4),
        training_ratio=round(training_ratio, 3),
        peak_mb=round(peak / 1e6, 1),
        peak_ratio=round(peak / tsn_peak, 4),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", choices=[*VARIANTS, []], help="all unless given")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--memory-format", choices=["contiguous_format", "channels_last"], default="contiguous_format")
    parser.add_argument("--output", type=Path, default=RESULTS)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, object]] = []
    for variant in settings.variants or VARIANTS:
        row = measure(variant, settings, getattr(torch, settings.memory_format))
        rows.append(asdict(row))
        print(" ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
        write_report(rows, settings)


def write_report(rows: list[dict[str, object]], settings: argparse.Namespace) -> None:
    report = {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "batch": settings.batch,
        "frames": settings.frames,
        "size": settings.size,
        "runs": settings.runs,
        "unit": "seconds of CPU, one thread; ratios to tsn on resnet50",
        "rows": rows,
    }
    settings.output.parent.mkdir(exist_ok=True)
    settings.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
