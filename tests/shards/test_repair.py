"""``repair_shards``: what a folder was, again, or a reason; and nothing that is not ours is touched."""

import json
import os
import shutil

import pytest

from actcli.errors import ActcliError
from actcli.shards import ShardSet, verify_shards, write_shards
from actcli.shards.repair import repair_shards
from tests.faults import calls_of, failing, points_of

TAR = "train-000001.tar"


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.fixture
def packed(few_shards, tmp_path):
    return shutil.copytree(few_shards, tmp_path / "sprites")


@pytest.fixture(scope="session")
def video_shards(few_options, tmp_path_factory):
    folder = tmp_path_factory.mktemp("video") / "sprites"
    write_shards(few_options(folder, payload="video"))
    return folder


def gone(path):
    path.unlink()


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def emptied(path):
    path.write_bytes(b"")


def flipped_in_the_middle(path):
    flip(path, path.stat().st_size // 2)


def flipped_in_the_first_header(path):
    flip(path, 3)


def flipped_in_the_padding(path):
    flip(path, path.stat().st_size - 1)


def shifted(path):
    path.write_bytes(b"x" * 100 + path.read_bytes())


def without_a_middle_part(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 3] + data[len(data) // 2 :])


DAMAGE = [
    gone,
    cut,
    emptied,
    flipped_in_the_middle,
    flipped_in_the_first_header,
    flipped_in_the_padding,
    shifted,
    without_a_middle_part,
]


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("names", [[TAR], ["train-000001.idx"], ["train.index.parquet"], [TAR, "train-000001.idx"]])
def test_a_damaged_file_is_what_it_was_again(few_frames, few_shards, packed, contents, names, damage):
    for name in names:
        damage(packed / name)
    result = repair_shards(packed, few_frames)
    assert [finding.file for finding in result.mended] == names
    assert result.left == ()
    assert contents(packed) == contents(few_shards)


@pytest.mark.parametrize("damage", DAMAGE)
def test_indexes_need_no_frames(few_shards, packed, contents, tmp_path, damage):
    for path in (*packed.glob("*.idx"), *packed.glob("*.parquet")):
        damage(path)
    assert repair_shards(packed, tmp_path / "nowhere").left == ()
    assert contents(packed) == contents(few_shards)


def test_a_flipped_bit_between_clips_needs_no_frames(few_shards, packed, contents, tmp_path):
    flipped_in_the_padding(packed / TAR)
    assert repair_shards(packed, tmp_path / "nowhere").left == ()
    assert contents(packed) == contents(few_shards)


def test_only_the_hurt_clips_are_taken_from_the_frames(few_frames, few_shards, packed, contents, tmp_path):
    index = ShardSet.open(packed).index("train")
    row = next(row for row in range(len(index)) if index.shard_name(row) == TAR)
    flip(packed / TAR, int(index.offsets[row]) + 50)
    frames = shutil.copytree(few_frames, tmp_path / "frames")
    hurt = f"{index.keys[row]:09d}"
    for path in frames.glob("*/*.mjpeg"):
        if not path.name.startswith(hurt):
            path.unlink()
    assert repair_shards(packed, frames).left == ()
    assert contents(packed) == contents(few_shards)


@pytest.mark.parametrize("damage", [gone, flipped_in_the_middle])
def test_a_hurt_video_is_encoded_again(few_frames, video_shards, tmp_path, contents, damage):
    folder = shutil.copytree(video_shards, tmp_path / "sprites")
    damage(folder / "val-000000.tar")
    damage(folder / "val.index.parquet")
    assert repair_shards(folder, few_frames).left == ()
    assert contents(folder) == contents(video_shards)


def test_everything_at_once_is_what_it_was_again(few_frames, few_shards, packed, contents):
    text = (packed / "dataset.json").read_text()
    (packed / "dataset.json").write_text(text.replace("growing", "Growing"))
    for path in packed.iterdir():
        if path.suffix in (".idx", ".parquet") or path.name == TAR:
            path.unlink()
    repair_shards(packed, few_frames)
    assert contents(packed) == contents(few_shards)
    assert repair_shards(packed, few_frames).mended == ()


def test_what_cannot_be_mended_is_said_and_left(few_frames, packed, contents, tmp_path):
    cut(packed / TAR)
    cut(packed / "val-000000.idx")
    before = contents(packed)
    result = repair_shards(packed, tmp_path / "nowhere")
    assert [finding.file for finding in result.mended] == ["val-000000.idx"]
    (left,) = result.left
    assert left.file == TAR
    assert "hurt (0000000" in left.problem
    assert "nowhere" in left.problem
    assert (packed / TAR).read_bytes() == before[TAR]


def test_other_frames_are_not_taken_for_those_that_were_packed(few_frames, packed, contents, tmp_path):
    frames = shutil.copytree(few_frames, tmp_path / "frames")
    cut(packed / TAR)
    before = contents(packed)
    for path in frames.glob("*/*.mjpeg"):
        flipped_in_the_middle(path)
    (left,) = repair_shards(packed, frames).left
    assert "changed since it was extracted" in left.problem
    assert contents(packed) == before


def test_a_tar_whose_order_nothing_tells_is_left(few_frames, few_options, few_shards, packed, contents):
    for name in (TAR, "train-000001.idx", "train.index.parquet"):
        (packed / name).unlink()
    result = repair_shards(packed, few_frames)
    assert [finding.file for finding in result.left] == [TAR, "train-000001.idx", "train.index.parquet"]
    assert "can be named" in result.left[0].problem
    write_shards(few_options(packed))  # makes them of the frames, as it made them first
    assert contents(packed) == contents(few_shards)


@pytest.mark.parametrize("position", [3, 512 + 40, 1024 + 3, 3000])  # header and text of the JSON, of the frames
def test_a_hurt_clip_is_named_by_what_is_left_of_its_headers(few_frames, few_shards, packed, contents, position):
    flip(packed / TAR, position)
    for name in ("train-000001.idx", "train.index.parquet"):
        (packed / name).unlink()
    assert repair_shards(packed, few_frames).left == ()
    assert contents(packed) == contents(few_shards)


def test_an_index_of_another_arrow_gets_a_card_that_names_it(few_frames, few_shards, packed, monkeypatch, contents):
    from actcli.shards import index_file

    plain = index_file.pq.write_table
    monkeypatch.setattr(index_file.pq, "write_table", lambda *a, **named: plain(*a, **{**named, "compression": "gzip"}))
    gone(packed / "val.index.parquet")
    result = repair_shards(packed, few_frames)
    assert [finding.file for finding in result.mended] == ["val.index.parquet"]
    assert verify_shards(packed) == []
    differing = {name for name, data in contents(few_shards).items() if contents(packed)[name] != data}
    assert differing == {"val.index.parquet", "dataset.json"}
    keys = [ShardSet.open(folder).index("val").keys.tolist() for folder in (packed, few_shards)]
    assert keys[0] == keys[1]


# --- The card ---------------------------------------------------------------------------------------------------------


def without_settings(path):
    path.write_text('{"format": "actcli-shards", ' + path.read_text()[40:])


@pytest.mark.parametrize("damage", [flipped_in_the_middle, cut, without_settings])
def test_a_damaged_card_is_made_again_of_tars_that_the_frames_prove(
    few_frames, few_options, tmp_path, contents, damage
):
    folder = tmp_path / "sprites"
    write_shards(few_options(folder, shard_bytes=256_000_000))
    before = contents(folder)
    damage(folder / "dataset.json")
    assert [finding.file for finding in repair_shards(folder, few_frames).mended] == ["dataset.json"]
    assert contents(folder) == before


def test_the_settings_of_a_damaged_card_are_used(few_frames, few_options, tmp_path, contents):
    folder = tmp_path / "sprites"
    write_shards(few_options(folder, seed=5))
    before = contents(folder)
    text = (folder / "dataset.json").read_text()
    (folder / "dataset.json").write_text(text.replace('"flip": "swap"', '"flip": "allowed"'))
    cut(folder / TAR)
    repair_shards(folder, few_frames)
    assert contents(folder) == before


def test_a_card_that_is_gone_is_not_made_of_tars_of_other_settings(few_frames, packed, contents):
    gone(packed / "dataset.json")
    before = contents(packed)
    with pytest.raises(
        ActcliError, match=r"cannot be made again: train-000000\.tar is not what .* gives with the settings"
    ):
        repair_shards(packed, few_frames)
    assert contents(packed) == before


def test_a_card_without_frames_says_what_mends_it(packed, tmp_path, contents):
    cut(packed / "dataset.json")
    before = contents(packed)
    with pytest.raises(ActcliError, match=r"can be made again from the frames, but .*nowhere"):
        repair_shards(packed, tmp_path / "nowhere")
    assert contents(packed) == before


@pytest.mark.parametrize("name", ["dataset.json", "val.index.parquet", "val-000000.tar", "train-000000.idx"])
def test_a_foreign_file_is_left_alone_where_no_card_says_whose_it_is(few_frames, few_options, tmp_path, contents, name):
    folder = tmp_path / "sprites"
    write_shards(few_options(folder, shard_bytes=256_000_000))
    gone(folder / "dataset.json")
    (folder / name).write_text("foreign")
    before = contents(folder)
    with pytest.raises(ActcliError, match=f"holds {name}, which no card or journal|{name} is not what"):
        repair_shards(folder, few_frames)
    assert contents(folder) == before


def test_files_of_other_names_stay(few_frames, packed, contents):
    others = ["train-000077.tar", "notes.txt", ".x.tmp", "other.index.parquet"]
    for name in others:
        (packed / name).write_text(name)
    cut(packed / TAR)
    repair_shards(packed, few_frames)
    assert all((packed / name).read_text() == name for name in others)


def test_a_folder_or_a_pipe_in_place_of_a_tar_does_not_hang(few_frames, few_shards, packed, contents):
    gone(packed / TAR)
    (packed / TAR).mkdir()
    (left,) = repair_shards(packed, few_frames).left
    assert "is a folder" in left.problem
    (packed / TAR).rmdir()
    os.mkfifo(packed / TAR)
    assert repair_shards(packed, few_frames).left == ()
    assert contents(packed) == contents(few_shards)


def test_unfinished_shards_and_other_versions_are_left_alone(few_frames, packed):
    card = json.loads((packed / "dataset.json").read_text())
    (packed / "dataset.json").write_text(json.dumps(card | {"version": 99}))
    with pytest.raises(ActcliError, match="format version 99"):
        repair_shards(packed, few_frames)
    gone(packed / "dataset.json")
    (packed / ".actcli-shard.jsonl").write_text('{"digest": "", "names": []}\n')
    with pytest.raises(ActcliError, match="a run did not finish; this continues it: actcli shard"):
        repair_shards(packed, few_frames)
    with pytest.raises(ActcliError, match="there is no folder"):
        repair_shards(packed / "nowhere", few_frames)


def test_a_tar_that_was_changed_together_with_its_card_is_no_success(packed, few_frames, reseal):
    data = (packed / TAR).read_bytes()
    flip(packed / TAR, data.index(b"\xff\xda") + 20)
    reseal(packed)
    findings = verify_shards(packed)
    assert [finding.file for finding in findings] == [TAR]
    mended = repair_shards(packed, few_frames)
    assert (mended.mended, list(mended.left)) == ((), findings)


# --- Faults and kills -------------------------------------------------------------------------------------------------


def hurt(few_shards, folder, names):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(few_shards, folder)
    for name in names:
        if name == "dataset.json":
            (folder / name).write_text((folder / name).read_text().replace("growing", "Growing"))
        else:
            cut(folder / name)


@pytest.fixture(params=["tars and indexes", "card"])
def ill(request, few_shards, tmp_path):
    """``(make, folder, whole)``: makes a damaged folder of what ``whole`` is."""
    if request.param == "card":
        whole, names = few_shards, ["dataset.json", "val-000000.tar", "train.index.parquet"]
    else:
        whole, names = few_shards, [TAR, "train.index.parquet", "val-000000.idx"]
    folder = tmp_path / "sprites"
    make = lambda: hurt(whole, folder, names)  # noqa: E731
    make()
    return make, folder, whole


def test_whatever_the_disk_does_a_repair_is_right_or_an_error_and_goes_on(ill, few_frames, contents):
    make, folder, whole = ill
    calls = calls_of(lambda: repair_shards(folder, few_frames), below=folder)
    wanted = contents(whole)
    num_errors = 0
    for number, error in points_of(calls):
        make()
        try:
            with failing(number, error, below=folder):
                is_right = not repair_shards(folder, few_frames).left
        except ActcliError:
            is_right = False
        num_errors += not is_right
        assert not is_right or contents(folder) == wanted, calls[number]
        repair_shards(folder, few_frames)
        assert contents(folder) == wanted, calls[number]
    assert num_errors > 4


class Killed(BaseException):
    """The end of a process."""


def test_killed_at_any_rename_a_repair_goes_on_to_the_same_bytes(ill, few_frames, contents, monkeypatch):
    make, folder, whole = ill
    number, replace, is_killed = 0, os.replace, True
    while is_killed:
        make()
        left = [number]

        def dying(*paths, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return replace(*paths)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            try:
                repair_shards(folder, few_frames)
                is_killed = False
            except Killed:
                pass
        repair_shards(folder, few_frames)
        assert contents(folder) == contents(whole)
        number += 1
    assert number > 2
