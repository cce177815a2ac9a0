"""A tiny dataset in shards that the tests of this folder share."""

import pytest
import torch
from narrow import use_narrow_networks

from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.shards import ShardOptions, write_shards


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Networks this small are slower on several threads, and their weights differ in the last digit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="package")
def narrow_networks():
    """Trainings are about everything but the network."""
    with pytest.MonkeyPatch.context() as patch:
        use_narrow_networks(patch)
        yield


@pytest.fixture(scope="session")
def make_tiny_shards(tmp_path_factory):
    """``make_tiny_shards(num_clips)`` writes shards of clips of 8 frames, 64 x 48, in six classes."""

    def make(num_clips):
        root = tmp_path_factory.mktemp("data")
        make_synthetic(root / "raw", num_clips=num_clips, size=(64, 48), num_frames=8)
        extract_dataset(ExtractOptions("tiny", root / "raw", root / "frames", short_side=0, executor="serial"))
        write_shards(ShardOptions(root / "frames", root / "shards"))
        return str(root / "shards")

    return make


@pytest.fixture(scope="session")
def tiny_shards(make_tiny_shards):
    """18 training clips and 6 validation clips."""
    return make_tiny_shards(24)
