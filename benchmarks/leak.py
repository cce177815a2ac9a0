"""What a decoder keeps of every picture: growth of the heap, of Python objects and of the process, per picture.

    python benchmarks/leak.py [--pictures 20000] [--write]

``--write`` keeps the numbers in ``results/leak.json``. Each step of decoding runs alone, so that a leak has a name:
nvImageCodec's ``Image.__array_interface__``, which ``numpy.asarray`` asks for, keeps one object of 32 bytes a time;
``Image.__array__`` gives the same pixels and keeps nothing. The last row is a whole loader.
"""

import argparse
import ctypes
import gc
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import nvidia.nvimgcodec as nvimgcodec
import simplejpeg
from _shards import SHAPES, frames, make_shards

from actcli.loaders import open_loader
from actcli.loaders.backends.jpeg import JpegDecoder
from actcli.loaders.views import Crop, Size

RESULTS = Path(__file__).parent / "results" / "leak.json"
SHAPE = replace(SHAPES["sthv2"], num_clips=20)
BATCH = 20


class _Heap(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = [(f"field_{number}", ctypes.c_size_t) for number in range(7)] + [
        ("uordblks", ctypes.c_size_t),
        ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    ]


def used() -> tuple[int, int, int]:
    """Bytes of the heap, Python's memory blocks, and bytes of the process in memory."""
    gc.collect()
    mallinfo = ctypes.CDLL("libc.so.6").mallinfo2
    mallinfo.restype = _Heap
    heap = mallinfo()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return heap.uordblks + heap.field_4, sys.getallocatedblocks(), pages * 4096


def growth(step: Callable[[], object], pictures: int, per_step: int = 1) -> dict[str, float]:
    """What remains of each picture after ``step`` has run for all of them."""
    for _ in range(max(pictures // per_step // 10, 3)):
        step()
    before = used()
    for _ in range(pictures // per_step):
        step()
    heap, blocks, resident = ((after - start) / pictures for start, after in zip(before, used(), strict=True))
    return {"heap_bytes": round(heap, 2), "python_objects": round(blocks, 3), "resident_bytes": round(resident, 1)}


def steps() -> dict[str, Callable[[], object]]:
    """The parts of decoding one picture."""
    data = simplejpeg.encode_jpeg(next(iter(frames(SHAPE, 1))), quality=90, colorsubsampling="420")
    array = np.frombuffer(data, np.uint8)
    decoder = nvimgcodec.Decoder(-99999, 1, [nvimgcodec.Backend(nvimgcodec.CPU_ONLY)], ":fancy_upsampling=1")
    region = nvimgcodec.Region(0, 0, 128, 128)
    part = nvimgcodec.CodeStream(array).get_sub_code_stream(region=region)
    image = decoder.decode(part)
    ours = JpegDecoder("RGB")
    crops, size = (Crop(0, 0, 128, 128, False),), Size(SHAPE.width, SHAPE.height)
    return {
        "simplejpeg.decode_jpeg": lambda: simplejpeg.decode_jpeg(data),
        "simplejpeg.decode_jpeg_header": lambda: simplejpeg.decode_jpeg_header(data),
        "nvimgcodec.CodeStream": lambda: nvimgcodec.CodeStream(array),
        "CodeStream.get_sub_code_stream": lambda: nvimgcodec.CodeStream(array).get_sub_code_stream(region=region),
        "Decoder.decode": lambda: decoder.decode(part),
        "numpy.asarray(Image)": lambda: np.asarray(image),
        "Image.__array__": lambda: image.__array__(),
        "our JpegDecoder": lambda: list(ours.decode([data], crops, size, 128, True)),
    }


def measure_loader(pictures: int) -> dict[str, float]:
    """A loader that decodes in this process, epoch after epoch."""
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder), SHAPE)
        with open_loader(folder, "train", 8, 112, BATCH, 0) as loader:
            batches = iter(())

            def step() -> None:
                nonlocal batches
                if next(batches, None) is None:
                    batches = iter(loader)

            return growth(step, pictures, per_step=BATCH * 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = {name: growth(step, options.pictures) for name, step in steps().items()}
    rows["loader"] = measure_loader(options.pictures)
    for name, row in rows.items():
        print(f"{name:32} {json.dumps(row)}")
    if options.write:
        version = nvimgcodec.__version__
        result = {"pictures": options.pictures, "nvimgcodec": version, "growth_per_picture": rows}
        RESULTS.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
