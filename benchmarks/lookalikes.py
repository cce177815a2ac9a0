"""What the search for lookalikes in ``actcli inspect`` costs: bits of a clip, and all pairs of two splits.

    python benchmarks/lookalikes.py [--train 175000] [--val 25000] [--write]

``--write`` keeps the numbers in ``results/lookalikes.json``. Bits are taken of made pictures of 340 x 256 in memory,
pairs are those of clips that are all different; what reading from a disk costs comes on top.
"""

import argparse
import json
import os
import platform
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

from actcli.ingest.lookalikes import lookalikes, read_bits

RESULTS = Path(__file__).parent / "results" / "lookalikes.json"
NUM_BITS = 252
NUM_CLIPS = 2000


def milliseconds_of_bits() -> float:
    """Milliseconds a clip, four pictures each, on all cores."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (16, 20, 3), dtype=np.uint8)
    picture = simplejpeg.encode_jpeg(np.ascontiguousarray(cv2.resize(coarse, (340, 256))), 90)
    begin = time.monotonic()
    read_bits(lambda number: [picture] * 4, NUM_CLIPS)
    return (time.monotonic() - begin) * 1000 / NUM_CLIPS


def seconds_of_pairs(num_train: int, num_val: int) -> float:
    """Seconds for all pairs."""
    rng = np.random.default_rng(0)
    train, val = (rng.random((count, NUM_BITS)) < 0.5 for count in (num_train, num_val))
    begin = time.monotonic()
    assert lookalikes(train, val) == []
    return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=175_000)
    parser.add_argument("--val", type=int, default=25_000)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    per_clip, pairs = milliseconds_of_bits(), seconds_of_pairs(arguments.train, arguments.val)
    result = {
        "train": arguments.train,
        "val": arguments.val,
        "milliseconds_of_bits_a_clip": round(per_clip, 3),
        "seconds_of_bits": round(per_clip * (arguments.train + arguments.val) / 1000, 1),
        "seconds_of_pairs": round(pairs, 1),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    print(json.dumps(result, indent=1))
    if arguments.write:
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
