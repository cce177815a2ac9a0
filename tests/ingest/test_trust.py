"""What lies on the disk is believed only if it is what was written; advice is tested by following it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import zlib
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actcli.errors import ActcliError
from actcli.ingest import DatasetCard, extract_dataset, make_synthetic, read_manifest
from actcli.ingest.clip_job import ClipTask, extract_clip
from actcli.ingest.container import open_container
from actcli.ingest.datasets import get_dataset
from actcli.ingest.disk import DiskNeed
from actcli.ingest.extract import _clip_job
from actcli.ingest.failure import ClipFailure
from actcli.ingest.keys import assign_keys
from actcli.ingest.ledger import Ledger
from actcli.ingest.records import ClipRecord
from actcli.ingest.sizing import DecodeSettings
from actcli.shards.manifest import read_clips

FEW = settings(max_examples=60)


def result(frames_dir):
    """All bytes that count: frames, keys and manifest."""
    names = ("keys.jsonl", "manifest.parquet", "manifest.parquet.sha256", "dataset.json")
    files = [*frames_dir.rglob("*.mjpeg"), *(frames_dir / name for name in names)]
    return {path.relative_to(frames_dir): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """An extracted dataset of six clips, and how it was made."""
    from actcli.ingest import ExtractOptions

    root = tmp_path_factory.mktemp("extracted")
    make_synthetic(root / "raw" / "tiny", num_clips=12, size=(32, 32), num_frames=3)
    options = ExtractOptions("tiny", root / "raw" / "tiny", root / "frames" / "tiny", executor="serial")
    extract_dataset(options)
    return options


@pytest.fixture
def copy(extracted, tmp_path):
    """The same in a folder of its own."""
    shutil.copytree(extracted.frames_dir, tmp_path / "tiny")
    return replace(extracted, frames_dir=tmp_path / "tiny")


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


def do_as_told(message):
    """Run the command at the end of an error message."""
    command = re.search(r"(?:To (?:remove|delete) it: )(.+)$", message)[1]
    subprocess.run(command, shell=True, check=True)


def advice_followed(options):
    """Extract again, doing what each error says."""
    for _ in range(20):
        try:
            return extract_dataset(options)
        except ActcliError as error:
            do_as_told(str(error))
    pytest.fail("the advice does not help")


@FEW
@given(bit=st.integers(0, 1 << 40))
def test_a_flipped_bit_in_the_ledger_is_never_believed(extracted, bit):
    path = extracted.frames_dir / "extract.jsonl"
    whole = Ledger(path).outcomes
    data = path.read_bytes()
    damaged = path.with_name("damaged.jsonl")
    damaged.write_bytes(flipped(data, bit))
    try:
        rows = Ledger(damaged).outcomes
    except ActcliError as error:
        assert "is damaged" in str(error)
    else:  # the newline at the end: the last line counts as torn
        for key, row in rows.items():
            assert row.to_json() == whole[key].to_json()
        assert len(rows) == len(whole) - 1


@FEW
@given(bit=st.integers(0, 1 << 40))
def test_a_flipped_bit_in_the_manifest_is_never_believed(extracted, tmp_path, bit):
    data = (extracted.frames_dir / "manifest.parquet").read_bytes()
    (tmp_path / "manifest.parquet").write_bytes(flipped(data, bit))
    shutil.copy(extracted.frames_dir / "manifest.parquet.sha256", tmp_path)
    with pytest.raises(ActcliError, match="is damaged"):
        read_manifest(tmp_path)


def test_a_manifest_of_which_few_bytes_stand_for_gigabytes_is_refused_before_they_are_taken(copy, tmp_path):
    path, num_rows = copy.frames_dir / "manifest.parquet", 60_000
    table = read_manifest(copy.frames_dir).take(pa.array([0] * num_rows))
    one_for_all = pa.DictionaryArray.from_arrays(pa.array([0] * num_rows, pa.int32()), pa.array(["m" * 20_000]))
    place = table.column_names.index("message")
    pq.write_table(table.set_column(place, "message", one_for_all), path, compression="zstd", write_page_checksum=True)
    data = path.read_bytes()
    (copy.frames_dir / "manifest.parquet.sha256").write_text(f"{hashlib.sha256(data).hexdigest()}  manifest.parquet\n")
    assert len(data) < 200_000
    before = pa.total_allocated_bytes()
    with pytest.raises(ActcliError, match=r"is damaged \(its \d+ bytes would take 0\.3 GB of memory\)"):
        read_manifest(copy.frames_dir)
    assert pa.total_allocated_bytes() - before < 50_000_000


def test_a_card_larger_than_any_is_not_read(copy):
    with (copy.frames_dir / "dataset.json").open("r+b") as file:
        file.truncate(1 << 40)  # of which nothing lies on the disk
    with pytest.raises(ActcliError, match=r"dataset\.json is larger than 4 MB, so it is not what its name says"):
        DatasetCard.read(copy.frames_dir)


def test_keys_without_an_end_are_not_read(copy):
    keys = copy.frames_dir / "keys.jsonl"
    whole = keys.read_bytes()
    with keys.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(ActcliError, match=r"keys\.jsonl is damaged \(line 13 is cut, or longer than any name\)"):
        extract_dataset(copy)
    keys.write_bytes(whole)
    assert extract_dataset(copy).already_done == 12


def test_shard_reads_no_manifest_without_its_checksum(copy):
    (copy.frames_dir / "manifest.parquet.sha256").unlink()
    with pytest.raises(ActcliError, match=r"no .*manifest\.parquet\.sha256: run actcli extract"):
        read_clips(copy.frames_dir, DatasetCard.read(copy.frames_dir))
    extract_dataset(copy)
    assert len(read_clips(copy.frames_dir, DatasetCard.read(copy.frames_dir)).clips) == 12


def test_sha256sum_accepts_the_manifest(copy):
    subprocess.run(["sha256sum", "--check", "manifest.parquet.sha256"], cwd=copy.frames_dir, check=True)


def test_a_damaged_manifest_is_made_again_by_the_same_command(copy):
    before = result(copy.frames_dir)
    manifest = copy.frames_dir / "manifest.parquet"
    manifest.write_bytes(manifest.read_bytes()[:200])
    assert extract_dataset(copy).already_done == 12
    assert result(copy.frames_dir) == before


@pytest.mark.parametrize("line", [1, 5, 12])
def test_a_damaged_ledger_line_is_mended_by_the_advised_command(copy, line):
    before = result(copy.frames_dir)
    path = copy.frames_dir / "extract.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line - 1] = lines[line - 1].replace(b'"num_frames":3', b'"num_frames":2')
    path.write_bytes(b"".join(lines))
    with pytest.raises(ActcliError, match=f"Line {line} of"):
        extract_dataset(copy)
    assert advice_followed(copy).already_done == 11
    assert result(copy.frames_dir) == before


@pytest.mark.parametrize("damage", ["3d", "3{p;p}", "$d", "1s/.*/null/", "2s/.*/7/", "4s/.*/[[[/", "1,6d"])
def test_changed_keys_stop_the_run_and_are_restored_by_the_advised_command(copy, damage):
    before = result(copy.frames_dir)
    subprocess.run(["sed", "-i", damage, copy.frames_dir / "keys.jsonl"], check=True)
    with pytest.raises(ActcliError, match=r"keys\.jsonl (was changed|is damaged|names)"):
        extract_dataset(copy)
    assert advice_followed(copy).already_done == 12
    assert result(copy.frames_dir) == before


def test_keys_that_flow_was_extracted_under_bind_rgb_too(extracted, tmp_path):
    options = replace(extracted, frames_dir=tmp_path / "flow", modality="flow")
    extract_dataset(options)
    subprocess.run(["sed", "-i", "3d", options.frames_dir / "keys.jsonl"], check=True)
    with pytest.raises(ActcliError, match="keys"):
        extract_dataset(replace(options, modality="rgb"))


def _lines(names):
    return "".join(json.dumps(name) + "\n" for name in names).encode()


def test_names_that_are_no_text_keep_their_keys_when_these_are_made_again(extracted, tmp_path):
    raw = shutil.copytree(extracted.raw_dir, tmp_path / "raw")
    first = min(raw.rglob("*.mp4"))
    shutil.copy(first, first.with_name(os.fsdecode(b"bytes \xff.mp4")))
    shutil.copy(first, first.with_name("naïve 動画.mp4"))
    options = replace(extracted, raw_dir=raw, frames_dir=tmp_path / "new")
    extract_dataset(options)
    before = result(options.frames_dir)
    (options.frames_dir / "keys.jsonl").unlink()
    assert extract_dataset(options).already_done == 14
    assert result(options.frames_dir) == before


def test_a_folder_in_the_place_of_frames_is_named(copy):
    frames = copy.frames_dir / "0" / "000000001.mjpeg"
    frames.unlink()
    frames.mkdir()
    with pytest.raises(ActcliError, match=r"Writing to .*000000001\.mjpeg failed after 0 clips"):
        extract_dataset(copy)
    frames.rmdir()
    assert extract_dataset(copy).already_done == 11


@FEW
@given(data=st.binary(max_size=300) | st.lists(st.text(max_size=20)).map(_lines))
def test_any_keys_are_kept_or_refused(tmp_path, data):
    records = [ClipRecord(name, name, 0, "a", {"1": "train"}) for name in ("x", "y")]
    (tmp_path / "keys.jsonl").write_bytes(data)
    try:
        keys = assign_keys(tmp_path, records, {})
    except ActcliError:
        assert (tmp_path / "keys.jsonl").read_bytes() == data
    else:
        table = [json.loads(line) for line in (tmp_path / "keys.jsonl").read_text().splitlines()]
        assert all(table[int(key)] == name for name, key in keys.items())
        assert len(set(keys.values())) == len(keys) >= 2


def sealed(row):
    body = json.dumps(row)[:-1].encode()
    return body + b',"crc32":"%08x"}\n' % zlib.crc32(body)


ROW = ["key", "source_id", "status", "num_frames", "bytes", "frame_sizes", "bound"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@FEW
@given(changes=st.dictionaries(st.sampled_from(ROW), JSON))
def test_a_sealed_line_that_cannot_be_ours_is_refused_or_adds_up(extracted, tmp_path, changes):
    first = json.loads((extracted.frames_dir / "extract.jsonl").read_bytes().splitlines()[0])
    row = {name: value for name, value in first.items() if name != "crc32"} | changes
    path = tmp_path / "extract.jsonl"
    path.write_bytes(sealed(row))
    try:
        (read,) = Ledger(path).outcomes.values()
    except ActcliError:
        return
    if read.is_ok:
        assert read.frame_sizes.sum() == read.bytes


@FEW
@given(data=st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_card_is_read_or_refused(tmp_path, data):
    (tmp_path / "dataset.json").write_bytes(data)
    with pytest.raises(ActcliError, match="is damaged"):
        DatasetCard.read(tmp_path)


@FEW
@given(field=st.sampled_from(["name", "classes", "flip", "flip_swaps", "split_sets", "extraction"]), value=JSON)
def test_a_card_with_a_changed_field_has_the_promised_types_or_is_refused(extracted, tmp_path, field, value):
    card = json.loads((extracted.frames_dir / "dataset.json").read_text())
    (tmp_path / "dataset.json").write_text(json.dumps(card | {field: value}))
    try:
        read = DatasetCard.read(tmp_path)
    except ActcliError:
        return
    assert isinstance(read.name, str)
    assert all(isinstance(name, str) for name in read.classes)
    assert all(isinstance(made.settings, dict) for made in read.extraction.values())


@pytest.mark.parametrize("name", ["dataset.json", "keys.jsonl", "extract.jsonl"])
@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"a":' * 100_000, b'"\xed\xa0\x80"', b"\0" * 50])
def test_strange_content_is_one_sentence(copy, name, content):
    (copy.frames_dir / name).write_bytes(content + b"\n")
    with pytest.raises(ActcliError, match=re.escape(name)):
        extract_dataset(copy)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("name", ["dataset.json", "keys.jsonl", "extract.jsonl", "extract.flow.jsonl"])
def test_what_is_no_file_where_a_file_is_expected_is_one_sentence(copy, name, make):
    (copy.frames_dir / name).unlink(missing_ok=True)
    make(copy.frames_dir / name)
    with pytest.raises(ActcliError, match=re.escape(name)):
        extract_dataset(copy)


def test_a_folder_in_the_place_of_the_manifest_is_one_sentence(copy):
    (copy.frames_dir / "manifest.parquet").unlink()
    (copy.frames_dir / "manifest.parquet").mkdir()
    for attempt in (extract_dataset, lambda options: read_manifest(options.frames_dir)):
        with pytest.raises(ActcliError, match="manifest"):
            attempt(copy)


def test_a_ledger_of_an_earlier_version_is_refused_and_kept(copy):
    path = copy.frames_dir / "extract.jsonl"
    old = re.sub(rb',"crc32":"\w{8}"', b"", path.read_bytes())
    path.write_bytes(old)
    with pytest.raises(ActcliError, match=r"of an earlier version .* new folder with --frames-dir"):
        extract_dataset(copy)
    assert path.read_bytes() == old


def test_only_our_own_temporary_files_are_deleted(copy):
    theirs = [".cache.tmp/notes", "0/.editor.tmp", ".actcli/x.tmp", "1000/.actcli.tmp", "home/.actcli-x.12.tmp"]
    ours = [
        ".actcli-manifest.parquet.12.tmp",
        "0/.actcli-000000001.mjpeg.12.tmp",
        "0/.actcli-1.12.tmp/img_1.jpg",
    ]
    for name in theirs + ours:
        (copy.frames_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (copy.frames_dir / name).write_text("x")
    extract_dataset(copy)
    assert [name for name in theirs + ours if (copy.frames_dir / name).exists()] == theirs


@pytest.mark.parametrize("name", ["0/000000000.mjpeg", "keys.jsonl", "extract.jsonl", "manifest.parquet"])
def test_a_folder_with_files_of_our_names_and_no_card_is_not_touched(extracted, tmp_path, name):
    home = tmp_path / "home"
    (home / name).parent.mkdir(parents=True)
    (home / name).write_text("theirs")
    with pytest.raises(ActcliError, match=r"but no dataset\.json: .* Choose another folder"):
        extract_dataset(replace(extracted, frames_dir=home))
    assert [path.read_text() for path in home.rglob("*") if path.is_file()] == ["theirs"]


def test_a_card_of_something_else_is_not_touched(extracted, tmp_path):
    (tmp_path / "dataset.json").write_text('{"title": "theirs"}')
    with pytest.raises(ActcliError, match="is damaged"):
        extract_dataset(replace(extracted, frames_dir=tmp_path))
    assert os.listdir(tmp_path) == ["dataset.json"]


@pytest.fixture
def odd_raw(extracted, tmp_path):
    """Raw data to be filled with odd files."""
    return shutil.copytree(extracted.raw_dir, tmp_path / "raw")


def test_a_named_pipe_where_a_clip_is_listed_is_a_failed_row(extracted, tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    job = _clip_job(get_dataset("tiny"), replace(extracted, raw_dir=tmp_path, frames_dir=tmp_path))
    row = extract_clip(job, ClipTask("000000000", "x", "x.mp4", None, None))
    assert (row.status, row.stage, row.message) == ("failed", "open", "x.mp4 is a named pipe, not a file")


def test_the_estimate_passes_over_a_named_pipe(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    need = DiskNeed(tmp_path, DecodeSettings(), 1, "processes")
    assert list(need.problems([tmp_path / "x.mp4"], 10**12, "x")) == []


def test_headers_that_cannot_be_read_do_not_stop_the_estimate(extracted, odd_raw, tmp_path, clips_dir):
    clips = sorted(odd_raw.rglob("*.mp4"))
    data = clips[0].read_bytes()
    clips[0].write_bytes(data.replace(b"avc1", b"xxxx"))
    clips[1].write_bytes(data[:300])
    summary = extract_dataset(replace(extracted, raw_dir=odd_raw, frames_dir=tmp_path / "new"))
    assert summary.counts == {"ok": 10, "partial": 0, "failed": 2, "missing": 0}


def test_an_unknown_codec_is_said_to_be_one(extracted, tmp_path):
    data = min(extracted.raw_dir.rglob("*.mp4")).read_bytes()
    (tmp_path / "x.mp4").write_bytes(data.replace(b"avc1", b"xxxx"))
    with pytest.raises(ClipFailure, match="no decoder"):
        open_container(tmp_path / "x.mp4")


def test_one_deleted_frames_file_is_restored_by_the_command_that_shard_names(extracted, tmp_path):
    from typer.testing import CliRunner

    from actcli.cli import app

    shutil.copytree(extracted.frames_dir.parents[1], tmp_path / "work")
    space = ["--workspace", str(tmp_path / "work")]
    frames = tmp_path / "work" / "frames" / "tiny"
    before = result(frames)
    (frames / "0" / "000000003.mjpeg").unlink()
    told = CliRunner().invoke(app, ["shard", *space])
    assert told.exit_code == 1
    command = re.search(r"actcli (extract --dataset \S+)", told.output.replace("\n", " "))[1].split()
    assert CliRunner().invoke(app, [*command, "--executor", "serial", *space]).exit_code == 0
    assert result(frames) == before
    assert CliRunner().invoke(app, ["shard", *space]).exit_code == 0


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to_is_one_sentence(copy):
    copy.frames_dir.chmod(0o555)
    with pytest.raises(ActcliError, match="written to"):
        extract_dataset(copy)
