"""Clips that come later go into new tars; the tars that are there are not written again."""

import os
import shutil
from dataclasses import replace

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.shards import ShardOptions, ShardSet, forecast_shards, verify_shards, write_shards
from actcli.shards import writer as writing
from actcli.shards.repair import repair_shards
from actcli.shards.stream import stream_clips
from actcli.shards.transfer import pull_shards, push_shards
from tests.faults import calls_of, errors_of, failing, points_of

NUM_VIDEOS = 16
LATE = ("3.mp4", "8.mp4", "14.mp4", "15.mp4")
"""One is missing and one broken at first; the others are not listed yet."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    make_synthetic(root, num_clips=NUM_VIDEOS, num_frames=3, size=(64, 48))
    return sorted(root.rglob("*.mp4"))


class Own:
    """A dataset with a list, of which clips come later."""

    def __init__(self, root, videos):
        self.raw, self.frames, self.videos = root / "raw", root / "frames", videos
        self.raw.mkdir(parents=True)
        for number in range(14):
            if number != 3:
                shutil.copy(videos[number], self.raw / f"{number}.mp4")
        (self.raw / "8.mp4").write_bytes(b"no video")
        self.list(14)

    def list(self, count, classes="ab", splits=("train", "train", "val")):
        rows = [f"{n}.mp4,{classes[n % len(classes)]},{splits[n % len(splits)]}\n" for n in range(count)]
        (self.raw / "list.csv").write_text("path,label,split\n" + "".join(rows))

    def extract(self, **options):
        extract_dataset(ExtractOptions("own", self.raw, self.frames, short_side=0, executor="serial", **options))

    def come(self, name):
        shutil.copy(self.videos[int(name.removesuffix(".mp4"))], self.raw / name)

    def grow(self):
        for name in LATE:
            self.come(name)
        self.list(NUM_VIDEOS)
        self.extract(retry_failed=True)
        self.extract()


@pytest.fixture(scope="module")
def small(videos, tmp_path_factory):
    """The dataset before the clips come, its shards, and those with them."""
    own = Own(tmp_path_factory.mktemp("own"), videos)
    own.extract()
    own.small, own.before = own.raw.parent / "small", own.raw.parent / "before"
    write_shards(options(own.frames, own.small))
    shutil.copytree(own.frames, own.before)
    own.grow()
    own.grown = shutil.copytree(own.small, own.raw.parent / "grown")
    own.summary = write_shards(options(own.frames, own.grown))
    return own


def options(frames, folder, **changes):
    return replace(ShardOptions(frames, folder, shard_bytes=40_000, workers=1), **changes)


def clips_of(folder):
    shards = ShardSet.open(folder)
    return {one.clip.source_id: one for one in stream_clips(shards, [shard.name for shard in shards.card.shards])}


def test_clips_that_were_missing_failed_or_not_listed_are_added(small):
    assert small.summary.num_added == len(LATE)
    before, after = ShardSet.open(small.small).card, small.summary.card
    assert after.shards[: len(before.shards)] == before.shards
    assert after.extends == (before.source_digest,)
    assert after.coverage == {"listed": NUM_VIDEOS, "ok": NUM_VIDEOS, "failed": 0, "missing": 0}
    assert sorted(clips_of(small.grown)) == sorted(f"{number}.mp4" for number in range(NUM_VIDEOS))
    indexed = [name for split in ("train", "val") for name in ShardSet.open(small.grown).clip_names(split)]
    assert sorted(indexed) == sorted(clips_of(small.grown))
    assert verify_shards(small.grown, deep=True) == []


def test_the_clips_are_those_of_shards_that_are_written_at_once(small, tmp_path):
    write_shards(options(small.frames, tmp_path / "s"))
    at_once, grown = clips_of(tmp_path / "s"), clips_of(small.grown)
    assert {name: one.payloads for name, one in grown.items()} == {name: one.payloads for name, one in at_once.items()}
    assert {name: one.clip.note() for name, one in grown.items()} == {n: one.clip.note() for n, one in at_once.items()}


def test_a_forecast_of_shards_that_are_there_writes_nothing(small):
    forecast = forecast_shards(options(small.frames, small.grown))
    assert (forecast.num_tars, forecast.num_bytes) == (0, 0)


def test_a_push_makes_the_folder_of_a_file_url(small, tmp_path, contents):
    push_shards(small.grown, f"file://{tmp_path}/disk/place")
    assert contents(tmp_path / "disk" / "place") == contents(small.grown)


def test_progress_is_told_to_the_last_index(small, tmp_path):
    told = []
    card = write_shards(options(small.frames, tmp_path / "s"), progress=told.append).card
    assert list(dict.fromkeys(progress.stage for progress in told)) == ["write", "index"]
    assert (told[-1].done, told[-1].total) == (len(card.files), len(card.files))


def test_tars_that_are_there_are_not_touched(small, tmp_path):
    folder = shutil.copytree(small.small, tmp_path / "s")
    before = {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.glob("*.tar")}
    write_shards(options(small.frames, folder))
    assert {name: ((folder / name).read_bytes(), (folder / name).stat().st_ino) for name in before} == before


def test_grown_shards_are_left_alone_and_grow_again(small, videos, tmp_path, contents):
    folder, own = shutil.copytree(small.small, tmp_path / "s"), Own(tmp_path / "own", videos)
    own.extract()
    assert write_shards(options(own.frames, folder)).was_whole
    for number, name in enumerate(("3.mp4", "8.mp4"), 1):
        own.come(name)
        own.extract(retry_failed=True)
        summary = write_shards(options(own.frames, folder))
        assert (summary.num_added, summary.num_written, len(summary.card.extends)) == (1, 1, number)
        before = contents(folder)
        assert write_shards(options(own.frames, folder)).was_whole
        assert contents(folder) == before
    assert verify_shards(folder) == []


def test_a_list_that_grows_by_missing_clips_changes_the_coverage_alone(small, videos, tmp_path):
    folder, own = shutil.copytree(small.small, tmp_path / "s"), Own(tmp_path / "own", videos)
    own.extract()
    own.list(15)
    own.extract()
    summary = write_shards(options(own.frames, folder))
    assert (summary.num_added, summary.num_written) == (0, 0)
    assert summary.card.coverage == {"listed": 15, "ok": 12, "failed": 1, "missing": 2}


def test_a_class_that_comes_last_is_added_and_one_that_moves_others_is_refused(small, videos, tmp_path):
    for classes, is_last in (("abababababababac", True), ("abababababababaA", False)):
        folder, own = shutil.copytree(small.small, tmp_path / classes), Own(tmp_path / f"own {classes}", videos)
        own.extract()
        own.come("15.mp4")
        own.come("14.mp4")
        own.list(NUM_VIDEOS, classes=classes)
        own.extract()
        if is_last:
            assert write_shards(options(own.frames, folder)).card.classes == ("a", "b", "c")
            assert verify_shards(folder) == []
        else:
            with pytest.raises(ActcliError, match=r"holds shards of other frames or settings.*--overwrite"):
                write_shards(options(own.frames, folder))


def test_clips_that_vanished_changed_or_other_settings_need_overwrite(small, videos, tmp_path):
    folder = shutil.copytree(small.small, tmp_path / "s")
    own = Own(tmp_path / "own", videos)
    own.list(14, splits=("train", "val", "train"))
    own.extract()
    for frames, changes, reason in (
        (own.frames, {}, "clips or classes that they have are others now"),
        (small.frames, {"seed": 1}, "seed 0, not 1"),
        (small.frames, {"shard_bytes": 50_000}, "shard_bytes 40000, not 50000"),
    ):
        with pytest.raises(ActcliError, match=rf"holds shards of other frames or settings \({reason}\).*--overwrite"):
            write_shards(options(frames, folder, **changes))
    with pytest.raises(ActcliError, match="4 clips that they have cannot be packed any more"):
        write_shards(options(small.before, shutil.copytree(small.grown, tmp_path / "g")))
    assert write_shards(options(small.frames, folder, seed=1, overwrite=True)).card.extends == ()
    assert verify_shards(folder) == []


@pytest.mark.parametrize("suffix", ["tar", "idx"])
def test_nothing_is_added_to_damaged_shards(small, tmp_path, contents, suffix):
    folder = shutil.copytree(small.small, tmp_path / "s")
    path = folder / f"train-000000.{suffix}"
    os.truncate(path, path.stat().st_size - 1)
    before = contents(folder)
    with pytest.raises(ActcliError, match=rf"train-000000\.{suffix}.*actcli verify --repair"):
        write_shards(options(small.frames, folder))
    assert contents(folder) == before


def test_a_foreign_file_under_the_name_of_a_new_tar_is_left_alone(small, tmp_path):
    folder = shutil.copytree(small.small, tmp_path / "s")
    names = {path.name for path in small.grown.glob("*.tar")} - {path.name for path in folder.glob("*.tar")}
    for name in names:
        (folder / name).write_text("x")
        with pytest.raises(ActcliError, match=f"holds {name}, which no card"):
            write_shards(options(small.frames, folder))
        assert (folder / name).read_text() == "x"
        (folder / name).unlink()


def test_damaged_grown_shards_are_mended(small, tmp_path, contents):
    folder = shutil.copytree(small.grown, tmp_path / "s")
    for name in ("train-000000.tar", "val.index.parquet", small.summary.card.shards[-1].name):
        os.truncate(folder / name, (folder / name).stat().st_size // 2)
    assert write_shards(options(small.frames, folder)).num_written == 2
    assert contents(folder) == contents(small.grown)


def test_a_damaged_card_of_grown_shards_is_not_made_again_as_another(small, tmp_path, contents):
    folder = shutil.copytree(small.grown, tmp_path / "s")
    text = (folder / "dataset.json").read_text()
    for changed in (text.replace('"own"', '"Own"'), text.replace('"extends"', '"Extends"'), text[:900]):
        (folder / "dataset.json").write_text(changed)
        before = contents(folder)
        with pytest.raises(ActcliError, match="The card cannot be made again"):
            repair_shards(folder, small.frames)
        assert contents(folder) == before


def test_a_forecast_tells_of_the_clips_that_come(small):
    forecast = forecast_shards(options(small.frames, small.small))
    assert forecast.num_tars == small.summary.num_written
    assert forecast.num_bytes < sum(shard.bytes for shard in small.summary.card.shards) / 2


def test_videos_are_added_without_encoding_the_others_again(small, tmp_path, monkeypatch):
    import actcli.shards.video_cache as video_cache

    encoded, plain = [], video_cache.encode_video
    monkeypatch.setattr(
        video_cache,
        "encode_video",
        lambda source, *rest, **named: (encoded.append(source), plain(source, *rest, **named)),
    )
    write_shards(options(small.before, tmp_path / "s", payload="video"))
    before = ShardSet.open(tmp_path / "s").card.shards
    encoded.clear()
    card = write_shards(options(small.frames, tmp_path / "s", payload="video")).card
    assert card.shards[: len(before)] == before
    assert len(encoded) == len(LATE)
    assert verify_shards(tmp_path / "s", deep=True) == []


def test_until_the_card_is_exchanged_readers_see_the_shards_as_they_were(small, tmp_path, monkeypatch):
    folder = shutil.copytree(small.small, tmp_path / "s")
    seen = []

    def look(planned, into, plain=writing.write_tar):
        seen.append(verify_shards(folder))
        return plain(planned, into)

    monkeypatch.setattr(writing, "write_tar", look)
    write_shards(options(small.frames, folder))
    assert seen == [[]] * small.summary.num_written


def usable(folder):
    """Whether readers find shards, none of whose tars is absent."""
    try:
        card = ShardSet.open(folder).card
    except ActcliError:
        return False
    return all((folder / shard.name).stat().st_size == shard.bytes for shard in card.shards)


def test_whatever_the_disk_does_growing_is_right_or_an_error_and_goes_on(small, tmp_path, contents):
    folder = tmp_path / "s"
    wanted = contents(small.grown)
    shutil.copytree(small.small, folder)
    calls = calls_of(lambda: write_shards(options(small.frames, folder)), below=folder)
    assert contents(folder) == wanted
    num_errors = 0
    for number, error in points_of(calls):
        shutil.rmtree(folder)
        shutil.copytree(small.small, folder)
        try:
            with failing(number, error, below=folder):
                write_shards(options(small.frames, folder))
        except ActcliError:
            num_errors += 1
            assert not (folder / "dataset.json").exists() or usable(folder), calls[number]
        else:
            assert contents(folder) == wanted, calls[number]
        write_shards(options(small.frames, folder))
        assert contents(folder) == wanted, calls[number]
    assert num_errors > 10
    assert {error for call in calls for error in errors_of(call)}


class Killed(BaseException):
    """The end of a process."""


def dying_after(number):
    """Wraps functions that together go through ``number`` times, and are killed from then on."""
    left = [number]

    def dying(plain):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return plain(*args, **kwargs)

        return call

    return dying


@pytest.fixture
def killed(small, tmp_path, monkeypatch):
    """``killed(number, frames)``: shards whose growing died at a rename or removal, or None where there are fewer."""
    folder = tmp_path / "s"

    def run(number, frames):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(small.small, folder)
        dying = dying_after(number)
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(os, name, dying(getattr(os, name)))
            try:
                write_shards(options(frames, folder))
            except Killed:
                assert not (folder / "dataset.json").exists() or usable(folder)
                return folder
        return None

    return run


def test_killed_at_any_rename_or_removal_growing_goes_on_to_the_same_bytes(small, killed, contents):
    number = 0
    while folder := killed(number, small.frames):
        write_shards(options(small.frames, folder))
        assert contents(folder) == contents(small.grown), number
        number += 1
    assert number > 8


def test_clips_that_come_while_a_killed_run_waits_are_added_too(small, videos, killed, tmp_path):
    own = Own(tmp_path / "own", videos)
    own.extract()
    own.come("3.mp4")
    own.extract()
    between = shutil.copytree(own.frames, tmp_path / "between")
    own.grow()
    number, tars = 0, ShardSet.open(small.small).card.shards
    while folder := killed(number, between):
        card = write_shards(options(own.frames, folder)).card
        assert card.shards[: len(tars)] == tars
        assert sorted(clips_of(folder)) == sorted(f"{n}.mp4" for n in range(NUM_VIDEOS))
        assert verify_shards(folder) == []
        left = {path.name for path in folder.iterdir()} - {file.name for file in (*card.shards, *card.files)}
        assert left == {"dataset.json", ".actcli-lock"}
        number += 1
    assert number > 8


# --- At a URL ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def url():
    yield "memory://growing/shards"
    fsspec.filesystem("memory").rm("growing", recursive=True)


def test_only_what_is_new_is_pushed_and_pulled(small, url, tmp_path, contents):
    push_shards(small.small, url)
    pull_shards(url, tmp_path / "s")
    summary = push_shards(small.grown, url)
    num_new = len(small.summary.card.shards) - len(ShardSet.open(small.small).card.shards)
    assert summary.num_sent == 2 * num_new + 2 + 1  # tars with DALI's indexes, the indexes of two splits, the card
    assert ShardSet.open(url).card == small.summary.card
    assert verify_shards(url) == []
    assert pull_shards(url, tmp_path / "s").num_sent == summary.num_sent
    assert contents(tmp_path / "s") == contents(small.grown)


def test_what_is_there_is_not_replaced_by_shards_that_it_has_outgrown(small, url, tmp_path):
    push_shards(small.grown, url)
    with pytest.raises(ActcliError, match="holds other shards"):
        push_shards(small.small, url)
    with pytest.raises(ActcliError, match="holds other shards"):
        pull_shards(url, shutil.copytree(few_other(small, tmp_path), tmp_path / "t"))


def few_other(small, tmp_path):
    write_shards(options(small.before, tmp_path / "other", seed=4))
    return tmp_path / "other"


def test_whenever_a_push_or_pull_breaks_off_no_card_names_what_is_absent(small, url, tmp_path, monkeypatch, contents):
    memory, number, is_whole = fsspec.filesystem("memory"), 0, False
    while not is_whole:
        if memory.exists("/growing"):
            memory.rm("/growing", recursive=True)
        push_shards(small.small, url)
        dying = dying_after(number)
        with monkeypatch.context() as patch:
            for name in ("put_file", "pipe_file", "rm_file"):
                patch.setattr(MemoryFileSystem, name, dying(getattr(MemoryFileSystem, name)))
            try:
                push_shards(small.grown, url)
                is_whole = True
            except Killed:
                if memory.exists("/growing/shards/dataset.json"):
                    assert verify_shards(url) == []
        push_shards(small.grown, url)
        assert verify_shards(url) == []
        number += 1
    assert number > 8
