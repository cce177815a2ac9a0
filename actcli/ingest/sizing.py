"""How decoded frames are sized and timed, as plain numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecodeSettings:
    """How decoded frames are sized and timed."""

    short_side: int = 256
    """Length of the shorter side in pixels; 0 keeps the size."""
    upscale: bool = False
    """Enlarge pictures that are smaller than ``short_side``."""
    fps: float | None = None
    """Frames a second; None keeps every frame once."""


def target_size(width: float, height: float, settings: DecodeSettings) -> tuple[int, int]:
    """Even width and height for a picture of ``width`` × ``height`` square pixels.

    427 × 240 at short side 256 → 426 × 240 (not enlarged; one column is cropped), 1280 × 720 → 456 × 256.
    """
    scale = settings.short_side / min(width, height) if settings.short_side else 1.0
    if scale > 1 and not settings.upscale:
        scale = 1.0
    if scale == 1.0:
        return max(2, int(width) // 2 * 2), max(2, int(height) // 2 * 2)
    return max(2, round(width * scale / 2) * 2), max(2, round(height * scale / 2) * 2)
