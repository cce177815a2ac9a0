"""``docs/shard-format.md`` is enough to write a reader from, and shards that were once written stay readable."""

import hashlib
import json
import shutil
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path

import av
import pyarrow.parquet as pq
import pytest

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, payload_path
from actcli.ingest.ledger import Ledger
from actcli.shards import ShardOptions, ShardSet, verify_shards, write_shards
from actcli.shards.stream import stream_clips

FORMATS = Path(__file__).parent / "formats"
"""A tiny shard of each version that is read for good."""
READ_FOR_GOOD = sorted(path.name for path in FORMATS.iterdir())


def read_card(folder):
    card = json.loads((folder / "dataset.json").read_text())
    checksum = card.pop("checksum")
    assert (card["format"], card["version"]) == ("actcli-shards", 4)
    assert hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest() == checksum
    return card


def read_tar(path):
    """Note and payloads by suffix of each clip, in order, and where each payload begins."""
    clips = {}
    with tarfile.open(path) as tar:
        for member in tar:
            key, suffix = member.name.split(".", 1)
            clips.setdefault(key, {})[suffix] = (tar.extractfile(member).read(), member.offset_data)
    return clips


def test_the_files_are_those_that_the_card_lists(few_shards):
    card = read_card(few_shards)
    for file in (*card["shards"], *card["files"]):
        data = (few_shards / file["name"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["checksum"])
        if file["name"].endswith(".tar"):
            assert len(data) % 10_240 == 0
            assert len(read_tar(few_shards / file["name"])) == file["num_clips"]


def test_a_note_says_what_follows_it_and_seals_it(few_shards):
    card = read_card(few_shards)
    for shard in card["shards"]:
        for key, members in read_tar(few_shards / shard["name"]).items():
            assert list(members) == ["json", "mjpeg", "flow.mjpeg"]
            note, payloads = members["json"][0], [data for data, _ in list(members.values())[1:]]
            fields = json.loads(note)
            assert note.endswith(b'"crc32":"' + fields["crc32"].encode() + b'"}')
            blank = note[:-10] + b"00000000" + note[-2:]
            assert zlib.crc32(blank + b"".join(payloads)) == int(fields["crc32"], 16)
            assert (fields["key"], card["classes"][fields["label"]]) == (key, fields["class_name"])
            assert [sum(fields["frame_sizes"]), sum(fields["flow_frame_sizes"])] == [len(data) for data in payloads]
            assert len(fields["flow_frame_sizes"]) == 2 * fields["flow_num_frames"]


def test_the_index_finds_every_frame(few_shards):
    card = read_card(few_shards)
    tars = {shard["name"]: read_tar(few_shards / shard["name"]) for shard in card["shards"]}
    for split, count in card["split_sets"]["1"].items():
        rows = pq.read_table(few_shards / f"{split}.index.parquet").to_pylist()
        assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
        assert len(rows) == count
        for row in rows:
            data, offset = tars[row["shard"]][row["key"]]["mjpeg"]
            assert (row["offset"], row["bytes"], row["num_frames"]) == (offset, len(data), len(row["frame_sizes"]))
            whole = (few_shards / row["shard"]).read_bytes()
            for number, (size, crc) in enumerate(zip(row["frame_sizes"], row["frame_crcs"], strict=True)):
                begin = row["offset"] + sum(row["frame_sizes"][:number])
                jpeg = whole[begin : begin + size]
                assert (jpeg[:2], jpeg[-2:], zlib.crc32(jpeg)) == (b"\xff\xd8", b"\xff\xd9", crc)


def packets_of_frame(row, frame):
    """As the page says: which packets give a frame, and which picture of what comes out it is."""
    video = row["video"]
    picture = video["frame_pictures"][frame] if video["frame_pictures"] else frame
    stretch = max(s for s, first in enumerate(video["key_pictures"]) if first <= picture)
    first, number = video["key_packets"][stretch], picture - video["key_pictures"][stretch]
    return range(first, min(first + number + video["delay"], len(row["frame_sizes"]))), number


def test_the_index_finds_every_frame_of_a_video_as_it_was_downloaded():
    """Followed with PyAV, which the page leaves to the reader."""
    folder = FORMATS / "4"
    for split in ("train", "val"):
        for row in pq.read_table(folder / f"{split}.index.parquet").to_pylist():
            video, sizes = row["video"], row["frame_sizes"]
            members = read_tar(folder / row["shard"])[row["key"]]
            data, offset = members[video["container"]]
            assert (row["offset"], row["bytes"]) == (offset, len(data))
            assert json.loads(members["json"][0])["video"] == video
            for frame in range(row["num_frames"]):
                decoder, pictures = av.CodecContext.create(video["codec"], "r"), []
                if video["extradata"]:
                    decoder.extradata = bytes.fromhex(video["extradata"])
                packets, number = packets_of_frame(row, frame)
                for p in packets:
                    begin = sum(sizes[:p]) + sum(video["packet_gaps"][: p + 1])
                    packet = av.Packet(sizes[p])
                    packet.update(data[begin : begin + sizes[p]])
                    assert zlib.crc32(bytes(packet)) == row["frame_crcs"][p]
                    pictures += decoder.decode(packet)
                pictures += decoder.decode(None)
                assert (pictures[number].width, pictures[number].height) == (row["width"], row["height"])


def test_dalis_index_says_where_each_member_lies(few_shards):
    for path in few_shards.glob("*.idx"):
        head, *lines = path.read_text().splitlines()
        clips = read_tar(path.with_suffix(".tar"))
        assert head == f"v1.2 {len(clips)}"
        for line, (key, members) in zip(lines, clips.items(), strict=True):
            expected = [f"{suffix} {at} {len(data)} {key}.{suffix}" for suffix, (data, at) in members.items()]
            assert line == " ".join(expected)


@pytest.mark.parametrize("version", READ_FOR_GOOD)
def test_a_shard_of_a_version_that_was_written_once_is_read(version):
    shards = ShardSet.open(FORMATS / version)
    assert [len(shards.index(split)) for split in ("train", "val")] == [2, 1]
    assert verify_shards(FORMATS / version) == []
    streamed = list(stream_clips(shards, [shard.name for shard in shards.card.shards]))
    assert [clip.clip.num_frames for clip in streamed] == [2, 2, 2]


@pytest.mark.parametrize(("version", "remedy"), [(2, "Write the shards again"), (99, "Update actcli")])
def test_another_version_is_refused_in_a_sentence(tmp_path, version, remedy):
    folder = shutil.copytree(FORMATS / "3", tmp_path / "shards")
    card = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(card | {"version": version}))
    with pytest.raises(ActcliError, match=f"has format version {version}, this actcli reads 3 to 4. {remedy}"):
        ShardSet.open(folder)


def spoil_second_frame(raw, frames, key):
    """Make frames whose checksums are right and whose second picture is none."""
    path = payload_path(frames, key)
    with Ledger(frames / "extract.jsonl") as ledger:
        outcome, data = ledger.outcomes[key], bytearray(path.read_bytes())
        begin, size = outcome.frame_sizes[:2].tolist()
        data[begin + 2 : begin + size - 2] = bytes(size - 4)
        path.write_bytes(data)
        ledger.append(replace(outcome, checksum=hashlib.sha256(data).hexdigest()))
    extract_dataset(ExtractOptions("sprites", raw, frames, short_side=0, executor="serial"))


def test_a_deep_check_finds_a_frame_that_was_broken_before_its_checksum_was_taken(few_frames, few_shards, tmp_path):
    assert verify_shards(few_shards, deep=True) == []
    frames, key = shutil.copytree(few_frames, tmp_path / "frames"), "000000004"
    spoil_second_frame(few_frames.parent / "raw", frames, key)
    write_shards(ShardOptions(frames, tmp_path / "shards", workers=1))
    assert verify_shards(tmp_path / "shards") == []
    (finding,) = verify_shards(tmp_path / "shards", deep=True)
    assert f"{key}.mjpeg: frame 1 cannot be decoded" in finding.problem
