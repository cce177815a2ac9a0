"""What an extraction came to, and where a running one stands."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.plan import SplitCount, count_splits
from actcli.ingest.records import Listing
from actcli.ingest.split import loss_warnings


@dataclass(frozen=True)
class ExtractProgress:
    """Where a running extraction stands."""

    done: int
    """Clips finished in this run, whatever came of them."""
    total: int
    """Clips that this run has to do."""
    failed: int
    """Clips of this run that failed or are missing."""
    frames: int
    """Frames, or flow fields, written in this run."""


@dataclass(frozen=True)
class ExtractSummary:
    """What an extraction came to; the counts are those of the whole dataset, not of this run alone."""

    listed: int
    """Clips in the official list."""
    counts: Mapping[str, int]
    """``ok``, ``partial`` (kept although broken), ``failed`` and ``missing``; they add up to ``listed``."""
    num_classes: int
    """Classes of the dataset."""
    splits: tuple[SplitCount, ...]
    """Clips by split set and split: listed, and found in the sense of kept."""
    failed: tuple[ClipOutcome, ...]
    """Every clip that failed or is missing, but for those that were left for later."""
    already_done: int
    """Clips that earlier runs had finished."""
    frames: int
    """Frames, or flow fields, of all kept clips."""
    bytes: int
    """Bytes of all kept clips."""
    seconds: float
    """Length of this run."""
    frames_dir: Path
    """Where everything lies."""
    warnings: tuple[str, ...]
    """What the user should know."""


def summarise(
    listing: Listing,
    outcomes: Sequence[ClipOutcome],
    *,
    num_done_now: int,
    seconds: float,
    frames_dir: Path,
    warnings: Sequence[str],
) -> ExtractSummary:
    """Count what came of every listed clip; ``outcomes`` are in the order of the list."""
    kinds = Counter("partial" if outcome.partial else outcome.status for outcome in outcomes)
    kept = {record.source_id for record, outcome in zip(listing.records, outcomes, strict=True) if outcome.is_ok}
    later = {record.source_id for record, outcome in zip(listing.records, outcomes, strict=True) if outcome.is_left}
    return ExtractSummary(
        listed=len(outcomes),
        counts={kind: kinds[kind] for kind in ("ok", "partial", "failed", "missing")},
        num_classes=len(listing.classes),
        splits=tuple(count_splits(listing, kept)),
        failed=tuple(outcome for outcome in outcomes if not (outcome.is_ok or outcome.is_left)),
        already_done=len(outcomes) - kinds["missing"] - num_done_now,
        frames=sum(outcome.num_frames for outcome in outcomes),
        bytes=sum(outcome.bytes for outcome in outcomes),
        seconds=seconds,
        frames_dir=frames_dir,
        warnings=(*warnings, *loss_warnings(listing, kept | later)),
    )
