"""Frames behind a URL: what is extracted to there and packed from there is what a folder would have given."""

import json
import threading
from dataclasses import replace

import fsspec
import pytest
import servers
from killing import run_until
from typer.testing import CliRunner

import actcli.ingest.extract as extract_module
import actcli.ingest.store as store
import actcli.remote as remote
from actcli.cli import app
from actcli.errors import ActcliError
from actcli.files import is_temporary
from actcli.ingest import ExtractOptions, extract_dataset, read_manifest
from actcli.ingest.inspect import inspect_dataset
from actcli.ingest.owner import OWNER_NAME
from actcli.shards import fetching, verify_shards, write_shards
from actcli.shards.repair import repair_shards

URL = "memory://frames-url/of sprites"
NUM_FILES = 48
"""Files of frames and of flow."""


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def memory():
    """What lies in memory: path to bytes; empty at first."""
    files = fsspec.filesystem("memory")
    yield files
    if files.exists("/frames-url"):
        files.rm("/frames-url", recursive=True)


@pytest.fixture
def options(few_frames, tmp_path):
    """``options(frames_url=…)``: the extraction of ``few_frames``, into ``tmp_path``."""

    def make(**changes):
        given = {"short_side": 0, "executor": "serial", "frames_url": URL} | changes
        return ExtractOptions("sprites", few_frames.parent / "raw", tmp_path / "frames" / "sprites", **given)

    return make


@pytest.fixture(scope="module")
def at_url(few_frames, tmp_path_factory):
    """A folder whose frames and flow are at ``memory://kept``; neither is to be changed."""
    folder = tmp_path_factory.mktemp("at-url") / "sprites"
    for modality in ("rgb", "flow"):
        given = {"short_side": 0, "executor": "serial", "frames_url": "memory://kept/"}
        extract_dataset(ExtractOptions("sprites", few_frames.parent / "raw", folder, modality, **given))
    return folder


def objects(files, root="/frames-url"):
    """Bytes of the clips' files by path."""
    return {path: files.cat_file(path) for path in files.find(root) if not path.endswith(OWNER_NAME)}


def test_shards_are_the_same_to_the_byte_wherever_the_frames_were(at_url, few_frames, few_options, contents, tmp_path):
    files = objects(fsspec.filesystem("memory"), "/kept")
    local = {f"/kept/{path.relative_to(few_frames)}": path.read_bytes() for path in few_frames.glob("*/*")}
    assert files == local and len(files) == NUM_FILES
    assert not list(at_url.glob("*/*"))
    assert read_manifest(at_url).equals(read_manifest(few_frames))
    for name, frames_dir in (("one", few_frames), ("two", at_url)):
        write_shards(replace(few_options(tmp_path / name), frames_dir=frames_dir))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_the_url_of_a_folder_is_that_folder(options, few_frames, tmp_path):
    for _ in range(2):
        summary = extract_dataset(options(frames_url=f"file://{tmp_path}/elsewhere"))
    assert summary.already_done == 24
    written = sorted(path.name for path in (tmp_path / "elsewhere" / "0").iterdir())
    assert written == sorted(path.name for path in few_frames.glob("0/?????????.mjpeg"))


def test_video_is_encoded_from_frames_behind_a_url(options, few_options, memory, contents, tmp_path):
    extract_dataset(options(sample=3))
    extract_dataset(replace(options(sample=3, frames_url=None), frames_dir=tmp_path / "here" / "sprites"))
    for name, frames_dir in (("one", tmp_path / "here" / "sprites"), ("two", tmp_path / "frames" / "sprites")):
        write_shards(replace(few_options(tmp_path / name, payload="video"), frames_dir=frames_dir))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_page_shows_the_pictures_behind_a_url(at_url, few_frames, tmp_path):
    for name, frames_dir in (("one", few_frames), ("two", at_url)):
        inspect_dataset(frames_dir, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert b"data:image" in (tmp_path / "two").read_bytes()


def test_a_page_without_its_server_is_refused(at_url, monkeypatch, tmp_path):
    def refused(*arguments, **options):
        raise ConnectionError("refused")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_ranges", refused)
    with pytest.raises(ActcliError, match=r"memory://kept/0/\d{9}\.mjpeg cannot be read \(ConnectionError: refused\)"):
        inspect_dataset(at_url, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_hurt_clips_are_packed_again_from_a_url(at_url, few_options, contents, tmp_path):
    folder = tmp_path / "shards"
    write_shards(few_options(folder))
    before = contents(folder)
    tar = sorted(folder.glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    (folder / "dataset.json").write_bytes(before["dataset.json"].replace(b"sprites", b"spriten"))
    repair_shards(folder, at_url)
    assert contents(folder) == before


# --- Going on ---------------------------------------------------------------------------------------------------------


def test_the_same_command_does_what_is_not_there_and_lists_a_folder_once(options, memory, monkeypatch):
    extract_dataset(options())
    whole = objects(memory)
    first, second, *_ = sorted(whole)
    memory.rm_file(first)
    memory.pipe_file(second, b"half")
    listed, put = [], []
    list_folder, put_file = store._listed, remote.RemoteFile.put
    monkeypatch.setattr(store, "_listed", lambda *where: listed.append(where[-1]) or list_folder(*where))
    monkeypatch.setattr(remote.RemoteFile, "put", lambda file, source: put.append(file.name) or put_file(file, source))
    summary = extract_dataset(options())
    assert summary.already_done == 22
    assert [f"/frames-url/of sprites/{name}" for name in put] == [first, second]
    assert objects(memory) == whole
    assert listed == ["0", "0", "0"]  # what is there, the first clip that was done, all that were done


def test_another_url_than_that_of_the_first_run_is_refused(options, memory):
    extract_dataset(options())
    continued = rf"continue with --frames-url {URL}, or choose another --frames-dir"
    with pytest.raises(ActcliError, match=rf"are at {URL}, and cannot go on at memory://frames-url/other: {continued}"):
        extract_dataset(options(frames_url="memory://frames-url/other"))
    with pytest.raises(ActcliError, match=rf"are at {URL}, and cannot go on here: {continued}"):
        extract_dataset(options(frames_url=None))
    assert extract_dataset(options(frames_url=f"{URL}/")).already_done == 24


def test_frames_in_a_folder_do_not_go_on_at_a_url(options, memory):
    extract_dataset(options(frames_url=None, sample=1))
    with pytest.raises(ActcliError, match=r"holds frames, and cannot go on at memory:.*: leave out --frames-url, or"):
        extract_dataset(options())


def test_failed_clips_are_taken_up_again_at_a_url(options, few_frames, memory, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for video in sorted((few_frames.parent / "raw").rglob("*.mp4")):
        place = raw / video.relative_to(few_frames.parent / "raw")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(video.read_bytes())
    broken = sorted(raw.rglob("*.mp4"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:100])
    assert extract_dataset(replace(options(), raw_dir=raw)).counts["failed"] == 1
    assert len(objects(memory)) == 23
    broken.write_bytes(whole)
    assert extract_dataset(replace(options(), raw_dir=raw)).counts["failed"] == 1
    assert extract_dataset(replace(options(), raw_dir=raw, retry_failed=True)).counts["ok"] == 24
    assert len(objects(memory)) == 24


def test_objects_of_somebody_else_are_not_touched(options, memory):
    memory.pipe_file(f"{URL}/0/000000003.mjpeg", b"theirs")
    with pytest.raises(ActcliError, match=rf"{URL} holds 0, and the card in .* does not say that this is its"):
        extract_dataset(options())
    assert list(objects(memory).values()) == [b"theirs"]


# --- Two at one URL ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "file", "s3"])
def place(request, tmp_path):
    """A URL where nothing lies, and the file system behind it."""
    if request.param == "s3":
        files = request.getfixturevalue("s3")
        files.invalidate_cache()
        return f"s3://films/{tmp_path.name}", files
    if request.param == "memory":
        request.getfixturevalue("memory")
        return URL, fsspec.filesystem("memory")
    return f"file://{tmp_path}/elsewhere", fsspec.filesystem("file")


def test_of_two_extractions_that_begin_at_one_url_the_second_is_refused(place, options, tmp_path, monkeypatch):
    (url, files), where = place, place[0].removeprefix("file://")
    first, second = options(frames_url=url), replace(options(frames_url=url, quality=50), frames_dir=tmp_path / "other")
    claim = extract_module.claim_place

    def after_the_first(frames_dir, store):  # nothing was at the URL when the second one looked
        monkeypatch.setattr(extract_module, "claim_place", claim)
        extract_dataset(first)
        claim(frames_dir, store)

    monkeypatch.setattr(extract_module, "claim_place", after_the_first)
    with pytest.raises(ActcliError, match=rf"^{where} belongs to another extraction: its {OWNER_NAME} is not that of"):
        extract_dataset(second)
    with pytest.raises(ActcliError, match=rf"^{where} belongs to another extraction"):
        extract_dataset(second)
    assert extract_dataset(first).already_done == 24
    here = replace(options(frames_url=None), frames_dir=tmp_path / "here")
    extract_dataset(here)
    there = {path.rpartition("/")[2]: data for path, data in objects(files, files._strip_protocol(url)).items()}
    assert there == {path.name: path.read_bytes() for path in here.frames_dir.glob("0/*")}


def test_only_one_of_two_who_saw_nothing_puts_its_id(place, tmp_path, monkeypatch):
    from actcli.ingest import owner

    url, _ = place
    at = store.FrameStore(store.store_root(tmp_path, url))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    claim, create = owner.claim_place, owner._create

    def after_the_other(file, data):
        monkeypatch.setattr(owner, "_create", create)
        claim(tmp_path / "two", at)
        create(file, data)

    monkeypatch.setattr(owner, "_create", after_the_other)
    with pytest.raises(ActcliError, match="belongs to another extraction"):
        claim(tmp_path / "one", at)
    claim(tmp_path / "two", at)


def test_a_store_without_conditions_ends_the_run_of_the_one_that_was_replaced(options, memory, monkeypatch):
    pipe_file = type(memory).pipe_file

    def unconditional(files, path, value, **given):
        if given:
            raise NotImplementedError("no conditions here")
        pipe_file(files, path, value)

    monkeypatch.setattr(type(memory), "pipe_file", unconditional)
    assert extract_dataset(options(sample=1)).counts["ok"] == 1

    def replace_it(state):
        memory.pipe_file(f"{URL}/{OWNER_NAME}", b"theirs")

    with pytest.raises(ActcliError, match=f"^{URL} belongs to another extraction"):
        extract_dataset(options(), progress=replace_it)
    assert read_manifest(options().frames_dir)["status"].to_pylist().count("ok") == 1


def test_an_extraction_goes_on_whose_id_was_not_written_or_went_away(options, memory):
    extract_dataset(options(sample=2))
    memory.rm_file(f"{URL}/{OWNER_NAME}")
    (options().frames_dir / OWNER_NAME).unlink()
    with pytest.raises(ActcliError, match=rf"{URL}/{OWNER_NAME} is gone\. Type the same command again; it continues"):
        extract_dataset(options(sample=3), progress=lambda state: memory.rm_file(f"{URL}/{OWNER_NAME}"))
    assert extract_dataset(options()).already_done == 3


# --- What goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frames_url": "bucket/frames"}, "is no URL such as s3://"),
        ({"frames_url": "file://frames"}, "is no URL such as s3://"),
        ({"frames_url": "simplecache::s3://bucket/frames"}, "is no URL such as s3://"),
        ({"frames_url": "ftp://me:secret@host/frames"}, "holds a password, which the card would keep"),
        ({"frames_url": "nowhere://frames"}, "nowhere://frames cannot be opened: Protocol not known"),
        ({"payload": "source"}, "--payload source keeps links to the videos and writes no frames"),
        ({"layout": "folders"}, "--layout folders is for tools that read folders"),
    ],
)
def test_what_no_url_can_be_is_refused_before_work(options, memory, changes, said):
    with pytest.raises(ActcliError, match=said) as error:
        extract_dataset(options(**changes))
    assert "secret" not in str(error.value)
    assert not options().frames_dir.exists()


def test_a_clip_that_is_put_at_the_second_attempt_is_put(options, memory, monkeypatch):
    put_file, failed = type(memory).put_file, set()

    def stutter(files, source, target, **given):
        if target not in failed:
            failed.add(target)
            raise OSError("503 Slow Down")
        put_file(files, source, target, **given)

    monkeypatch.setattr(type(memory), "put_file", stutter)
    assert extract_dataset(options()).counts["ok"] == len(failed) == 24


def test_a_clip_that_comes_at_the_second_attempt_is_packed(
    at_url, few_shards, few_options, contents, tmp_path, monkeypatch
):
    memory, failed = type(fsspec.filesystem("memory")), set()
    cat_ranges = memory.cat_ranges

    def stutter(files, paths, begins, ends, **given):
        if paths[0] not in failed:
            failed.add(paths[0])
            return [OSError("503 Slow Down")] * len(paths)
        return cat_ranges(files, paths, begins, ends, **given)

    monkeypatch.setattr(memory, "cat_ranges", stutter)
    write_shards(replace(few_options(tmp_path / "shards"), frames_dir=at_url))
    assert len(failed) == NUM_FILES
    assert contents(tmp_path / "shards") == contents(few_shards)


@pytest.mark.parametrize(("ahead_bytes", "at_once"), [(fetching.AHEAD_BYTES, 8), (1, 2)])
def test_files_are_asked_for_before_it_is_their_turn_within_a_bound(
    at_url, few_shards, few_options, contents, tmp_path, monkeypatch, ahead_bytes, at_once
):
    memory, lock = type(fsspec.filesystem("memory")), threading.Condition()
    cat_ranges, under_way, most = memory.cat_ranges, set(), []

    def counted(files, paths, begins, ends, **given):
        with lock:
            under_way.add(paths[0])
            most.append(len(under_way))
            lock.notify_all()
            lock.wait_for(lambda: len(most) >= at_once, timeout=100)
        try:
            return cat_ranges(files, paths, begins, ends, **given)
        finally:
            with lock:
                under_way.remove(paths[0])

    monkeypatch.setattr(fetching, "AHEAD_BYTES", ahead_bytes)
    monkeypatch.setattr(memory, "cat_ranges", counted)
    write_shards(replace(few_options(tmp_path / "shards"), frames_dir=at_url))
    assert len(most) == NUM_FILES
    assert max(most) >= at_once if ahead_bytes > 1 else max(most) == at_once
    assert contents(tmp_path / "shards") == contents(few_shards)


def test_a_server_that_goes_away_ends_the_run_which_goes_on_later(options, memory, monkeypatch):
    put_file, put = type(memory).put_file, []

    def until_the_seventh(files, source, target, **given):
        if len(put) == 7:
            raise ConnectionError("refused")
        put.append(target)
        put_file(files, source, target, **given)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", until_the_seventh)
        with pytest.raises(
            ActcliError, match=r"000000007\.mjpeg cannot be written \(ConnectionError: refused\)\. Chec"
        ):
            extract_dataset(options())
    assert extract_dataset(options()).already_done == 7
    assert len(objects(memory)) == 24


def test_a_worker_that_puts_frames_where_this_process_sees_none_ends_the_run(options, memory, monkeypatch):
    monkeypatch.setattr(extract_module, "SHARED_SECONDS", 0.0)
    with pytest.raises(ActcliError, match=r"A worker process wrote memory://frames-url/.*, and it is not here: give"):
        extract_dataset(options(executor="processes", workers=1))


def test_what_is_gone_in_the_end_is_no_success(options, memory):
    def take_away(state):
        if state.done == 9:
            memory.rm_file("/frames-url/of sprites/0/000000005.mjpeg")

    with pytest.raises(ActcliError, match=r"1 clip that this run put to .* is not there, .*000000005\.mjpeg"):
        extract_dataset(options(), progress=take_away)
    assert not (options().frames_dir / "manifest.parquet").exists()
    assert extract_dataset(options()).already_done == 23


def test_frames_that_changed_behind_a_url_are_refused(options, few_options, memory, tmp_path):
    extract_dataset(options())
    path, data = next(iter(objects(memory).items()))
    pack = replace(few_options(tmp_path / "shards"), frames_dir=options().frames_dir)
    memory.pipe_file(path, data[:-1] + bytes([data[-1] ^ 1]))
    command = rf"Delete that file, and this restores it alone: actcli extract .*--frames-url '{URL}'"
    with pytest.raises(ActcliError, match=rf"memory:/{path} changed since it was extracted\. {command}"):
        write_shards(pack)
    memory.pipe_file(path, data[:-1])
    with pytest.raises(ActcliError, match=rf"memory:/{path} \({len(data) - 1} bytes, not {len(data)}\)"):
        write_shards(pack)
    memory.rm_file(path)
    with pytest.raises(ActcliError, match=rf"memory:/{path} \(gone\)"):
        write_shards(pack)


@pytest.mark.parametrize("url", ["/etc", 7, "zip://::memory://x"])
def test_a_card_that_names_no_url_is_refused(at_url, few_options, tmp_path, url):
    card = json.loads((at_url / "dataset.json").read_text())
    card["extraction"]["rgb"]["settings"]["frames_url"] = url
    for name in ("manifest.parquet", "manifest.parquet.sha256"):
        (tmp_path / name).write_bytes((at_url / name).read_bytes())
    (tmp_path / "dataset.json").write_text(json.dumps(card))
    with pytest.raises(ActcliError, match=rf"the card of .* is damaged: --frames-url {url} is no URL"):
        write_shards(replace(few_options(tmp_path / "shards"), frames_dir=tmp_path))


# --- A real server ----------------------------------------------------------------------------------------------------


def extract_words(options, url):
    return f"extract --raw-dir {options.raw_dir} --frames-dir {options.frames_dir} --short-side 0 --frames-url {url}"


def test_the_commands_extract_to_s3_and_pack_from_there(s3, options, few_options, contents, tmp_path):
    def actcli(words):
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    words = f"{extract_words(options(), 's3://films/whole')} --dataset sprites --workers 2"
    assert "to s3://films/whole" in actcli(words)
    assert "24 clips done by earlier runs" in actcli(words)
    actcli(f"shard --frames-dir {options().frames_dir} --shards-dir {tmp_path}/one --shard-bytes 100000")
    extract_dataset(replace(options(frames_url=None), frames_dir=tmp_path / "here" / "sprites"))
    write_shards(replace(few_options(tmp_path / "two"), frames_dir=tmp_path / "here" / "sprites"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert verify_shards(tmp_path / "one") == []


def test_an_extraction_to_s3_that_is_killed_goes_on(s3, options, few_frames):
    words = f"{extract_words(options(), 's3://films/killed')} --dataset sprites --workers 2"
    run_until("actcli.ingest.ledger:Ledger", "append", 4, "from actcli.cli import app; app()", *words.split())
    summary = extract_dataset(options(frames_url="s3://films/killed"))
    assert summary.already_done == 4
    assert summary.counts["ok"] == 24
    assert not [path for path in options().frames_dir.iterdir() if is_temporary(path.name)]
    s3.invalidate_cache()
    assert {path.rpartition("/")[2]: data for path, data in objects(s3, "films/killed").items()} == {
        path.name: path.read_bytes() for path in few_frames.glob("0/?????????.mjpeg")
    }


def test_a_bucket_that_is_not_there_is_said_before_work(s3, options):
    with pytest.raises(ActcliError, match=r"^s3://nowhere/x cannot be written to \(FileNotFoundError: .*Check the URL"):
        extract_dataset(options(frames_url="s3://nowhere/x"))
    assert not (options().frames_dir / "dataset.json").exists()
    assert extract_dataset(options(frames_url="s3://films/right", sample=1)).counts["ok"] == 1


def test_credentials_that_are_refused_are_said_before_work(s3, options, monkeypatch):
    with servers.s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        type(s3).clear_instance_cache()
        with pytest.raises(ActcliError, match=r"^s3://films/x/.* cannot be read \(PermissionError: .*the credentials"):
            extract_dataset(options(frames_url="s3://films/x"))
    type(s3).clear_instance_cache()
    assert not options().frames_dir.exists()
