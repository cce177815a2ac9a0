"""Before an S3 that refuses, cuts and forgets: the same bytes, or a sentence and the same command again."""

import pytest
import s3_proxy
from typer.testing import CliRunner

import actcli.remote as remote
from actcli.cli import app
from actcli.remote import RemoteFile
from actcli.shards import verify_shards

s3fs = pytest.importorskip("s3fs")
BUSY = (503, "")
DISTURBANCES = (BUSY, s3_proxy.CUT, (503, s3_proxy.SLOW_DOWN), s3_proxy.CUT_ANSWER, (500, ""))


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.01)


@pytest.fixture
def proxy(s3, monkeypatch):
    """A proxy before the S3 server, which everything goes through."""
    with s3_proxy.before(s3.client_kwargs.get("endpoint_url") or s3.s3.meta.endpoint_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


def every_third():
    """A rule that disturbs each third request, in turn in each way, but none for the same thing twice; and its record.

    Threads take turns as they like, so one that asks again could meet a third request as often as it has patience.
    """
    disturbed = {}

    def rule(method, path, number):
        if number % 3 or (method, path) in disturbed:
            return None
        return disturbed.setdefault((method, path), DISTURBANCES[len(disturbed) % 5])

    return rule, disturbed


def actcli(words):
    result = CliRunner().invoke(app, words.split())
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def commands(few_frames, tmp_path):
    """Words of the commands that extract to S3, pack to there, and copy back."""
    space, place = f"--workspace {tmp_path}", f"s3://films/{tmp_path.name}"
    raw, frames = few_frames.parent / "raw", f"--frames-dir {tmp_path}/frames/sprites"
    extract = f"extract --dataset sprites --raw-dir {raw} {frames} --short-side 0 --executor serial --frames-url"
    shards = f"--shards-dir {place}/shards"
    return [
        f"{extract} {place}/frames {space}",
        f"shard {frames} {shards} --shard-bytes 100000 {space}",
        f"verify {shards}",
        f"pull {place}/shards --shards-dir {tmp_path}/pulled",
        f"push {place}/again --shards-dir {tmp_path}/pulled",
    ]


@pytest.fixture
def undisturbed(few_frames, few_options, tmp_path, contents):
    """Names and bytes of the shards of an extraction to a folder."""
    from dataclasses import replace

    from actcli.ingest import ExtractOptions, extract_dataset
    from actcli.shards import write_shards

    raw, frames = few_frames.parent / "raw", tmp_path / "here" / "sprites"
    extract_dataset(ExtractOptions("sprites", raw, frames, short_side=0, executor="serial"))
    write_shards(replace(few_options(tmp_path / "shards"), frames_dir=frames))
    return {name: data for name, data in contents(tmp_path / "shards").items() if not name.startswith(".")}


def test_every_command_goes_through_a_server_that_refuses_and_cuts(proxy, commands, undisturbed, contents, tmp_path):
    proxy.rule, disturbed = every_third()
    for words in commands:
        code, said = actcli(words)
        assert code == 0, said
    assert contents(tmp_path / "pulled") == undisturbed
    assert len(disturbed) > 20
    assert set(disturbed.values()) == set(DISTURBANCES)
    assert verify_shards(f"s3://films/{tmp_path.name}/again") == []


@pytest.mark.parametrize("answer", [(400, s3_proxy.EXPIRED), (403, ""), (500, "")])
def test_credentials_that_expire_halfway_are_a_sentence_and_the_same_command_goes_on(
    proxy, commands, undisturbed, contents, tmp_path, answer
):
    for words in commands:
        begin = len(proxy.asked)
        proxy.rule = lambda method, path, number, begin=begin: answer if number > begin + 7 else None
        code, said = actcli(words)
        assert code == 1 and "Traceback" not in said, said
        assert said.count("error:") == 1
        proxy.rule = lambda method, path, number: None
        code, said = actcli(words)
        assert code == 0, said
    assert contents(tmp_path / "pulled") == undisturbed


def test_a_server_that_asks_for_patience_gets_more_than_one_that_breaks(proxy, monkeypatch, tmp_path):
    file, source = RemoteFile("s3://films/patience", "file"), tmp_path / "file"
    source.write_bytes(b"a few bytes")
    for answer, patience in ((BUSY, remote.BUSY_ATTEMPTS), ((500, ""), remote.ATTEMPTS)):
        for num_refused in (patience - 1, patience):
            last = len(proxy.asked) + num_refused
            proxy.rule = lambda method, path, number, last=last, answer=answer: answer if number <= last else None
            if num_refused < patience:
                file.put(source)
                continue
            with pytest.raises(remote.Unreachable):
                file.put(source)


def test_an_id_whose_answer_was_lost_is_there_once(proxy):
    file, answers = RemoteFile("s3://films/owner", "id"), iter([s3_proxy.CUT_ANSWER])
    proxy.rule = lambda method, path, number: next(answers, None)
    file.create(b"one")
    file.create(b"two")
    assert file.read_ranges([0], [100]) == [b"one"]


def test_what_is_damaged_at_a_url_is_deleted_there_and_pushed_again(s3, few_shards, tmp_path):
    url, tar = f"s3://films/{tmp_path.name}", sorted(few_shards.glob("*.tar"))[0].name
    assert actcli(f"push {url} --shards-dir {few_shards}")[0] == 0
    s3.pipe_file(f"{url}/{tar}", b"\0" * (few_shards / tar).stat().st_size)
    code, said = actcli(f"verify --shards-dir {url}")
    assert code == 1
    assert f"delete the damaged files there, and send whole ones with: actcli push {url}" in said
    s3.rm_file(f"{url}/{tar}")
    assert actcli(f"push {url} --shards-dir {few_shards}")[0] == 0
    assert actcli(f"verify --shards-dir {url}")[0] == 0
