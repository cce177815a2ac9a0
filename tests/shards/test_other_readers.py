"""Hugging Face ``datasets`` opens the shards, and the page that ``push`` writes for the Hub tells it how.

WebDataset's and DALI's own readers are in ``test_shards.py``.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from actcli.shards import ShardReader, ShardSet
from actcli.shards.transfer import PAGE_MARK, hub_page, push_shards

READ = """
import hashlib, json, sys
from datasets import load_dataset

def told(row):
    flow = hashlib.sha256(row["flow.mjpeg"]).hexdigest()
    return [row["__key__"], row["json"]["label"], hashlib.sha256(row["mjpeg"]).hexdigest(), flow]

splits = {split: load_dataset(sys.argv[1], split=split, streaming=True) for split in ("train", "val")}
print(json.dumps({split: [told(row) for row in rows] for split, rows in splits.items()}))
"""


@pytest.mark.skipif(find_spec("datasets") is None, reason="datasets is not installed (pip install datasets)")
def test_datasets_reads_the_clips_of_each_split(few_shards, tmp_path):
    folder = tmp_path / "sprites"
    folder.mkdir()
    for path in few_shards.iterdir():
        (folder / path.name).symlink_to(path)
    shards = ShardSet.open(few_shards)
    (folder / "README.md").write_text(hub_page(shards.card))
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    read = subprocess.run(
        [sys.executable, "-c", READ, str(folder)], env=os.environ | offline, capture_output=True, text=True, check=True
    )
    for split, rows in json.loads(read.stdout).items():
        assert sorted(rows) == list(expected(few_shards, shards.index(split)))


def expected(folder, index):
    from hashlib import sha256

    reader = ShardReader(folder)
    for row in range(len(index)):
        clip = index.clip(row)
        frames = reader.read(clip.shard, clip.offset, clip.bytes)
        flow = reader.read(clip.shard, clip.flow_offset, int(clip.flow_frame_sizes.sum()))
        yield [clip.key, clip.label, sha256(frames).hexdigest(), sha256(flow).hexdigest()]


class Hub(MemoryFileSystem):
    """What stands in for the Hub: files in memory under ``hf://``."""

    protocol = "hf"
    store: dict = {}  # noqa: RUF012  as in the class above
    pseudo_dirs: list = [""]  # noqa: RUF012


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setitem(_registry, "hf", Hub)
    Hub.clear_instance_cache()
    yield fsspec.filesystem("hf")
    Hub.store.clear()


def test_push_writes_a_page_for_the_hub_and_leaves_one_that_is_somebodys(few_shards, hub):
    url = "hf://datasets/me/sprites"
    push_shards(few_shards, url)
    page = hub.cat_file(f"{url}/README.md").decode()
    assert page == hub_page(ShardSet.open(few_shards).card)
    hub.pipe_file(f"{url}/README.md", page.replace("sprites", "old").encode())
    push_shards(few_shards, url)
    assert hub.cat_file(f"{url}/README.md").decode() == page
    mine = page.replace(PAGE_MARK, "").replace("# sprites", "# Sprites, under CC-BY")
    hub.pipe_file(f"{url}/README.md", mine.encode())
    push_shards(few_shards, url)
    assert hub.cat_file(f"{url}/README.md").decode() == mine
