"""Extraction on Ray, on one node and on two, with workers and nodes killed in the middle."""

import os
import signal
from dataclasses import replace

import pytest

from actcli.errors import ActcliError
from actcli.ingest import extract_dataset
from actcli.ingest.owner import OWNER_NAME

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_home"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning"),
]


def content(frames_dir):
    files = (path for path in frames_dir.rglob("*") if path.suffix in (".mjpeg", ".parquet", ".sha256", ".json"))
    return {str(path.relative_to(frames_dir)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tiny_raw, tmp_path_factory):
    """What worker processes make."""
    from actcli.ingest import ExtractOptions

    options = ExtractOptions("tiny", tiny_raw, tmp_path_factory.mktemp("whole") / "frames", workers=2)
    extract_dataset(options)
    return content(options.frames_dir)


@pytest.fixture
def nodes(monkeypatch):
    """Starts a cluster of so many nodes of one core on this machine, each with processes of its own."""
    from ray.cluster_utils import Cluster

    # Nodes here would stay in the list of what is done at exit, and end a process that is forked later as it clears it.
    monkeypatch.setattr("ray._private.node.atexit.register", lambda function: function)
    if ray.is_initialized():
        ray.shutdown()
    cluster = Cluster()

    def start(count):
        started = []
        for _ in range(count):
            started.append(cluster.add_node(wait=False, num_cpus=1, include_dashboard=False))
            cluster.wait_for_nodes(timeout=250)
        ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
        return cluster, started

    yield start
    ray.shutdown()
    cluster.shutdown()


def test_two_ray_nodes_give_the_very_files_that_processes_give(nodes, whole, tiny_options):
    nodes(2)
    options = tiny_options(executor="ray", workers=2)
    extract_dataset(options)
    assert content(options.frames_dir) == whole


def test_two_ray_nodes_put_the_very_files_to_s3(s3, nodes, whole, tiny_options):
    nodes(2)
    options = tiny_options(executor="ray", workers=2, frames_url="s3://films/tiny")
    extract_dataset(options)
    s3.invalidate_cache()
    put = {path.removeprefix("films/tiny/"): s3.cat_file(path) for path in s3.find("films/tiny")}
    assert put.pop(OWNER_NAME) == (options.frames_dir / OWNER_NAME).read_bytes()
    assert put == {name: data for name, data in whole.items() if name.endswith(".mjpeg")}
    assert content(options.frames_dir).keys() == {OWNER_NAME} | whole.keys() - put.keys()


def test_a_node_that_is_killed_costs_nothing(nodes, whole, tiny_options):
    cluster, (_, second) = nodes(2)
    options = tiny_options(executor="ray", workers=2)

    def kill(state):
        if state.done == 6:
            cluster.remove_node(second, allow_graceful=False)

    summary = extract_dataset(options, progress=kill)
    if summary.counts["failed"]:
        summary = extract_dataset(replace(options, executor="serial"))
    assert summary.counts["ok"] == 24
    assert content(options.frames_dir) == whole


def test_one_ray_node_with_a_killed_worker_gives_the_very_files_too(nodes, whole, tiny_options, tmp_path, monkeypatch):
    nodes(1)
    deaths = tmp_path / "deaths"
    deaths.mkdir()

    def die_at_first(function, task):
        try:
            (deaths / "one").touch(exist_ok=False)
        except FileExistsError:
            return function(task)
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("actcli.ingest.executors._call", die_at_first)
    options = tiny_options(executor="ray", workers=2)
    summary = extract_dataset(options)
    assert [path.name for path in deaths.iterdir()] == ["one"]
    assert summary.counts["ok"] == 24
    assert content(options.frames_dir) == whole


def test_a_cluster_that_nobody_named_is_left_alone(nodes, monkeypatch):
    from actcli.ingest.executors import start_ray

    cluster, _ = nodes(1)
    ray.shutdown()
    start_ray(1)
    assert ray.get_runtime_context().gcs_address != cluster.address
    ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    start_ray(1)
    assert ray.get_runtime_context().gcs_address == cluster.address


def test_the_runtime_environment_reaches_the_workers(tmp_path, monkeypatch):
    from actcli.ingest.executors import read_runtime_env, run_tasks, start_ray

    (tmp_path / "env.yaml").write_text("env_vars: {ACTCLI_TEST: from the file}\n")
    ray.shutdown()
    try:
        start_ray(1, read_runtime_env(tmp_path / "env.yaml"))
        seen = [result for _, result in run_tasks("ray", os.getenv, ["ACTCLI_TEST"], workers=1, timeout=250)]
        with pytest.raises(ActcliError, match="Ray was started before"):
            start_ray(1, {"env_vars": {}, "pip": ["actcli"]})
    finally:
        ray.shutdown()
    assert seen == ["from the file"]
