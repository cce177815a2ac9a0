"""Everything that a user can choose about shards."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from actcli.facts import read_facts


@dataclass(frozen=True)
class ShardOptions:
    """What to pack, where to, and how."""

    frames_dir: Path
    """``frames/<dataset>`` as the extraction left it."""
    shards_dir: Path
    """``shards/<dataset>``."""
    seed: int = 0
    """Seed of the order of clips in the tars."""
    shard_bytes: int = 256_000_000
    """A tar is closed before it would grow beyond this; a larger clip gets a tar of its own."""
    payload: Literal["mjpeg", "video", "source"] | None = None
    """``mjpeg`` or ``source`` (the videos themselves), which has to be what was extracted, and is it by default; or
    ``video``: JPEGs re-encoded as H.264."""
    short_side: int = 0
    """With ``payload="video"``: pixels of the shorter side, 0 keeps the size."""
    workers: int = 2
    """Tars written, or clips encoded, at a time."""
    overwrite: bool = False
    """Write anew where shards of other frames or settings are."""

    @staticmethod
    def of_settings(settings: Mapping[str, object], frames_dir: Path, shards_dir: Path) -> "ShardOptions":
        """The options that shards were written with, as their card has them.

        Raises:
            ValueError: A setting is absent or not of its type.
        """
        names = ("seed", "shard_bytes", "payload", "short_side")
        return ShardOptions(frames_dir, shards_dir, **read_facts(ShardOptions, settings, names))

    def settings(self) -> dict[str, str | int]:
        """The options that decide what is written."""
        return {
            "seed": self.seed,
            "shard_bytes": self.shard_bytes,
            "payload": self.payload or "mjpeg",
            "short_side": self.short_side,
        }
