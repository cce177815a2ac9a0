"""Everything that a user can choose about an extraction."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from actcli.ingest.card import Setting
from actcli.ingest.executors import ExecutorName
from actcli.ingest.flow import FLOW_METHODS, FlowMethod
from actcli.ingest.layout import Layout, Modality, Payload
from actcli.ingest.records import DatasetAdapter, Listing
from actcli.ingest.sizing import DecodeSettings
from actcli.ingest.split import SplitRule
from actcli.ingest.store import FrameStore, store_root, url_problem


@dataclass(frozen=True)
class ExtractOptions:
    """Everything that a user can choose about an extraction."""

    dataset: str
    """Name of the dataset; see ``list_datasets``."""
    raw_dir: Path
    """Folder with the official files."""
    frames_dir: Path
    """Folder to write to, one for each dataset."""
    modality: Modality = "rgb"
    """``rgb`` frames or optical ``flow``."""
    short_side: int = 256
    """Length of the shorter side in pixels; 0 keeps the size. Frame datasets keep theirs in rgb."""
    upscale: bool = False
    """Enlarge videos that are smaller than ``short_side``."""
    fps: float | None = None
    """Frames a second; None keeps every frame once."""
    quality: int = 90
    """JPEG quality, 1 to 100."""
    workers: int = field(default_factory=lambda: os.cpu_count() or 1)
    """Clips worked on at once."""
    layout: Layout = "mjpeg"
    """One ``mjpeg`` file a clip, or ``folders`` of JPEG files for other tools."""
    payload: Payload = "mjpeg"
    """``mjpeg`` keeps frames; ``source`` keeps the videos as they are, with an index of what can be read where."""
    keep_partial: bool = False
    """Keep the frames before the place where a clip breaks, and mark the clip."""
    classes: tuple[str, ...] = ()
    """Take the clips of these classes only; the others stay for a later run. All classes when empty."""
    sample: int | None = None
    """Take so many clips only, in turn from each class of each split; the others stay for a later run."""
    retry_failed: bool = False
    """Take up only the clips that failed or were missing in an earlier run."""
    flow_method: FlowMethod = "dis"
    """``dis`` (fast), ``farneback``, ``tvl1`` (that of the literature, about 140 times slower) or ``raft``."""
    flow_bound: float = 20.0
    """Motion in pixels that the largest byte of a flow picture stands for."""
    from_frames: tuple[Path, ...] = ()
    """Pack the JPEG folders of an existing dump instead of decoding videos; one root or several."""
    executor: ExecutorName = "processes"
    """Where clips are worked on: ``processes``, ``ray``, or ``serial`` (in this process)."""
    runtime_env: Path | None = None
    """File with the runtime environment of Ray: what its nodes need, such as ``pip: [actcli]``."""
    clip_timeout: float = 1800.0
    """Seconds after which a clip counts as hung and failed."""
    split_rule: SplitRule = field(default_factory=SplitRule)
    """How an own dataset that comes without splits is divided."""
    frames_url: str | None = None
    """URL that the clips' files go to; the small files (card, keys, ledger, manifest) stay in ``frames_dir``."""

    def settings(self) -> dict[str, Setting]:
        """The options that decide what is written; a job continues only with the same ones."""
        shared: dict[str, Setting] = {
            "short_side": self.short_side,
            "upscale": self.upscale,
            "fps": self.fps,
            "quality": self.quality,
        }
        shared |= {
            "layout": self.layout,
            "from_frames": " --from-frames ".join(str(root.absolute()) for root in self.from_frames) or None,
        }
        if self.payload != "mjpeg":
            shared["payload"] = self.payload
        if self.frames_url:
            shared["frames_url"] = self.frames_url.rstrip("/")
        if self.modality == "flow":
            shared |= {"flow_method": self.flow_method, "flow_bound": self.flow_bound}
        return shared

    @property
    def store(self) -> FrameStore:
        """Where the clips' files go."""
        folder = self.frames_dir.absolute()
        scratch = None if self.executor == "ray" else folder  # nodes need not have the folder
        return FrameStore(store_root(folder, self.frames_url), self.modality, self.layout, self.payload, scratch)

    def decode_settings(self) -> DecodeSettings:
        """Size and rate of what is decoded."""
        return DecodeSettings(self.short_side, self.upscale, self.fps)


def option_problems(options: ExtractOptions) -> Iterator[str]:
    """What is wrong with the options themselves, whatever is on the disk."""
    if options.modality not in get_args(Modality):
        yield f"modality {options.modality!r} is unknown; allowed are: {', '.join(get_args(Modality))}."
    if options.layout not in get_args(Layout):
        yield f"layout {options.layout!r} is unknown; allowed are: {', '.join(get_args(Layout))}."
    if options.payload not in get_args(Payload):
        yield f"payload {options.payload!r} is unknown; allowed are: {', '.join(get_args(Payload))}."
    if options.payload == "source" and (options.modality, options.layout, options.from_frames) != ("rgb", "mjpeg", ()):
        yield (
            "--payload source keeps whole videos; leave it out for flow, for folders of frames, and with --from-frames."
        )
    if problem := url_problem(options.frames_url):
        yield problem
    if options.frames_url and options.payload == "source":
        yield (
            "--payload source keeps links to the videos and writes no frames, so nothing would go to --frames-url: "
            "leave one of them out."
        )
    if options.frames_url and options.layout == "folders":
        yield "--layout folders is for tools that read folders: leave out --frames-url, or --layout."
    if options.short_side < 0 or 0 < options.short_side < 16:
        yield f"--short-side is {options.short_side}; use 0 (keep the size) or at least 16."
    if options.fps is not None and options.fps <= 0:
        yield f"--fps is {options.fps:g}; use a positive rate, or leave it out to keep every frame."
    if not 1 <= options.quality <= 100:
        yield f"--quality is {options.quality}; use 1 to 100."
    if options.workers < 1:
        yield f"--workers is {options.workers}; use at least 1."
    if options.flow_method not in FLOW_METHODS:
        yield f"--flow-method is {options.flow_method!r}; use one of {', '.join(FLOW_METHODS)}."
    if options.flow_bound <= 0:
        yield f"--flow-bound is {options.flow_bound:g}; use a positive number of pixels."
    if options.sample is not None and options.sample < 1:
        yield f"--sample is {options.sample}; use at least 1."
    for root in options.from_frames:
        if not root.is_dir():
            yield f"There is no folder {root}; --from-frames takes the folder of an existing dump."


def unused_options(adapter: DatasetAdapter, listing: Listing, options: ExtractOptions) -> Iterator[str]:
    """Settings that were given and have no effect."""
    default = ExtractOptions(options.dataset, options.raw_dir, options.frames_dir)
    is_copied = bool(options.from_frames) or (listing.storage == "frames" and options.modality == "rgb")
    names = ["short_side", "upscale", "quality"] if is_copied else []
    names += ["quality"] if options.payload == "source" else []
    names += ["flow_method"] if options.modality == "rgb" or options.from_frames else []
    names += ["flow_bound"] if options.modality == "rgb" else []
    for name in names:
        if getattr(options, name) != getattr(default, name):
            yield f"--{name.replace('_', '-')} has no effect here" + (
                ": frames are copied as they are." if is_copied else "."
            )
    if options.runtime_env and options.executor != "ray":
        yield "--runtime-env has no effect without --executor ray."
    if listing.storage == "frames" and options.fps:
        yield "--fps does not drop or repeat frames of a dataset that comes as frames; it is only noted down."
    if options.split_rule != default.split_rule and not adapter.is_own:
        yield f"--val-fraction and --group-by have no effect: {adapter.title} has official splits."
    elif options.split_rule.val_fraction != default.split_rule.val_fraction and listing.is_divided:
        yield "--val-fraction has no effect: the dataset comes with splits of its own."
