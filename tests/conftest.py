"""Fixtures that every test folder shares."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import servers
from hypothesis import HealthCheck, settings

from actcli.shards import ShardCard
from actcli.shards.checksum import FileSeal

settings.register_profile(
    "steady",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("steady")  # a busy machine is no failure, and no run draws other examples than the last

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Reference numbers and footage that may lie beside a checkout; tests that use them skip without them."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """What is drawn without a seed is the same in whatever order tests run, fixtures included."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def _shared_folder(name: str) -> Path:
    folder = SHARED / name
    if folder.is_dir():
        return folder
    reason = f"the reference folder ../shared/{name} is not beside this checkout"
    if os.environ.get("ACTCLI_REQUIRE_SHARED") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Numbers computed with the original code; its ``fill`` module becomes importable."""
    folder = _shared_folder("parity")
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="session")
def clips_dir() -> Path:
    """Real footage, odd and broken files included."""
    return _shared_folder("clips")


@pytest.fixture(scope="session")
def corpus_script() -> Path:
    """``make_corpus.py``, which writes miniatures of the real datasets."""
    return _shared_folder("corpus") / "make_corpus.py"


@pytest.fixture(scope="session")
def reseal():
    """Makes the card of a shard folder agree with its changed files, as whoever means harm would."""

    def make(folder, **changes):
        card = replace(ShardCard.from_json((folder / "dataset.json").read_bytes(), "card"), **changes)
        seals = {
            path.name: FileSeal.of(path) for path in folder.iterdir() if path.suffix in (".tar", ".parquet", ".idx")
        }
        shards = [replace(shard, **vars(seals.get(shard.name, shard))) for shard in card.shards]
        files = [seals.get(file.name, file) for file in card.files]
        (folder / "dataset.json").write_text(replace(card, shards=tuple(shards), files=tuple(files)).to_json())

    return make


@pytest.fixture(scope="module")
def s3():
    """An S3 server with one bucket."""
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto.server", reason="moto[server] is not installed")
    with pytest.MonkeyPatch.context() as patch, servers.s3_server() as url:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        files = s3fs.S3FileSystem()
        files.mkdir("films")
        yield files
    s3fs.S3FileSystem.clear_instance_cache()
