"""What shards refuse, in a sentence that says what to do; and what they read on although something is odd."""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actcli.errors import ActcliError
from actcli.facts import NO_SIZES
from actcli.ingest import ExtractOptions, extract_dataset
from actcli.shards import (
    ShardOptions,
    ShardReader,
    ShardSet,
    Subset,
    read_keys,
    select_shards,
    verify_shards,
    write_shards,
)
from actcli.shards.bounds import check_clip
from actcli.shards.cache import CHUNK_BYTES, CachedReader, ChunkCache
from actcli.shards.lists import export_lists
from actcli.shards.reader import Range
from actcli.shards.selection import KEYS_OF_FOLDER
from actcli.shards.stream import RetryingReader
from actcli.shards.transfer import pull_shards, push_shards


@pytest.fixture
def packed(few_shards, tmp_path):
    return shutil.copytree(few_shards, tmp_path / "s")


def with_card(folder, target, reseal, **changes):
    """The same shards with another card; as of another dataset, so that they may be joined."""
    shutil.copytree(folder, target)
    reseal(target, **({"source_digest": f"{len(target.name):064d}", "name": target.name} | changes))
    return target


def with_rows(folder, split, change, reseal):
    """The index of a split rewritten, and a card that agrees."""
    path = folder / f"{split}.index.parquet"
    table = change(pq.read_table(path))
    pq.write_table(table, path)
    card = ShardSet.open(folder).card
    reseal(folder, split_sets={"1": {**card.split_sets["1"], split: table.num_rows}})


# --- What a user names ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda card: card.index_name("train", "2"), "has no split set '2'; it has 1. Choose one as split_id"),
        (lambda card: card.index_name("eval"), "has no split 'eval'; it has train, val. Choose one as split"),
        (lambda card: card.splits("9"), "has no split set '9'"),
        (lambda card: replace(card, split_sets={"1": {"train": 3}}).evaluation_split(), "no clips to evaluate on"),
    ],
)
def test_a_split_that_is_not_there_is_answered_with_those_that_are(few_shards, ask, message):
    with pytest.raises(ActcliError, match=message):
        ask(ShardSet.open(few_shards).card)


def test_a_list_of_clips_is_read_line_by_line_or_refused(tmp_path):
    (tmp_path / "keys.txt").write_text("000000003\n\n  a clip \n")
    assert read_keys(tmp_path / "keys.txt") == ("000000003", "a clip")
    (tmp_path / "no text").write_bytes(b"\xff\xfe\x00")
    for name in ("absent", "no text", "."):
        with pytest.raises(ActcliError, match="has to name a clip or a key a line"):
            read_keys(tmp_path / name)


@pytest.mark.parametrize(
    ("subset", "words"),
    [
        (Subset(), ""),
        (Subset(classes=tuple("abcd")), "only 4 classes ('a', 'b', 'c' and 1 more)"),
        (Subset(fraction=0.25, max_clips_per_class=3), "25 % of each class, at most 3 of each class"),
        (Subset(only_keys=("1",), exclude_keys=("2", "3")), "only 1 listed clips, without 2 listed clips"),
    ],
)
def test_a_subset_says_in_words_what_it_takes(subset, words):
    assert subset.in_words() == words


# --- Several folders as one -------------------------------------------------------------------------------------------


def test_no_folder_and_too_many_are_refused(few_shards):
    with pytest.raises(ActcliError, match="name at least one folder"):
        select_shards([])
    with pytest.raises(ActcliError, match="11 folders of shards are too many; at most 10"):
        select_shards([few_shards] * 11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"payload": "mp4"}, "holds mjpeg, .* mp4. Write both with the same payload"),
        ({"modalities": ("flow",), "payload": "mjpeg"}, "no modality in common"),
        ({"split_sets": {"7": {"train": 1}}, "split_coverage": {}}, "no split set in common"),
    ],
)
def test_folders_that_have_nothing_in_common_are_not_joined(
    few_shards, tmp_path, reseal, monkeypatch, changes, message
):
    other = with_card(few_shards, tmp_path / "other", reseal)
    first, second = ShardSet.open(few_shards), ShardSet.open(other)
    if "modalities" in changes:
        first = replace(first, card=replace(first.card, modalities=("rgb",)))
    second = replace(second, card=replace(second.card, **changes))
    monkeypatch.setattr(ShardSet, "open", staticmethod(lambda root: first if root == str(few_shards) else second))
    with pytest.raises(ActcliError, match=message):
        select_shards([few_shards, other])


def test_shards_with_flow_are_joined_with_shards_without(few_shards, tmp_path, reseal):
    coverage = ShardSet.open(few_shards).card.coverage
    without = {name: count for name, count in coverage.items() if name != "ok_flow"}
    other = with_card(few_shards, tmp_path / "other", reseal, coverage=without)
    assert "ok_flow" in coverage
    for folders in ([few_shards, other], [other, few_shards]):
        joined = select_shards(folders).card.coverage
        assert joined == {name: 2 * count for name, count in without.items()}


@pytest.mark.parametrize("made_by_hand", [{}, {"1": {}}])
def test_a_card_that_does_not_tell_the_coverage_of_a_split_is_refused(few_shards, tmp_path, reseal, made_by_hand):
    other = with_card(few_shards, tmp_path / "other", reseal, split_coverage=made_by_hand)
    with pytest.raises(ActcliError, match="the card of other has no split_coverage of split 'train' in split set '1'"):
        select_shards([other], Subset(fraction=0.5))


def test_urls_are_not_joined(few_shards, tmp_path, reseal):
    other = with_card(few_shards, tmp_path / "other", reseal)
    memory = fsspec.filesystem("memory")
    for file in other.iterdir():
        memory.pipe_file(f"/join/{file.name}", file.read_bytes())
    with pytest.raises(ActcliError, match="memory://join is a URL, and only local folders can be joined"):
        select_shards([few_shards, "memory://join"])


def test_where_one_folder_forbids_mirroring_shared_classes_contradict(few_shards, tmp_path, reseal):
    other = with_card(few_shards, tmp_path / "other", reseal, flip="forbidden", flip_swaps=())
    with pytest.raises(ActcliError, match=r"of no class \(mirroring is forbidden\) in .*other; such"):
        select_shards([few_shards, other])


def test_keys_that_leave_no_room_for_other_folders_are_refused(few_shards, tmp_path, reseal):
    other = with_card(few_shards, tmp_path / "other", reseal)

    def renumber(table):
        keys = [f"{KEYS_OF_FOLDER + number:09d}" for number in range(table.num_rows)]
        return table.set_column(table.schema.get_field_index("key"), "key", pa.array(keys))

    with_rows(other, "train", renumber, reseal)
    with pytest.raises(ActcliError, match="other has keys above 100,000,000"):
        select_shards([few_shards, other])


def test_a_split_without_clips_is_passed_over_and_nothing_at_all_is_refused(few_shards, tmp_path, reseal):
    empty = with_card(few_shards, tmp_path / "empty", reseal)
    with_rows(empty, "val", lambda table: table.slice(0, 0), reseal)
    kept = select_shards([empty], Subset(fraction=0.5))
    assert kept.card.split_sets["1"]["val"] == len(kept.index("val")) == 0
    assert kept.card.split_sets["1"]["train"] > 0
    with_rows(empty, "train", lambda table: table.slice(0, 0), reseal)
    with pytest.raises(ActcliError, match=r"no clip is left \(50 % of each class\)"):
        select_shards([empty], Subset(fraction=0.5))


# --- Reading ----------------------------------------------------------------------------------------------------------


def test_a_card_that_lists_no_index_is_no_reason_to_believe_one(few_shards):
    shards = ShardSet.open(few_shards)
    bare = replace(shards, card=replace(shards.card, files=()))
    with pytest.raises(ActcliError, match=r"lists no train.index.parquet. Write the shards again"):
        bare.index("train")


@pytest.mark.parametrize("column", ["key", "source_id", "label"])
def test_an_index_with_a_missing_value_is_refused(packed, reseal, column):
    def without_one(table):
        values = [None, *table.column(column).to_pylist()[1:]]
        place = table.schema.get_field_index(column)
        return table.set_column(place, column, pa.array(values, table.schema.field(column).type))

    with_rows(packed, "train", without_one, reseal)
    read = ShardSet.open(packed).clip_names if column == "source_id" else ShardSet.open(packed).index
    with pytest.raises(ActcliError, match="is not a shard index of this card"):
        read("train")


def test_names_that_are_no_parquet_are_refused(packed, reseal):
    (packed / "train.index.parquet").write_bytes(b"PAR1 nothing")
    reseal(packed)
    with pytest.raises(ActcliError, match="is not a shard index of this card"):
        ShardSet.open(packed).clip_names("train")


def test_a_tar_that_is_gone_is_named(packed):
    (packed / "train-000000.tar").unlink()
    with pytest.raises(ActcliError, match=r"train-000000.tar cannot be read \(No such file"):
        ShardReader(packed).read("train-000000.tar", 0, 10)


def test_only_some_tars_are_kept_open_and_all_are_closed(packed, monkeypatch):
    monkeypatch.setattr("actcli.shards.reader.MAX_OPEN_SHARDS", 1)
    reader = ShardReader(packed)
    names = [shard.name for shard in ShardSet.open(packed).card.shards]
    assert len(names) > 2
    assert [reader.read(name, 0, 9) for name in names] == [(packed / name).read_bytes()[:9] for name in names]
    assert open_tars(packed) == [names[-1]]
    reader.close()
    assert open_tars(packed) == []


def open_tars(folder):
    """Names of the files of a folder that this process has open; its other threads and tests have theirs."""
    names = []
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            names.append(Path(os.readlink(path)))
    return [path.name for path in names if path.parent == folder.resolve()]


def test_a_protocol_that_is_not_known_is_an_error_in_a_sentence():
    with pytest.raises(ActcliError, match=r"nonsense://bucket cannot be opened: .*nonsense"):
        ShardSet.open("nonsense://bucket")


def test_flow_of_a_clip_that_has_none_is_answered_with_the_command_that_makes_it(few_shards):
    clip = replace(ShardSet.open(few_shards).index("train").clip(0), flow_num_frames=0)
    with pytest.raises(ActcliError, match="has no flow; extract it with: actcli extract --modality flow"):
        clip.flow_extents([0])


def test_a_video_cannot_have_more_frames_than_bytes(few_shards):
    shards = ShardSet.open(few_shards)
    clip = replace(shards.index("train").clip(0), num_frames=8, flow_num_frames=0, flow_frame_sizes=NO_SIZES)
    with pytest.raises(ValueError, match="its 8 frames cannot be in 7 bytes"):
        check_clip(clip, {"mp4": 7}, shards.card)


# --- Over a connection ------------------------------------------------------------------------------------------------


THREE = [Range("t.tar", begin, begin + 1) for begin in (0, 5, 9)]


class Flaky:
    """Gives some ranges at the first asking and the others later."""

    def __init__(self, pieces, failures):
        self.pieces, self.failures, self.asked = pieces, failures, []

    def read_ranges(self, ranges):
        self.asked.append([one.begin for one in ranges])
        errors = self.failures[len(self.asked) - 1] if len(self.asked) <= len(self.failures) else {}
        return [errors.get(one.begin, self.pieces[one.begin]) for one in ranges]


@pytest.fixture
def flaky(few_shards, monkeypatch):
    monkeypatch.setattr("actcli.remote.FIRST_WAIT_SECONDS", 0)

    def make(*failures):
        reader = RetryingReader(str(few_shards))
        reader._attempts = 4
        reader._reader = Flaky({0: b"a", 5: b"b", 9: b"c"}, failures)
        return reader

    return make


def test_only_the_ranges_that_failed_are_asked_for_again(flaky):
    reader = flaky({5: OSError("gone"), 9: OSError("gone")}, {9: TimeoutError("slow")})
    assert reader.read_ranges(THREE) == [b"a", b"b", b"c"]
    assert reader._reader.asked == [[0, 5, 9], [5, 9], [9]]


def test_what_does_not_come_is_named_with_its_bytes_and_the_number_of_attempts(flaky):
    reader = flaky(*[{5: OSError("gone")}] * 9)
    with pytest.raises(ActcliError, match=r"bytes 5 to 6 of t.tar could not be read \(OSError: gone\)\. Check"):
        reader.read_ranges(THREE)
    assert len(reader._reader.asked) == 4


def test_an_answer_that_asking_again_will_not_change_is_the_last_one(flaky):
    reader = flaky({0: OSError("gone"), 5: ActcliError("it was cut short")})
    with pytest.raises(ActcliError, match=r"^it was cut short$"):
        reader.read_ranges(THREE)
    assert reader._reader.asked == [[0, 5, 9], [0]]


def test_shards_are_pushed_to_urls_only_and_pulled_over_no_others(few_shards, packed, reseal):
    with pytest.raises(ActcliError, match="is no URL"):
        push_shards(few_shards, str(packed))
    url = "memory://refusals/one"
    assert push_shards(few_shards, url).num_sent > 2
    reseal(packed, source_digest=64 * "f")
    with pytest.raises(ActcliError, match="holds other shards"):
        pull_shards(url, packed)


def test_a_copy_that_arrives_short_is_sent_again_and_then_given_up(few_shards, monkeypatch):
    monkeypatch.setattr("actcli.remote.FIRST_WAIT_SECONDS", 0)
    memory, tries = type(fsspec.filesystem("memory")), []

    def cut_short(self, source, path, **_):
        tries.append(path)
        self.pipe_file(path, b"short")

    monkeypatch.setattr(memory, "put_file", cut_short)
    with pytest.raises(ActcliError, match=r"cannot be written \(OSError: 5 of \d+ bytes arrived\)"):
        push_shards(few_shards, "memory://refusals/short")
    assert len(tries) == 4


def test_a_cache_asks_the_server_for_what_no_card_names(few_shards, tmp_path):
    shards = ShardSet.open(few_shards)
    reader = CachedReader(RetryingReader(str(few_shards)), shards.card, ChunkCache(tmp_path, 32 * CHUNK_BYTES))
    size = shards.card.shards[0].bytes
    assert reader.read_ranges([Range(shards.card.shards[0].name, size - 9, size)]) == [bytes(9)]
    for name, offset in (("train-000099.tar", 0), (shards.card.shards[0].name, size)):
        with pytest.raises(ActcliError, match=r"cannot be read|was cut short"):
            reader.read_ranges([Range(name, offset, offset + 10)])


def test_a_cache_removes_what_a_killed_process_left_and_leaves_the_rest(few_shards, tmp_path):
    cache = ChunkCache(tmp_path, 32 * CHUNK_BYTES)
    folder = next(tmp_path.iterdir()) / ("0" * 64)
    folder.mkdir()
    old, new, foreign = folder / ".actcli-000000.chunk.1.tmp", folder / ".actcli-000001.chunk.1.tmp", folder / "notes"
    for path in (old, new, foreign):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    os.utime(foreign, (time.time() - 7200,) * 2)
    cache._evict()
    assert sorted(path.name for path in folder.iterdir()) == sorted([new.name, "notes"])


# --- Checking ---------------------------------------------------------------------------------------------------------


def test_frames_are_decoded_in_a_folder_only():
    memory = fsspec.filesystem("memory")
    with pytest.raises(ActcliError):
        verify_shards("memory://refusals/absent", deep=True)
    assert not memory.exists("/refusals/absent")


@pytest.fixture(scope="module")
def few_videos(few_frames, tmp_path_factory):
    """The clips as H.264."""
    folder = tmp_path_factory.mktemp("videos") / "sprites"
    write_shards(ShardOptions(few_frames, folder, payload="video", workers=1, shard_bytes=10**7))
    return folder


def test_a_deep_check_decodes_videos_and_counts_their_frames(few_videos, tmp_path, reseal):
    assert verify_shards(few_videos, deep=True) == []
    folder = shutil.copytree(few_videos, tmp_path / "s")

    def one_frame_less(table):
        counts = [table.column("num_frames")[0].as_py() - 1, *table.column("num_frames").to_pylist()[1:]]
        place = table.schema.get_field_index("num_frames")
        return table.set_column(place, "num_frames", pa.array(counts, pa.int32()))

    with_rows(folder, "train", one_frame_less, reseal)
    problems = [finding.problem for finding in verify_shards(folder, deep=True)]
    assert any("it decodes to 3 frames, the index says 2 of 64 x 48" in problem for problem in problems)


def test_lists_of_videos_are_the_bytes_of_the_shards_and_frames_are_not_to_be_had(few_videos, tmp_path):
    shards = ShardSet.open(few_videos)
    told = []
    export_lists(shards, "slowfast", tmp_path / "lists", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (24, 24)
    clip = shards.index("train").clip(0)
    data = ShardReader(few_videos).read(clip.shard, clip.offset, clip.bytes)
    target = tmp_path / "lists" / "videos" / f"{clip.key}.mp4"
    assert target.read_bytes() == data
    target.write_bytes(b"mine")
    export_lists(shards, "slowfast", tmp_path / "lists")
    assert target.read_bytes() == b"mine"  # what is there is kept
    with pytest.raises(ActcliError, match="hold videos, not frames"):
        export_lists(shards, "tsm", tmp_path / "frames")


def test_lists_are_not_written_for_flow_alone_nor_onto_a_file_nor_from_damaged_clips(few_shards, packed, tmp_path):
    shards = ShardSet.open(few_shards)
    with pytest.raises(ActcliError, match="holds flow only"):
        export_lists(replace(shards, card=replace(shards.card, modalities=("flow",))), "tsm", tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ActcliError, match=r"lists cannot be written \(Not a directory\)"):
        export_lists(shards, "tsm", tmp_path / "file" / "lists")
    clip = shards.index("train").clip(0)
    tar = bytearray((packed / clip.shard).read_bytes())
    tar[clip.offset + 50] ^= 1
    (packed / clip.shard).write_bytes(tar)
    with pytest.raises(ActcliError, match=f"clip {clip.key} in {clip.shard} is damaged"):
        export_lists(ShardSet.open(packed), "tsm", tmp_path / "b")


def test_frames_of_no_clip_are_no_shards(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "raw" / "train" / name).mkdir(parents=True)
        (tmp_path / "raw" / "train" / name / "broken.mp4").write_bytes(b"no video")
    extract_dataset(ExtractOptions("none", tmp_path / "raw", tmp_path / "frames", executor="serial"))
    with pytest.raises(ActcliError, match="has no extracted clip: see the reasons with: actcli inspect"):
        write_shards(ShardOptions(tmp_path / "frames", tmp_path / "shards"))
    assert not (tmp_path / "shards" / "dataset.json").exists()
