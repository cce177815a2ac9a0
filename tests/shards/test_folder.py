"""Writing into a folder: only our own files are touched, and what is kept is what was written."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from actcli.errors import ActcliError
from actcli.files import check_writable, folder_lock
from actcli.shards import ShardCard, forecast_shards, verify_shards, write_shards
from actcli.shards.card import ShardFile
from actcli.shards.journal import JOURNAL_NAME, Journal
from actcli.shards.video_cache import CACHE_NAME


def flip(path, position, bit=1):
    data = bytearray(path.read_bytes())
    data[position] ^= bit
    path.write_bytes(data)


@pytest.fixture
def packed(few_shards, tmp_path):
    return shutil.copytree(few_shards, tmp_path / "s")


# --- Foreign files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["train-000000.tar", "train-000000.idx", "val.index.parquet", "dataset.json", "val-000000.tar"]
)
def test_a_foreign_file_in_the_way_is_refused_and_left_alone(few_options, tmp_path, name, overwrite):
    (tmp_path / name).write_text('{"a": 1}')
    with pytest.raises(ActcliError, match=rf"holds {name}, which no card or journal there calls shards of actcli"):
        write_shards(few_options(tmp_path, overwrite=overwrite))
    assert (tmp_path / name).read_text() == '{"a": 1}'
    assert sorted(path.name for path in tmp_path.iterdir()) == [".actcli-lock", name]


@pytest.mark.parametrize("overwrite", [False, True])
def test_files_of_other_names_stay(few_options, packed, overwrite):
    others = ["imagenet-000123.tar", "train-000077.tar", "other.index.parquet", ".x-000000.tar.tmp", ".lock", "a.idx"]
    for name in others:
        (packed / name).write_text(name)
    write_shards(few_options(packed, overwrite=overwrite, seed=3 if overwrite else 0))
    assert all((packed / name).read_text() == name for name in others)


def test_overwriting_removes_the_tars_that_the_card_names(few_options, packed, contents):
    num_tars = len(list(packed.glob("*.tar")))
    write_shards(few_options(packed, overwrite=True, shard_bytes=10**9))
    assert len(list(packed.glob("*.tar"))) == 2 < num_tars
    assert verify_shards(packed) == []
    assert len(contents(packed)) == 2 * 2 + 2 + 1


def test_the_card_of_the_frames_is_no_card_of_shards(few_options, few_frames, tmp_path):
    copy = shutil.copytree(few_frames, tmp_path / "f")
    before = (copy / "dataset.json").read_bytes()
    with pytest.raises(ActcliError, match=r"holds dataset\.json"):
        write_shards(few_options(copy, overwrite=True))
    assert (copy / "dataset.json").read_bytes() == before


def test_a_folder_in_place_of_a_file_of_ours_is_refused(few_options, packed):
    (packed / "train-000000.tar").unlink()
    (packed / "train-000000.tar").mkdir()
    with pytest.raises(ActcliError, match=r"train-000000\.tar is a folder where a file belongs"):
        write_shards(few_options(packed))


def test_temporary_files_of_a_killed_run_are_removed_and_foreign_ones_are_not(few_options, tmp_path):
    for name in (".actcli-train.index.parquet.77.tmp", ".cache.tmp", "x.77.tmp"):
        (tmp_path / name).write_text("x")
    write_shards(few_options(tmp_path))
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == [".cache.tmp", "x.77.tmp"]


@pytest.mark.parametrize("work", [write_shards, forecast_shards])
@pytest.mark.parametrize("below", ["", "x/y"])
def test_a_file_in_place_of_the_folder_is_an_error_before_any_work(few_options, tmp_path, below, work):
    (tmp_path / "s").write_text("x")
    with pytest.raises(ActcliError, match=r"/s is not a folder that can be written to.*--shards-dir"):
        work(few_options(tmp_path / "s" / below))


@pytest.mark.parametrize("work", [write_shards, forecast_shards])
def test_a_place_that_may_not_be_written_to_is_an_error_before_any_work(few_options, tmp_path, monkeypatch, work):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ActcliError, match="is not a folder that can be written to"):
        work(few_options(tmp_path / "s"))


def test_shards_of_an_older_version_are_overwritten_when_asked(few_options, packed):
    card = json.loads((packed / "dataset.json").read_text())
    (packed / "dataset.json").write_text(json.dumps({**card, "version": 2, "files": None}))
    with pytest.raises(ActcliError, match=r"format version 2.*--overwrite"):
        write_shards(few_options(packed))
    assert write_shards(few_options(packed, overwrite=True)).num_written == len(card["shards"])
    assert verify_shards(packed) == []


def test_a_card_that_names_files_outside_its_folder_makes_none_of_them_ours(few_options, packed, tmp_path):
    (tmp_path / "outside-000000.tar").write_text("x")
    (packed / "notes.txt").write_text("x")
    card = json.loads((packed / "dataset.json").read_text())
    for name in ("../outside-000000.tar", str(tmp_path / "outside-000000.tar"), "notes.txt"):
        card["shards"].append({**card["shards"][0], "name": name})
    card["split_sets"]["1"]["../x"] = 1
    (packed / "dataset.json").write_text(json.dumps(card))
    write_shards(few_options(packed, overwrite=True))
    assert (tmp_path / "outside-000000.tar").exists()
    assert (packed / "notes.txt").exists()


# --- What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["removed", "cut", "flipped", "fifo"])
@pytest.mark.parametrize("name", ["train-000001.tar", "val-000000.idx", "train.index.parquet"])
def test_a_damaged_file_of_finished_shards_is_written_again(few_options, few_shards, packed, contents, name, damage):
    path = packed / name
    if damage in ("removed", "fifo"):
        path.unlink()
    if damage == "fifo":
        os.mkfifo(path)
    elif damage == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif damage == "flipped":
        flip(path, path.stat().st_size // 2)
    assert [finding.file for finding in verify_shards(packed)] >= [name]
    summary = write_shards(few_options(packed))
    assert not summary.was_whole
    assert summary.num_written == name.endswith(".tar")
    assert contents(packed) == contents(few_shards)


def test_whole_shards_are_left_alone(few_options, packed):
    before = {path.name: path.stat().st_ino for path in packed.iterdir()}
    summary = write_shards(few_options(packed))
    assert summary.was_whole
    assert {path.name: path.stat().st_ino for path in packed.iterdir()} == before


def unfinished(packed, digest):
    """A folder as a kill before the card leaves it."""
    card = ShardCard.from_json((packed / "dataset.json").read_bytes(), "x")
    names = {path.name for path in packed.iterdir()}
    (packed / "dataset.json").unlink()
    Journal(digest or card.source_digest, frozenset(names), {tar.name: tar for tar in card.shards}).write(packed)
    return len(card.shards)


def test_a_journalled_tar_with_a_flipped_bit_is_written_again(few_options, few_shards, packed, contents):
    unfinished(packed, None)
    flip(packed / "train-000001.tar", 3000)
    assert write_shards(few_options(packed)).num_written == 1
    assert contents(packed) == contents(few_shards)


def test_the_journal_of_other_settings_keeps_no_tar_but_says_whose_they_are(few_options, few_shards, packed, contents):
    num_tars = unfinished(packed, "other")
    assert write_shards(few_options(packed)).num_written == num_tars
    assert contents(packed) == contents(few_shards)


@pytest.mark.parametrize(
    "line", [b"{", b"[1]\n", b"[" * 100_000 + b"\n", b'{"name": "train-000001.tar"}\n', b"\xff\xfe\n", b"null\n"]
)
def test_tars_behind_a_damaged_line_of_the_journal_are_written_again(few_options, few_shards, packed, contents, line):
    num_tars = unfinished(packed, None)
    lines = (packed / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    (packed / JOURNAL_NAME).write_bytes(lines[0] + lines[1] + line)
    assert write_shards(few_options(packed)).num_written == num_tars - 1
    assert contents(packed) == contents(few_shards)


@pytest.mark.parametrize("head", [b"[]\n", b"[" * 100_000 + b"\n", b"\xff\n", b'{"names": 3}\n'])
def test_a_journal_that_does_not_say_what_is_ours_is_refused(few_options, packed, head):
    (packed / JOURNAL_NAME).write_bytes(head)
    with pytest.raises(ActcliError, match=r"names the files of an unfinished run, is damaged"):
        write_shards(few_options(packed))


def test_a_second_run_is_kept_out(few_options, packed):
    with folder_lock(packed, "another run"), pytest.raises(ActcliError, match="another run is writing"):
        write_shards(few_options(packed))


def test_encoded_videos_of_a_killed_run_are_kept_if_unchanged(few_options, tmp_path, monkeypatch, contents):
    import actcli.shards.video_cache as video_cache
    import actcli.shards.writer as writer

    options = few_options(tmp_path / "v", payload="video")
    encoded = []
    plain = video_cache.encode_video

    def count(source, *args, **settings):
        encoded.append(source.stem)
        plain(source, *args, **settings)

    monkeypatch.setattr(video_cache, "encode_video", count)
    write_shards(few_options(tmp_path / "whole", payload="video"))
    assert len(encoded) == 24
    monkeypatch.setattr(writer, "_write_tars", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_shards(options)
    monkeypatch.undo()
    monkeypatch.setattr(video_cache, "encode_video", count)
    videos = sorted((tmp_path / "v" / CACHE_NAME).glob("*/*/*.mp4"))
    flip(videos[2], 100)
    (videos[0].parent / "mine.txt").write_text("x")
    encoded.clear()
    write_shards(options)
    assert encoded == ["000000002"]
    assert (videos[0].parent / "mine.txt").exists()
    shutil.rmtree(tmp_path / "v" / CACHE_NAME)
    assert contents(tmp_path / "v") == contents(tmp_path / "whole")


def test_a_tar_of_another_encoder_is_not_kept(few_options, tmp_path, monkeypatch):
    """Its index would be made from the videos of this one."""
    import actcli.shards.video as video

    options = few_options(tmp_path / "v", payload="video")
    write_shards(options)
    (tmp_path / "v" / "val-000000.tar").unlink()
    monkeypatch.setattr(video, "QUALITY_CRF", 30)
    write_shards(options)
    assert verify_shards(tmp_path / "v") == []


def test_too_small_a_disk_is_said_before_anything_is_written(few_options, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 5000))
    with pytest.raises(ActcliError, match=r"0\.0 MB free, the shards need about 0\.\d MB"):
        write_shards(few_options(tmp_path / "s"))
    assert [path.name for path in (tmp_path / "s").iterdir()] == [".actcli-lock"]


def test_a_journal_survives_its_file(tmp_path):
    journal = Journal("d", frozenset({"a", "b"}), {"a": ShardFile("a", 1, "0" * 64, 2)})
    journal.write(tmp_path)
    assert Journal.read(tmp_path) == journal
    assert Journal.read(tmp_path / "nowhere") == Journal()


def test_a_probe_of_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, data):
        path.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ActcliError, match=r"nothing can be written to .* \(No space left on device\)"):
        check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
