"""A stored clip: the index and the JSON in the tar say the same of it."""

from dataclasses import fields

import numpy as np
import pyarrow.parquet as pq
import pytest

from actcli.errors import ActcliError
from actcli.shards import ShardSet
from actcli.shards.clip import StoredClip, index_schema
from actcli.shards.stream import stream_clips

ONLY_IN_THE_JSON = {"source_id", "class_name", "splits"}
ONLY_IN_THE_INDEX = {"offset", "bytes", "frame_crcs", "flow_offset", "flow_frame_crcs"}


def facts(clip, without):
    return {
        fact.name: getattr(clip, fact.name).tolist()
        if isinstance(getattr(clip, fact.name), np.ndarray)
        else getattr(clip, fact.name)
        for fact in fields(StoredClip)
        if fact.name not in without
    }


def test_index_and_json_say_the_same_of_every_clip(few_shards):
    shards = ShardSet.open(few_shards)
    index = shards.index("train")
    by_key = {f"{index.keys[row]:09d}": index.clip(row) for row in range(len(index))}
    names = [shard.name for shard in shards.card.shards if shard.name.startswith("train")]
    streamed = {clip.clip.key: clip.clip for clip in stream_clips(shards, names)}
    assert streamed.keys() == by_key.keys()
    only = ONLY_IN_THE_INDEX | ONLY_IN_THE_JSON
    assert all(facts(streamed[key], only) == facts(by_key[key], only) for key in by_key)


def test_a_clip_of_the_index_lies_where_its_frames_lie(few_shards):
    index = ShardSet.open(few_shards).index("train")
    clip = index.clip(3)
    extents = index.frame_extents(3, range(clip.num_frames))
    assert clip.offset == extents.offsets[0]
    assert (clip.frame_sizes == extents.sizes).all()
    assert (clip.frame_crcs == extents.crcs).all()
    assert clip.bytes == extents.sizes.sum()


def test_names_of_clips_are_those_of_the_official_list_in_the_order_of_the_index(few_shards):
    shards = ShardSet.open(few_shards)
    index, clip_names = shards.index("train"), shards.clip_names("train")
    names = [shard.name for shard in shards.card.shards if shard.name.startswith("train")]
    streamed = {int(clip.clip.key): clip.clip.source_id for clip in stream_clips(shards, names)}
    assert all(streamed.values())
    assert clip_names == tuple(streamed[key] for key in index.keys)


def test_opening_an_index_reads_no_names(few_shards, monkeypatch):
    read = []
    plain = pq.ParquetFile.read_row_group

    def note_columns(self, group, columns=None):
        read.extend(columns)
        return plain(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", note_columns)
    ShardSet.open(few_shards).index("train")
    assert set(index_schema(with_flow=True, with_video=False).names) - set(read) == {"source_id"}


def test_names_of_a_damaged_index_are_refused(few_shards, tmp_path):
    (tmp_path / "dataset.json").write_bytes((few_shards / "dataset.json").read_bytes())
    (tmp_path / "train.index.parquet").write_bytes((few_shards / "train.index.parquet").read_bytes()[:-1] + b"x")
    with pytest.raises(ActcliError, match="its sha256 is not the card's"):
        ShardSet.open(tmp_path).clip_names("train")


def test_a_field_that_json_lacks_is_named():
    with pytest.raises(ValueError, match="num_frames"):
        StoredClip.from_note({"key": "000000000", "label": 0, "width": 8, "height": 8, "frame_sizes": []}, "a.tar")
