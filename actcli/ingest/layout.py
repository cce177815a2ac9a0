"""How the folder of an extraction is laid out: which file has which name."""

from pathlib import Path
from typing import Literal

Modality = Literal["rgb", "flow"]
Layout = Literal["mjpeg", "folders"]
Payload = Literal["mjpeg", "source"]
"""What is kept of a clip: its frames as JPEGs, or the video itself."""


def modality_file(frames_dir: Path, stem: str, modality: Modality, suffix: str) -> Path:
    """``manifest.parquet`` and ``manifest.flow.parquet``, for example."""
    return frames_dir / (f"{stem}{suffix}" if modality == "rgb" else f"{stem}.{modality}{suffix}")


def payload_path(
    frames_dir: Path, key: str, modality: Modality = "rgb", layout: Layout = "mjpeg", payload: Payload = "mjpeg"
) -> Path:
    """Where the frames of a clip lie: a Motion-JPEG file, a folder of JPEGs, or a link to the video itself."""
    name = key if modality == "rgb" else f"{key}.{modality}"
    suffix = ".video" if payload == "source" else ".mjpeg" if layout == "mjpeg" else ""
    return frames_dir / str(int(key) // 1000) / f"{name}{suffix}"
