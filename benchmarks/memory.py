"""What a training step really takes, beside what ``engine.memory`` foretells.

python benchmarks/memory.py --write     # results/memory.json
"""

import argparse
import json
import resource
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).with_name("results") / "memory.json"
CASES = [("masnet", 16), ("tsm", 8)]
CLASSES = 174


def peak(name: str, num_frames: int, num_clips: int) -> int:
    """Peak memory in bytes of a process that does two steps with ``num_clips`` clips."""
    command = [sys.executable, __file__, "--step", name, str(num_frames), str(num_clips)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def step(name: str, num_frames: int, num_clips: int) -> None:
    """Do two steps and print the peak memory of this process."""
    import torch

    from actcli.models import create_model
    from actcli.models.profile import example_inputs

    model = create_model(name, num_classes=CLASSES, num_frames=num_frames).train()
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    inputs, labels = example_inputs(model, batch_size=num_clips), torch.zeros(num_clips, dtype=torch.long)
    for _ in range(2):
        loss, _ = model.training_loss(inputs, labels, torch.nn.CrossEntropyLoss())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Measure what a second clip adds, and compare with what is foretold for one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--step", nargs=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    if given.step:
        step(given.step[0], int(given.step[1]), int(given.step[2]))
        return
    from actcli.engine.memory import step_memory

    rows = []
    for name, num_frames in CASES:
        foretold = step_memory({"name": name, "num_classes": CLASSES, "num_frames": num_frames}, 224).per_clip
        added = peak(name, num_frames, 2) - peak(name, num_frames, 1)
        rows.append({"model": name, "frames": num_frames, "foretold_bytes": foretold, "measured_bytes": added})
        print(rows[-1], flush=True)
    if given.write:
        RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
