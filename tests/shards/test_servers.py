"""Shards on real servers: written to S3, read from S3 and nginx, with failures."""

import re
import shutil

import numpy as np
import pytest
import servers
import yaml
from killing import run_until
from typer.testing import CliRunner

import actcli.remote as remote
import actcli.shards.transfer as transfer
from actcli.cli import app
from actcli.errors import ActcliError
from actcli.loaders import Reading, open_loader
from actcli.shards import ShardSet, verify_shards
from actcli.shards.transfer import hub_page, pull_shards, push_shards

s3fs = pytest.importorskip("s3fs")
BUCKET = "s3://films"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(remote, "FIRST_WAIT_SECONDS", 0.05)


def epoch(root, **setup):
    setup = {"num_frames": 2, "size": 32, "scale_size": 32, "batch_size": 4, "workers": 0} | setup
    with open_loader(root, **setup) as loader:
        return [(batch.keys.tolist(), batch.clips.clone().numpy()) for batch in loader]


def same(one, other):
    return [keys for keys, _ in one] == [keys for keys, _ in other] and all(
        np.array_equal(a, b) for (_, a), (_, b) in zip(one, other, strict=True)
    )


def test_shards_pushed_to_s3_are_the_shards(s3, few_shards, tmp_path, contents):
    url = f"{BUCKET}/whole"
    first = push_shards(few_shards, url)
    assert first.num_sent == first.num_files > 3
    assert push_shards(few_shards, url).num_sent == 1  # the card
    assert verify_shards(url) == []
    for order in ("index", "blocks"):
        assert same(epoch(url, reading=Reading(order)), epoch(few_shards, reading=Reading(order)))
    assert same(epoch(url, reading=Reading("index"), workers=2), epoch(few_shards))
    pull_shards(url, tmp_path / "back")
    wanted = {name: data for name, data in contents(few_shards).items() if not name.startswith(".")}
    assert contents(tmp_path / "back") == wanted


def test_a_push_that_is_killed_goes_on(s3, few_shards, tmp_path):
    url = f"{BUCKET}/killed"
    code = "import pathlib, sys; from actcli.shards.transfer import push_shards\n"
    code += "push_shards(pathlib.Path(sys.argv[1]), sys.argv[2])"
    run_until("actcli.shards.transfer", "_put", 3, code, few_shards, url)  # two files are noted, one more is there
    s3.invalidate_cache()
    assert s3.exists(f"films/killed/{transfer.PUSHED_NAME}")
    with pytest.raises(ActcliError, match=r"there is no .*dataset\.json"):
        ShardSet.open(url)
    summary = push_shards(few_shards, url)
    assert summary.num_sent == summary.num_files - 2
    assert verify_shards(url) == []
    s3.invalidate_cache()
    assert not s3.exists(f"films/killed/{transfer.PUSHED_NAME}")


def test_other_shards_are_replaced_only_when_asked(s3, few_shards, few_options, tmp_path):
    from actcli.shards import write_shards

    url = f"{BUCKET}/other"
    push_shards(few_shards, url)
    other = tmp_path / "other"
    write_shards(few_options(other, seed=5, shard_bytes=1_000_000))
    with pytest.raises(ActcliError, match=r"holds other shards, of sprites.*--overwrite"):
        push_shards(other, url)
    push_shards(other, url, overwrite=True)
    assert verify_shards(url) == []
    s3.invalidate_cache()
    tars = [name for name in s3.ls("films/other") if name.endswith(".tar")]
    assert len(tars) == len(list(other.glob("*.tar")))


def test_damage_on_the_way_is_noticed(s3, few_shards, tmp_path):
    url = f"{BUCKET}/damaged"
    push_shards(few_shards, url)
    tar = sorted(few_shards.glob("*.tar"))[0]
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    s3.pipe_file(f"films/damaged/{tar.name}", bytes(data))
    assert [(one.file, one.problem) for one in verify_shards(url)] == [
        (tar.name, "its sha256 is not the card's: bytes have changed")
    ]
    with pytest.raises(ActcliError, match=rf"{tar.name} is not the one that the card names"):
        pull_shards(url, tmp_path / "here")
    assert not (tmp_path / "here" / "dataset.json").exists()
    bad = tmp_path / "bad"
    shutil.copytree(few_shards, bad)
    (bad / tar.name).write_bytes(data)
    with pytest.raises(ActcliError, match=r"bytes have changed.*Nothing more was sent"):
        push_shards(bad, f"{BUCKET}/bad")


def test_the_page_of_the_hub_is_yaml_and_says_what_there_is(few_shards):
    page = hub_page(ShardSet.open(few_shards).card)
    _, head, body = page.split("---\n", 2)
    assert "webdataset" in yaml.safe_load(head)["tags"]
    assert "# sprites\n\n24 clips of 6 classes" in body


def test_a_bucket_that_is_not_there_is_one_sentence(s3, few_shards):
    with pytest.raises(ActcliError, match=r"there is no s3://nowhere/x/dataset\.json"):
        ShardSet.open("s3://nowhere/x")
    with pytest.raises(ActcliError, match=r"nowhere/x/.* cannot be written \(.*Check the URL"):
        push_shards(few_shards, "s3://nowhere/x")


def test_credentials_that_are_refused_are_one_sentence(s3, few_shards, monkeypatch):
    with servers.s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        s3fs.S3FileSystem.clear_instance_cache()
        with pytest.raises(ActcliError, match=r"dataset\.json cannot be read \(PermissionError"):
            ShardSet.open(f"{BUCKET}/whole")
        with pytest.raises(ActcliError, match=r"cannot be \w+ \(PermissionError"):
            push_shards(few_shards, f"{BUCKET}/new")
    s3fs.S3FileSystem.clear_instance_cache()


def test_nginx_gives_the_batches_of_the_folder(few_shards, tmp_path):
    with servers.nginx(few_shards, tmp_path / "nginx") as url:
        for order in ("index", "blocks"):
            reading = Reading(order)
            assert same(epoch(url, reading=reading), epoch(few_shards, reading=reading))
        assert same(epoch(url, reading=Reading("index"), workers=2), epoch(few_shards))
        assert verify_shards(url) == []


def test_a_slow_nginx_gives_the_batches_too(few_shards, tmp_path):
    with servers.nginx(few_shards, tmp_path / "nginx", "limit_rate 200k;") as url:
        assert same(epoch(url), epoch(few_shards, reading=Reading("blocks")))


def test_an_nginx_that_is_overloaded_is_asked_again(few_shards, tmp_path):
    """It refuses the first request of each connection."""
    limits = "if ($overloaded) { return 503; }"
    with servers.nginx(few_shards, tmp_path / "nginx", limits) as url:
        assert same(epoch(url), epoch(few_shards, reading=Reading("blocks")))
    answers = re.findall(r'" (\d{3}) ', (tmp_path / "nginx" / "access.log").read_text())
    assert "503" in answers


def test_the_commands_push_verify_train_and_pull(s3, few_frames, tmp_path):
    def actcli(words):
        result = CliRunner().invoke(app, words.split())
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    url, space = f"{BUCKET}/commands", f"--workspace {tmp_path}"
    said = actcli(f"shard --frames-dir {few_frames} --shards-dir {url} --shard-bytes 100000 {space}")
    assert f"{url} holds the" in said
    assert "every byte is as it was written" in actcli(f"verify --shards-dir {url}")
    small = "--backbone resnet18 --pretrained none --frames 2 --size 32 --batch-size 4 --epochs 1 --workers 0"
    actcli(f"train --model tsm --shards-dir {url} --cache-dir {tmp_path}/cache {small} {space}")
    assert list((tmp_path / "cache").rglob("*.chunk"))
    assert "files" in actcli(f"pull {url} --shards-dir {tmp_path}/pulled")
    assert verify_shards(tmp_path / "pulled") == []
