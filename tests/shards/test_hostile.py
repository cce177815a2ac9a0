"""Cards, indexes and tars that are damaged, or made to do harm: an error in a sentence, before memory is taken."""

import gzip
import hashlib
import io
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.ingest.manifest import checksum_path
from actcli.shards import ShardCard, ShardOptions, ShardReader, ShardSet, forecast_shards, verify_shards, write_shards
from actcli.shards.bounds import MAX_PIXELS
from actcli.shards.note import open_note, seal, write_note
from actcli.shards.stream import stream_clips

FUZZ = settings(max_examples=150)


@pytest.fixture
def packed(few_shards, tmp_path):
    return shutil.copytree(few_shards, tmp_path / "s")


def peak_megabytes(script, *arguments):
    """Peak memory of a fresh process beyond what importing us takes."""
    before = "import sys, resource; import actcli.shards, actcli.errors\nstart = resource.getrusage(0).ru_maxrss\n"
    after = "\nprint('peak', (resource.getrusage(0).ru_maxrss - start) // 1000)"
    command = [sys.executable, "-c", before + script + after, *map(str, arguments)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(output.rsplit("peak", 1)[1]), output


# --- One changed bit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["dataset.json", ".tar", ".idx", "train.index.parquet"])
def test_verify_finds_one_flipped_bit_anywhere(packed, suffix):
    path = next(path for path in sorted(packed.iterdir()) if path.name.endswith(suffix))
    data, draw = path.read_bytes(), random.Random(suffix)
    for position in {0, len(data) - 1, *(draw.randrange(len(data)) for _ in range(40))}:
        path.write_bytes(data[:position] + bytes([data[position] ^ 1 << draw.randrange(8)]) + data[position + 1 :])
        try:
            assert path.name in {finding.file for finding in verify_shards(packed)}, position
        except ActcliError as error:
            assert path.name == "dataset.json"
            assert "dataset.json" in str(error)
    path.write_bytes(data)
    assert verify_shards(packed) == []


def test_no_changed_byte_of_a_card_is_believed(few_shards):
    text = (few_shards / "dataset.json").read_bytes()
    card = ShardCard.from_json(text, "card")

    @FUZZ
    @given(st.integers(0, len(text) - 1), st.integers(1, 255))
    def change(position, bits):
        changed = text[:position] + bytes([text[position] ^ bits]) + text[position + 1 :]
        try:
            assert ShardCard.from_json(changed, "card") == card  # white space
        except ActcliError as error:
            assert "card" in str(error)

    change()


# --- Cards ------------------------------------------------------------------------------------------------------------

CARDS = [
    ("shards", 0, "name", "../../outside-000000.tar"),
    ("shards", 0, "name", "/etc/train-000000.tar"),
    ("shards", 0, "name", "train-000001.tar"),
    ("shards", 0, "name", ["train-000000.tar"]),
    ("shards", 0, "bytes", -1),
    ("shards", 0, "bytes", 1e9),
    ("shards", 0, "num_clips", True),
    ("shards", 0, "checksum", "ab"),
    ("shards", 0, "extra", 1),
    ("shards", 0, None),
    ("files", 0, "name", "../train-000000.idx"),
    ("files", None),
    ("split_sets", "1", "../../x", 3),
    ("split_sets", "1", "train", "many"),
    ("split_sets", "1", "train", -5),
    ("split_sets", []),
    ("classes", 0, 5),
    ("classes", 0, "half a pair \ud800"),
    ("classes", 7),
    ("name", None),
    ("flip", "sometimes"),
    ("flip_swaps", [["a"]]),
    ("flip_swaps", [[1, 2]]),
    ("payload", "gif"),
    ("modalities", ["smell"]),
    ("coverage", {"ok": "all"}),
    ("extraction", 3),
    ("settings", []),
    ("version", []),
]


@pytest.mark.parametrize("change", CARDS, ids=lambda change: ".".join(map(str, change))[:40])
def test_a_card_that_says_what_cannot_be_is_refused(few_shards, change, monkeypatch):
    import actcli.shards.card as module

    value = json.loads((few_shards / "dataset.json").read_text())
    *path, last, wrong = change
    target = value
    for step in path:
        target = target[step]
    target[last] = wrong
    value.pop("checksum")
    value["checksum"] = module._checksum(value)
    with pytest.raises(ActcliError, match="x is not a card of actcli shards"):
        ShardCard.from_json(json.dumps(value), "x")


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, b"", b"\x00", b"[]", b"null", b"\xff", b"1" * 5000, b'{"format": 1}']
)
def test_a_card_that_is_none_is_refused(text):
    with pytest.raises(ActcliError, match="x is not a card of actcli shards"):
        ShardCard.from_json(text, "x")


def test_a_pipe_a_folder_or_a_huge_file_is_no_card(tmp_path):
    os.mkfifo(tmp_path / "dataset.json")
    with pytest.raises(ActcliError, match="is no regular file"):
        ShardSet.open(tmp_path)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / "dataset.json").mkdir()
    with pytest.raises(ActcliError, match="is no regular file"):
        ShardSet.open(tmp_path)
    (tmp_path / "dataset.json").rmdir()
    (tmp_path / "dataset.json").touch()
    os.truncate(tmp_path / "dataset.json", 1 << 40)
    with pytest.raises(ActcliError, match="larger than any card"):
        ShardSet.open(f"file://{tmp_path}")


# --- Indexes ----------------------------------------------------------------------------------------------------------


def with_column(folder, name, change, reseal):
    """Writes the train index with a changed column, and a card that agrees."""
    path = folder / "train.index.parquet"
    table = pq.read_table(path)
    values = table.column(name).to_pylist()
    changed = pa.array(change(values), table.schema.field(name).type)
    pq.write_table(table.set_column(table.column_names.index(name), table.schema.field(name), changed), path)
    reseal(folder)


def first(value):
    return lambda values: [value, *values[1:]]


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        ("shard", first("../../outside-000000.tar"), "names the tar '../../outside-000000.tar'"),
        ("shard", first("/etc/passwd"), "names the tar '/etc/passwd'"),
        ("label", first(10**6), "its label"),
        ("label", first(-2), "its label"),
        ("num_frames", first(2**31 - 1), "its number of frames"),
        ("num_frames", first(-1), "its number of frames"),
        ("width", first(0), "its width or height"),
        ("height", first(-3), "its width or height"),
        ("width", first(MAX_PIXELS), "its width or height"),
        ("fps", first(float("nan")), "its frame rate"),
        ("fps", first(-1.0), "its frame rate"),
        ("offset", first(-5), "its place in the tar"),
        ("offset", first(0), "its place in the tar"),
        ("offset", first(2**62), "its place in the tar"),
        ("bytes", first(2**62), "its number of bytes"),
        ("frame_sizes", lambda values: [[2**32 - 1] * len(values[0]), *values[1:]], "its place in the tar"),
        ("frame_sizes", lambda values: [values[0][:-1], *values[1:]], "one checksum for every frame"),
        ("frame_sizes", lambda values: [[0] * len(values[0]), *values[1:]], "its number of bytes|no bytes"),
        ("flow_num_frames", first(-1), "its number of flow fields"),
        ("flow_num_frames", first(500), "its number of flow fields"),
        ("flow_bound", first(float("inf")), "its flow bound"),
        ("flow_offset", first(2**62), "its place in the tar"),
        ("key", first("1"), "nine digits"),
        ("key", first("00000000x"), "00000000x"),
        ("key", first("1" * 100_000), "nine digits"),
        ("key", first(None), "a value is missing"),
        ("frame_crcs", first(None), "a value is missing"),
        ("key", lambda values: [values[1], *values[1:]], "a clip is listed twice"),
    ],
)
def test_an_index_that_says_what_cannot_be_is_refused(packed, reseal, column, change, message):
    with_column(packed, column, change, reseal)
    with pytest.raises(ActcliError, match=rf"train\.index\.parquet is not a shard index of this card.*({message})"):
        ShardSet.open(packed).index("train")


def test_an_index_of_other_types_is_refused(packed, reseal):
    path = packed / "train.index.parquet"
    table = pq.read_table(path)
    labels = pa.array([str(label) for label in table.column("label").to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("label"), "label", labels), path)
    reseal(packed)
    with pytest.raises(ActcliError, match="column label holds string"):
        ShardSet.open(packed).index("train")


def test_an_index_that_is_no_parquet_is_refused(packed, reseal):
    for data in (b"", b"PAR1", b"PAR1" + bytes(3000) + b"PAR1", os.urandom(5000)):
        (packed / "train.index.parquet").write_bytes(data)
        reseal(packed)
        with pytest.raises(ActcliError, match=r"train\.index\.parquet is not a shard index"):
            ShardSet.open(packed).index("train")


def test_damaged_parquet_is_an_error_even_when_the_card_agrees(packed, reseal):
    path = packed / "train.index.parquet"
    data = path.read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")  # in there some changes abort Arrow itself

    @settings(FUZZ, max_examples=80)
    @given(st.lists(st.tuples(st.integers(0, footer - 1), st.integers(0, 255)), min_size=1, max_size=6))
    def change(changes):
        changed = bytearray(data)
        for position, value in changes:
            changed[position] = value
        path.write_bytes(changed)
        reseal(packed)
        try:
            index = ShardSet.open(packed).index("train")
        except ActcliError:
            return
        assert index.labels.max() < len(ShardSet.open(packed).card.classes)

    change()


OPEN = """
from actcli.shards import ShardSet
try:
    ShardSet.open(sys.argv[1]).index('train')
except ValueError as error:
    print(error)
"""


def test_a_small_file_that_would_take_gigabytes_is_refused_before_they_are_taken(packed, reseal):
    path = packed / "train.index.parquet"
    table = pq.read_table(path)
    long = pa.ListArray.from_arrays([0, 50_000_000], pa.repeat(pa.scalar(7, pa.uint32()), 50_000_000))
    rest = table.slice(1)
    columns = []
    for field in table.schema:
        start = long if field.name in ("frame_sizes", "frame_crcs") else table.slice(0, 1).column(field.name)
        columns.append(
            pa.chunked_array(
                [*(start.chunks if hasattr(start, "chunks") else [start]), *rest.column(field.name).chunks], field.type
            )
        )
    pq.write_table(pa.table(columns, schema=table.schema), path, compression="zstd")
    reseal(packed)
    assert path.stat().st_size < 100_000
    peak, said = peak_megabytes(OPEN, packed)
    assert "would take" in said
    assert peak < 150


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_pipe_in_place_of_a_tar_is_refused_rather_than_waited_for(packed):
    (packed / "train-000000.tar").unlink()
    os.mkfifo(packed / "train-000000.tar")
    with pytest.raises(ActcliError, match=r"train-000000\.tar is no regular file"):
        ShardReader(packed).read("train-000000.tar", 0, 10)
    with pytest.raises(ActcliError, match=r"train-000000\.tar"):
        list(stream_clips(ShardSet.open(packed), ["train-000000.tar"]))


def test_no_memory_is_taken_for_bytes_that_a_tar_does_not_have(packed):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    try:
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), hard))
        with pytest.raises(ActcliError, match="ends before byte"):
            ShardReader(packed).read("train-000000.tar", 0, 1 << 40)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# --- Tars that are read through ---------------------------------------------------------------------------------------


def test_a_compressed_file_in_place_of_a_tar_is_not_unpacked(packed):
    path = packed / "train-000000.tar"
    bomb, size = gzip.compress(bytes(64 << 20)), path.stat().st_size
    path.write_bytes(bomb[:size].ljust(size, b"\0"))
    problems = [finding.problem for finding in verify_shards(packed) if finding.file == path.name]
    assert "its sha256 is not the card's: bytes have changed" in problems
    assert any(problem.startswith("cannot be read to its end (bad checksum)") for problem in problems)


def streamed(folder):
    shards = ShardSet.open(folder)
    names = [shard.name for shard in shards.card.shards if shard.name.startswith("train")]
    return [(clip.clip.note(), clip.payloads) for clip in stream_clips(shards, names)]


def test_a_streamed_clip_is_the_packed_one_or_an_error(packed, few_shards):
    path = packed / "train-000000.tar"
    data, whole = path.read_bytes(), streamed(few_shards)

    @FUZZ
    @given(st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255)), min_size=1, max_size=4))
    def change(changes):
        changed = bytearray(data)
        for position, bits in changes:
            changed[position] ^= bits
        path.write_bytes(changed)
        try:
            assert streamed(packed) == whole  # what lies between members
        except ActcliError as error:
            assert "train-000000.tar broke off after clip" in str(error)

    change()


def test_headers_of_a_tar_may_hold_anything(packed, few_shards):
    path = packed / "train-000000.tar"
    data, whole = path.read_bytes(), streamed(few_shards)
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar]

    @FUZZ
    @given(st.sampled_from(headers), st.integers(0, 500), st.binary(min_size=1, max_size=12))
    def change(header, field, wrong):
        block = bytearray(data[header : header + 512])
        block[field : field + len(wrong)] = wrong[: 512 - field]
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
        path.write_bytes(data[:header] + block + data[header + 512 :])
        try:
            assert streamed(packed) == whole
        except ActcliError as error:
            assert "train-000000.tar broke off after clip" in str(error)

    change()


GOOD = {"key": "000000000", "label": 0, "splits": {"1": "train"}, "num_frames": 1, "width": 8, "height": 8, "fps": 5.0}


def tar_of(folder, members, reseal):
    """A folder whose first train tar holds ``members``: (name or TarInfo, bytes)."""
    with tarfile.open(folder / "train-000000.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for member, data in members:
            if isinstance(member, str):
                member, size = tarfile.TarInfo(member), len(data)
                member.size = size
            tar.addfile(member, io.BytesIO(data))
    card = ShardCard.from_json((folder / "dataset.json").read_bytes(), "x")
    reseal(folder, shards=(replace(card.shards[0], name="train-000000.tar", num_clips=1), *card.shards[1:]))


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"label": 10**6}, "its label is 1000000"),
        ({"label": -2}, "its label"),
        ({"label": True}, "its label"),
        ({"label": None}, "its label"),
        ({"num_frames": 2**60}, "1 pictures of 3 bytes, where"),
        ({"num_frames": -1}, "its num_frames is -1"),
        ({"num_frames": 1.5}, "its num_frames"),
        ({"width": 0}, "0 x 8 pixels"),
        ({"width": 65500, "height": 65500}, "65500 x 65500 pixels"),
        ({"frame_sizes": [2, 2]}, "where"),
        ({"frame_sizes": [0]}, "frame sizes"),
        ({"frame_sizes": "abc"}, "frame sizes"),
        ({"splits": []}, "its splits"),
        ({"fps": float("inf")}, "its fps"),
        ({"fps": "fast"}, "its fps"),
        ({"key": "000000001"}, "its JSON is of '000000001'"),
        ({"key": None}, "its JSON is of None"),
        ({"flow_num_frames": 3}, "where 6 of 0"),
    ],
)
def test_the_json_of_a_clip_that_says_what_cannot_be_is_refused(packed, reseal, note, message):
    value = write_note(GOOD | {"frame_sizes": [3]} | note)
    tar_of(packed, [("000000000.json", seal(value, [b"abc"])), ("000000000.mjpeg", b"abc")], reseal)
    with pytest.raises(ActcliError, match=f"broke off after clip none: clip 000000000: .*{message}"):
        streamed(packed)


@pytest.mark.parametrize("text", [b"[" * 100_000, b"3", b"{}", b"", b'{"key":"\\ud800"}', b"\xff" * 40])
def test_json_that_is_no_note_is_refused(packed, reseal, text):
    sealed = text[:-1] + b',"crc32":"00000000"}' if text.startswith(b"{") else text
    sealed = seal(sealed, [b"abc"]) if sealed is not text else text
    tar_of(packed, [("000000000.json", sealed), ("000000000.mjpeg", b"abc")], reseal)
    with pytest.raises(ActcliError, match="broke off after clip none"):
        streamed(packed)


def test_deep_json_with_a_right_seal_is_refused():
    note = seal(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b',"crc32":"00000000"}', [])
    with pytest.raises(ValueError, match="nested too deeply"):
        open_note(note, [])


def test_members_that_are_no_files_of_clips_are_refused(packed, reseal):
    note = seal(write_note(GOOD | {"frame_sizes": [3]}), [b"abc"])
    link = tarfile.TarInfo("000000000.mjpeg")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    sparse = tarfile.TarInfo("000000000.mjpeg")
    sparse.type, sparse.size = tarfile.GNUTYPE_SPARSE, 3
    bad = [
        (link, b""),
        (sparse, b"abc"),
        ("../000000000.mjpeg", b"abc"),
        ("000000001.mjpeg", b"abc"),
        ("٠٠٠٠٠٠٠٠٠.json", b""),
    ]
    for member in bad:
        tar_of(packed, [("000000000.json", note), member], reseal)
        with pytest.raises(ActcliError, match="broke off after clip none"):
            streamed(packed)
        assert any(finding.file == "train-000000.tar" for finding in verify_shards(packed))


def test_a_clip_without_frames_or_with_two_is_refused(packed, reseal):
    note = seal(write_note(GOOD | {"frame_sizes": [3]}), [b"abc"])
    twice = [("000000000.json", note), ("000000000.mjpeg", b"abc"), ("000000000.mjpeg", b"abc")]
    for members in ([("000000000.json", note)], twice, twice[1:]):
        tar_of(packed, members, reseal)
        with pytest.raises(ActcliError, match="broke off after clip"):
            streamed(packed)


def test_a_tar_with_fewer_clips_than_the_card_says_is_refused(packed, reseal):
    card = ShardCard.from_json((packed / "dataset.json").read_bytes(), "x")
    more = replace(card.shards[0], num_clips=card.shards[0].num_clips + 1)
    reseal(packed, shards=(more, *card.shards[1:]))
    with pytest.raises(ActcliError, match="1 more clips were to come"):
        streamed(packed)
    assert any("the card says" in finding.problem for finding in verify_shards(packed))


def test_verify_compares_tars_with_indexes_even_when_all_checksums_agree(packed, reseal):
    with_column(packed, "label", lambda values: [(label + 1) % 6 for label in values], reseal)
    assert any("the index says otherwise" in finding.problem for finding in verify_shards(packed))


def test_verify_finds_wrong_places_and_checksums_of_frames(packed, few_shards, reseal):
    def problems(column, change):
        shutil.copy(few_shards / "train.index.parquet", packed)
        with_column(packed, column, change, reseal)
        return " ".join(finding.problem for finding in verify_shards(packed))

    assert "is not where the index says" in problems("offset", lambda values: [value + 512 for value in values])
    assert "its CRC-32 differs" in problems("frame_crcs", lambda values: [[5] * len(crcs) for crcs in values])

    def shift(values):
        return [[sizes[0] + 1, sizes[1] - 1, *sizes[2:]] for sizes in values]

    assert "its CRC-32 differs" in problems("frame_sizes", shift)


# --- Manifests --------------------------------------------------------------------------------------------------------


def with_manifest(frames, folder, change):
    copy = shutil.copytree(frames, folder)
    path = copy / "manifest.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows[0])
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    checksum_path(path).write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    return copy


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": 77},
        {"label": -2},
        {"key": "../../../x"},
        {"key": "000000001"},
        {"key": None},
        {"status": "fine"},
        {"splits": [("1", "training")]},
        {"splits": [("9", "train")]},
        {"bytes": 1},
        {"num_frames": 10**12},
        {"frame_sizes": [5]},
        {"frame_sizes": None},
        {"width": 0},
        {"width": 10**9},
    ],
    ids=str,
)
def test_a_manifest_that_contradicts_itself_is_refused(few_frames, tmp_path, wrong):
    frames = with_manifest(few_frames, tmp_path / "f", lambda row: row.update(wrong))
    with pytest.raises(ActcliError, match=r"manifest.* is damaged.*actcli extract"):
        write_shards(ShardOptions(frames, tmp_path / "s"))
    assert not (tmp_path / "s").exists()


def test_a_cut_manifest_is_an_error_in_a_sentence(few_frames, tmp_path):
    copy = shutil.copytree(few_frames, tmp_path / "f")
    data = (copy / "manifest.parquet").read_bytes()
    for part in (b"", data[: len(data) // 2], data[:-4], b"x" * 100):
        (copy / "manifest.parquet").write_bytes(part)
        with pytest.raises(ActcliError, match=r"manifest.* is damaged"):
            write_shards(ShardOptions(copy, tmp_path / "s"))
    (copy / "manifest.parquet").unlink()
    os.mkfifo(copy / "manifest.parquet")
    with pytest.raises(ActcliError, match=r"manifest\.parquet is no regular file"):
        write_shards(ShardOptions(copy, tmp_path / "s"))


def test_frames_that_are_gone_are_answered_with_the_command_that_restores_them(few_frames, tmp_path):
    copy = shutil.copytree(few_frames, tmp_path / "f")
    victim = copy / "0" / "000000002.mjpeg"
    victim.unlink()
    command = rf"actcli extract --dataset sprites --frames-dir {copy} --short-side 0"
    with pytest.raises(ActcliError, match=rf"000000002\.mjpeg \(gone\).*{command}"):
        write_shards(ShardOptions(copy, tmp_path / "s"))
    os.mkfifo(victim)
    with pytest.raises(ActcliError, match=r"000000002\.mjpeg \(no regular file\)"):
        forecast_shards(ShardOptions(copy, tmp_path / "s"))


# --- What would be written --------------------------------------------------------------------------------------------


def test_a_forecast_is_what_packing_then_writes_and_writes_nothing(few_options, few_shards, tmp_path):
    forecast = forecast_shards(few_options(tmp_path / "s"))
    card = ShardSet.open(few_shards).card
    assert (forecast.num_tars, forecast.num_bytes) == (len(card.shards), sum(tar.bytes for tar in card.shards))
    assert {split.split: split.num_clips for split in forecast.splits} == card.split_sets["1"]
    assert forecast.seconds > 0
    assert list(tmp_path.iterdir()) == []


def test_a_forecast_of_videos_encodes_a_few(few_options, tmp_path):
    forecast = forecast_shards(few_options(tmp_path / "s", payload="video"))
    assert 0 < forecast.num_bytes < forecast_shards(few_options(tmp_path / "s")).num_bytes * 2
    assert list(tmp_path.iterdir()) == []


def test_a_forecast_refuses_what_packing_would(few_options, tmp_path):
    (tmp_path / "train-000000.tar").write_text("x")
    with pytest.raises(ActcliError, match=r"holds train-000000\.tar"):
        forecast_shards(few_options(tmp_path))


def test_sums_of_sizes_do_not_widen_the_whole_column():
    from actcli.shards.bounds import _sums
    from actcli.shards.index import FrameTable

    lengths = np.random.default_rng(0).integers(0, 4, 25_000)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    sizes = np.full(starts[-1], 60_000, np.uint16)
    table = FrameTable(np.zeros(len(lengths), np.int64), starts, sizes, sizes)
    assert np.array_equal(_sums(table), lengths * 60_000)
