"""A small extracted dataset with frames and flow, made once."""

import pytest

from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.shards import ShardOptions, write_shards

NUM_CLIPS = 24
TAR_BYTES = 100_000


@pytest.fixture(scope="session")
def few_frames(tmp_path_factory):
    """Frames and flow of some clips."""
    root = tmp_path_factory.mktemp("few")
    make_synthetic(root / "raw", num_clips=NUM_CLIPS, num_frames=3, size=(64, 48))
    for modality in ("rgb", "flow"):
        extract_dataset(
            ExtractOptions("sprites", root / "raw", root / "sprites", modality, short_side=0, executor="serial")
        )
    return root / "sprites"


@pytest.fixture(scope="session")
def few_options(few_frames):
    """Options that pack them into several tars of ``folder``."""
    return lambda folder, **changes: ShardOptions(
        few_frames, folder, **{"shard_bytes": TAR_BYTES, "workers": 1} | changes
    )


@pytest.fixture(scope="session")
def few_shards(few_options, tmp_path_factory):
    """The packed clips; not to be changed."""
    folder = tmp_path_factory.mktemp("packed") / "sprites"
    write_shards(few_options(folder))
    return folder


@pytest.fixture(scope="session")
def contents():
    """Bytes by name of what a finished run leaves in a folder, its lock aside."""

    def read(folder):
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".actcli-lock"}

    return read
