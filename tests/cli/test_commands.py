"""The commands, one after the other, on a small dataset."""

import io
import json
import os
import shutil
from importlib.metadata import version

import pandas as pd
import pytest
import torch
import yaml

from actcli.cli._console import Progress
from actcli.cli.predict_command import _names_from, _print_json
from actcli.engine.prediction import Prediction
from actcli.engine.results import read_metrics, read_scores, write_metrics
from actcli.models import create_model, load_weights
from actcli.shards import ShardSet

from .conftest import TINY


def test_extract_counts_clips_and_says_what_comes_next(done):
    assert done.extract.exit_code == 0, done.extract.output
    assert "next: actcli shard" in done.extract.output
    manifest = pd.read_parquet(done.root / "frames" / "tiny" / "manifest.parquet")
    assert manifest["status"].tolist() == ["ok"] * 24


def test_extract_again_does_nothing(done, actcli):
    again = actcli(f"extract --dataset tiny --short-side 0 --executor serial {done.space}")
    assert again.exit_code == 0
    assert "24 clips done by earlier runs" in again.output


def test_shard_counts_splits_and_says_what_comes_next(done):
    assert done.shard.exit_code == 0, done.shard.output
    assert "train 18, val 6" in done.shard.output
    assert "next: actcli train" in done.shard.output
    assert json.loads((done.root / "shards" / "tiny" / "dataset.json").read_text())["name"] == "tiny"


def test_shard_again_writes_nothing(done, actcli):
    again = actcli(f"shard {done.space}")
    assert again.exit_code == 0
    assert "nothing was written" in again.output


def test_train_uses_the_only_shards_and_writes_down_what_it_used(done):
    assert done.train.exit_code == 0, done.train.output
    assert "with the recipe tsm-" in done.train.output
    config = yaml.safe_load((done.run / "config.yaml").read_text())
    recipe = config["recipe"]
    assert (config["dataset"], recipe["model"], recipe["epochs"], recipe["batch_size"]) == ("tiny", "tsm", 1, 4)
    assert (recipe["size"], recipe["num_frames"], recipe["pretrained"]) == (32, 4, None)
    assert recipe["model_options"]["backbone"] == "resnet18"
    assert (done.run / "finished").exists()


def test_train_ends_with_where_the_time_went(done):
    for phase in (
        "waiting for data",
        "host to device",
        "forward",
        "backward",
        "optimiser",
        "validation",
        "checkpoints",
    ):
        assert phase in done.train.output


def test_bench_train_measures_the_training_and_its_ceiling(done, actcli):
    sizes = "--frames 2 --size 32 --batch-size 4 --steps 2 --cached-batches 1 --workers 0 --device cpu"
    measured = actcli(f"bench train --model tsm --backbone resnet18 {sizes} {done.space}")
    assert measured.exit_code == 0, measured.output
    assert "ceiling: 1 batches kept on the device" in measured.output
    assert "of what the network could do" in measured.output


def test_a_recipe_is_copied_to_be_edited_and_never_over_a_file(tmp_path, actcli):
    copied = actcli(f"recipes copy tsm-something-r50-8f {tmp_path}/mine.yaml")
    assert copied.exit_code == 0, copied.output
    recipe = yaml.safe_load((tmp_path / "mine.yaml").read_text())
    assert (recipe["name"], recipe["model"], recipe["learning_rate"]) == ("mine", "tsm", 0.01)
    assert actcli(f"recipes copy tsm-something-r50-8f {tmp_path}/mine.yaml").exit_code == 1
    assert actcli(f"recipes copy tsm-something-r50-8f {tmp_path}/mine.txt").exit_code == 1


def test_train_says_the_accuracy_of_each_epoch_and_what_comes_next(done):
    history = json.loads((done.run / "history.jsonl").read_text())
    assert f"val top-1 {100 * history['val_top1']:.2f} %" in done.train.output
    assert f"next: actcli eval --run-dir {done.run}" in done.train.output


def test_a_dry_run_of_training_says_what_it_takes_and_trains_nothing(done, actcli, tmp_path):
    (tmp_path / "shards").symlink_to(done.root / "shards")
    result = actcli(f"train --model tsm {TINY} --dry-run --workspace {tmp_path}")
    assert result.exit_code == 0, result.output
    for text in ("train 18, val 6", "4 an epoch, 4 in all", "GB free", "h:min:s"):
        assert text in result.output
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_tries_whether_the_folder_of_the_run_can_be_written(done, actcli, tmp_path):
    (tmp_path / "file").touch()
    result = actcli(f"train --model tsm {TINY} --dry-run --run-dir {tmp_path / 'file' / 'run'} {done.space}")
    assert result.exit_code == 1
    assert f"nothing can be written to {tmp_path / 'file'}" in result.output


def test_eval_takes_the_newest_run_and_writes_scores_metrics_and_a_page(done):
    assert done.eval.exit_code == 0, done.eval.output
    assert f"evaluating the newest run, {done.run.name}" in done.eval.output
    assert "2 clip(s) x 3 crop(s) of 32 px from short side 36" in done.eval.output
    metrics = json.loads((done.evaluation / "metrics.json").read_text())
    assert (metrics["num_clips"], metrics["num_views"], metrics["model"]) == (6, 6, "tsm")
    assert len(read_scores(done.evaluation).keys) == 6
    assert [one["num_clips"] for one in metrics["classes"]] == [1] * 6
    assert sum(one["num_clips"] for one in metrics["calibration"]["bins"]) == 6
    page = (done.evaluation / "report.html").read_text()
    assert metrics["command"] in page
    assert metrics["command"].startswith("actcli eval --crops 3 --clips 2")


def test_eval_keeps_views_where_it_is_told_to(done, actcli, tmp_path):
    result = actcli(
        f"eval --run {done.run.name} --crops 1 --clips 2 --views --workers 0 --out-dir {tmp_path} {done.space}"
    )
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert [len(views) for views in table["views"]] == [2] * 6


def test_eval_of_the_last_weights_on_the_training_split(done, actcli):
    result = actcli(f"eval --checkpoint last --split train --crops 1 --clips 1 --workers 0 {done.space}")
    assert result.exit_code == 0, result.output
    metrics = json.loads((done.run / "eval" / "train-1x1-32of36-tsm-1-last" / "metrics.json").read_text())
    assert (metrics["num_clips"], metrics["weights"]) == (18, "last.safetensors")


@pytest.fixture(scope="module")
def second_run(done, actcli):
    """A TSN beside the TSM."""
    run_dir = done.root / "runs" / "second"
    trained = actcli(f"train --model tsn {TINY} --run-dir {run_dir} --set validate_every=1 --seed 7 {done.space}")
    assert trained.exit_code == 0, trained.output
    evaluated = actcli(f"eval --run second --crops 1 --clips 1 --workers 0 {done.space}")
    assert evaluated.exit_code == 0, evaluated.output
    return run_dir


def test_ensemble_takes_runs_and_weights(done, second_run, actcli):
    result = actcli(f"ensemble {done.evaluation} second --weights 1 1.5 {done.space}")
    assert result.exit_code == 0, result.output
    (folder,) = (done.root / "runs" / "ensembles").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model"] == "tsm + tsn"
    assert "(weight 1)" in metrics["protocol"]
    assert "(weight 1.5)" in metrics["protocol"]
    assert (metrics["weights"], metrics["run"]) == ("best.safetensors + best.safetensors", None)
    assert metrics["num_views"] == 7
    fused = read_scores(folder)
    assert metrics["top1"] == pytest.approx((fused.logits.argmax(1) == fused.labels).mean(), abs=1e-6)
    assert (folder / "report.html").exists()


def test_predict_writes_json_lines_and_fails_where_a_file_is_broken(done, actcli, tmp_path):
    video = next((done.root / "raw").rglob("*.mp4"))
    space = f"--run {done.run.name} --workers 1 --device cpu {done.space}"
    result = actcli(f"predict {video} --top 2 {space}")
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout.splitlines()[-1])
    assert (line["video"], len(line["classes"])) == (str(video), 2)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert actcli(f"predict {video} {tmp_path / 'broken.mp4'} {space}").exit_code == 1
    assert "--every takes seconds" in actcli(f"predict {video} --every often {space}").output


def test_names_from_a_pipe_and_json_lines_hold_whatever_bytes_the_disk_has(capsys):
    [name] = _names_from(io.BytesIO(b"bad\xff.mp4\r\n\n"))
    _print_json([Prediction(name, problem="the file is empty")])
    printed = capsys.readouterr().out
    printed.encode("utf-8")  # every reader of JSON takes it
    assert os.fsencode(json.loads(printed)["video"]) == b"bad\xff.mp4"


def test_export_writes_what_the_name_of_the_file_says(done, actcli, tmp_path):
    result = actcli(f"export --run {done.run.name} --out {tmp_path / 'model.pt2'} {done.space}")
    assert result.exit_code == 0, result.output
    torch.export.load(tmp_path / "model.pt2")  # the name alone says what is wanted
    assert "input [batch, 4, 3, 32, 32]" in result.output
    assert (tmp_path / "model.pt2").exists()


def test_runs_are_listed_with_their_state(done, actcli):
    result = actcli(f"runs {done.space}")
    assert result.exit_code == 0, result.output
    assert done.run.name in result.output
    assert "finished" in result.output


def test_the_age_of_a_run_is_never_negative(done, actcli, tmp_path):
    run = tmp_path / "runs" / "tomorrow"
    run.mkdir(parents=True)
    (run / "config.yaml").write_bytes((done.run / "config.yaml").read_bytes())
    os.utime(run / "config.yaml", (4e9, 4e9))
    assert "in the future" in actcli(f"runs --workspace {tmp_path}").output


def test_compare_shows_both_runs_the_test_and_the_curves(done, second_run, actcli):
    plain = actcli(f"eval --run {done.run.name} --crops 1 --clips 1 --workers 0 {done.space}")
    assert plain.exit_code == 0, plain.output
    result = actcli(f"compare {done.run.name} second {done.space}")
    assert result.exit_code == 0, result.output
    assert f"second against {done.run.name}" in result.output
    assert "95 % interval" in result.output
    assert "class         clips  the former, %  the latter, %" in result.output  # names would push classes out
    assert (done.root / "runs" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    page = (done.root / "runs" / "comparison.html").read_text()
    assert f"second against {done.run.name}" in page
    assert f"actcli compare {done.run.name} second" in page


def test_compare_says_how_a_run_gets_its_evaluation(done, actcli, tmp_path):
    run = tmp_path / "bare"
    shutil.copytree(done.run, run, ignore=shutil.ignore_patterns("eval"))
    result = actcli(f"compare {done.run.name} {run} {done.space}")
    assert result.exit_code == 1
    assert f"is a run without an evaluation. Make one with: actcli eval --run {run}" in result.output


def test_ensemble_of_other_splits_is_refused(done, second_run, actcli, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(done.evaluation, other)
    write_metrics(other / "metrics.json", {**read_metrics(other), "dataset": "another"})
    result = actcli(f"ensemble {done.evaluation} {other} {done.space}")
    assert result.exit_code == 1
    assert f"{other} is of another, val, split set 1" in result.output


def test_ensemble_of_an_evaluation_without_its_cost_is_refused(done, second_run, actcli, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(done.evaluation, other)
    write_metrics(other / "metrics.json", {**read_metrics(other), "gflops": None})
    result = actcli(f"ensemble {done.evaluation} {other} {done.space}")
    assert result.exit_code == 1
    assert "no gflops" in result.output


@pytest.mark.parametrize(
    ("edited", "what"),
    [
        ({"selection": [1]}, "the selection in metrics.json"),
        ({"selection": {"joined": 5}}, "joined is 5"),
        ({"selection": {"labelled_as": ["a"]}}, "of other classes than the 1"),
        ({"coverage": {"ok": 3}}, "the field listed is missing"),
    ],
)
def test_metrics_that_say_what_cannot_be_are_refused_in_a_sentence(done, second_run, actcli, tmp_path, edited, what):
    other = tmp_path / "other"
    shutil.copytree(done.evaluation, other)
    write_metrics(other / "metrics.json", {**read_metrics(other), **edited})
    result = actcli(f"ensemble {other} second --out-dir {tmp_path / 'out'} {done.space}")
    assert (result.exit_code, result.output.count("error: ")) == (1, 1), result.output
    assert what in result.output


def test_ensemble_with_too_few_weights_fails(done, second_run, actcli):
    result = actcli(f"ensemble {done.evaluation} second --weights 2 {done.space}")
    assert result.exit_code == 1
    assert "2 evaluations need 2 positive --weights" in result.output


def test_verify_finds_nothing_wrong(done, actcli):
    result = actcli(f"verify {done.space}")
    assert result.exit_code == 0, result.output
    assert "every byte is as it was written" in result.output


def test_verify_finds_a_changed_byte(shards_copy, actcli):
    tar = next((shards_copy / "shards" / "tiny").glob("train-*.tar"))
    data = bytearray(tar.read_bytes())
    data[len(data) // 2] ^= 1
    tar.write_bytes(data)
    result = actcli(f"verify --workspace {shards_copy}")
    assert result.exit_code == 1
    assert tar.name in result.output
    assert "actcli shard --overwrite" in result.output


def test_verify_mends_shards(done, shards_copy, actcli):
    folder, frames = shards_copy / "shards" / "tiny", done.root / "frames" / "tiny"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in ("train-000000.tar", "val.index.parquet", "val-000000.idx"):
        os.truncate(folder / name, len(before[name]) // 2)
    result = actcli(f"verify --repair --deep --frames-dir {frames} --workspace {shards_copy}")
    assert result.exit_code == 0, result.output
    assert "val.index.parquet" in result.output
    assert "every frame can be decoded" in result.output
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_verify_says_what_it_cannot_mend(shards_copy, actcli):
    tar = shards_copy / "shards" / "tiny" / "train-000000.tar"
    os.truncate(tar, 3000)
    result = actcli(f"verify --repair --workspace {shards_copy}")
    assert result.exit_code == 1
    assert "not mended" in result.output
    assert "frames/tiny" in result.output
    assert tar.stat().st_size == 3000


def test_repair_is_for_folders_and_frames_are_for_repair(shards_copy, actcli):
    result = actcli("verify --repair --shards-dir s3://bucket/x")
    assert (result.exit_code, "--repair works in a folder" in result.output) == (1, True)
    result = actcli(f"verify --frames-dir x --workspace {shards_copy}")
    assert (result.exit_code, "add --repair" in result.output) == (1, True)


def test_inspect_writes_a_page(done, actcli, tmp_path):
    result = actcli(f"inspect --out {tmp_path / 'page.html'} {done.space}")
    assert result.exit_code == 0, result.output
    assert "moving right" in (tmp_path / "page.html").read_text()


@pytest.fixture(scope="module")
def imported(done, actcli, tmp_path_factory):
    """A checkpoint as the TSM repository stores it, and what ``import`` said."""
    folder = tmp_path_factory.mktemp("foreign")
    model = create_model("tsm", num_classes=6, num_frames=4, backbone="resnet18")
    renamed = {}
    for key, value in model.state_dict().items():
        name = key.replace("backbone.", "module.base_model.").replace("classifier.", "module.new_fc.")
        renamed[name.replace(".conv1.weight", ".conv1.net.weight") if "layer" in name else name] = value
    torch.save({"epoch": 1, "state_dict": renamed}, folder / "ckpt.best.pth.tar")
    shards = done.root / "shards" / "tiny"
    command = f"import {folder / 'ckpt.best.pth.tar'} --from tsm --frames 4 --set shift_div=8 --classes-from {shards}"
    return model, folder, actcli(command)


def test_import_takes_over_a_checkpoint_of_the_original_code(imported):
    model, folder, result = imported
    assert result.exit_code == 0, result.output
    assert f"{len(model.state_dict())} tensors taken over" in result.output
    found, metadata = load_weights(folder / "ckpt.best.safetensors")
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
    assert metadata["classes"][0] == "growing"
    assert (metadata["sampling"], metadata["test"]["clips"], metadata["test"]["crops"]) == ("tsm", 1, 1)


def test_import_replaces_its_own_results_only(imported, actcli):
    _, folder, _ = imported
    checkpoint = folder / "ckpt.best.pth.tar"
    before = checkpoint.read_bytes()
    command = f"import {checkpoint} --from tsm --frames 4 --set shift_div=8 --out"
    assert actcli(f"{command} {folder / 'again.safetensors'}").exit_code == 0
    assert actcli(f"{command} {folder / 'again.safetensors'}").exit_code == 0
    refused = actcli(f"{command} {checkpoint}")
    assert refused.exit_code == 1
    assert "exists and is no weights of actcli" in refused.output
    assert checkpoint.read_bytes() == before


def test_eval_takes_imported_weights(imported, done, actcli, tmp_path):
    weights = imported[1] / "ckpt.best.safetensors"
    result = actcli(f"eval --weights {weights} --size 32 --workers 0 --out-dir {tmp_path} {done.space}")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "metrics.json").read_text())["num_clips"] == 6


def test_imported_weights_keep_the_results_of_each_dataset_apart(imported, done, actcli):
    weights = imported[1] / "ckpt.best.safetensors"
    result = actcli(f"eval --weights {weights} --size 32 --workers 0 {done.space}")
    assert result.exit_code == 0, result.output
    (folder,) = (imported[1] / "ckpt.best" / "eval").iterdir()
    card = ShardSet.open(done.root / "shards" / "tiny").card
    assert folder.name.endswith(f"-on-tiny-{card.source_digest[:8]}")


def test_import_lists_what_does_not_fit(imported, actcli):
    checkpoint = imported[1] / "ckpt.best.pth.tar"
    result = actcli(f"import {checkpoint} --from tsm --frames 4 --set shift_div=8 --num-classes 9")
    assert result.exit_code == 1
    assert "classifier.weight" in result.output
    assert "--num-classes 6" in result.output


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("", "--frames N (published: 8 or 16 for most; TSN 5 or 8, ST-MulNet 11), --set shift_div=N (published: 8)"),
        ("--frames 4 --set shift_div=8 --backbone resnet34", "--backbone resnet34 (the file has resnet18)"),
        ("--frames 4 --set shift_div=8 --set shift_place=block", "--set shift_place=block (the file has blockres)"),
        ("--frames 4 --set shift_div=8 --model tsn", "--model tsn does not fit"),
        ("--frames 4 --set shift_div", "--set takes NAME=VALUE, got 'shift_div'"),
        ("--frames 4 --set shift_div=abc", "shift_div of tsm is 'abc'; it has to be of type int"),
        ("--frames 4 --set shift_div=8 --sampling nosuch", "unknown sampling 'nosuch'"),
    ],
)
def test_import_asks_for_what_the_file_cannot_tell_and_refuses_what_contradicts_it(imported, actcli, flags, sentence):
    result = actcli(f"import {imported[1] / 'ckpt.best.pth.tar'} --from tsm --out {imported[1] / 'no.x'} {flags}")
    assert result.exit_code == 1, result.output
    assert sentence in " ".join(result.output.split())
    assert not (imported[1] / "no.x").exists()


def test_train_starts_from_weights(imported, done, actcli, tmp_path):
    weights = imported[1] / "ckpt.best.safetensors"
    result = actcli(f"train --model tsm {TINY} --init {weights} --run-dir {tmp_path} {done.space}")
    assert result.exit_code == 0, result.output
    assert f"starting from {weights}" in result.output


# -- resume ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def interrupted(done, actcli, tmp_path):
    """A workspace with a run that was stopped before its end."""
    (tmp_path / "shards").symlink_to(done.root / "shards")
    command = f"train --model tsn {TINY} --workspace {tmp_path}"
    assert actcli(command).exit_code == 0
    (run,) = (tmp_path / "runs").iterdir()
    (run / "finished").unlink()
    (run / "checkpoints" / "last.ckpt").unlink()
    return tmp_path, run, command


def test_resume_finds_the_interrupted_run_with_the_same_settings(interrupted, actcli):
    workspace, run, command = interrupted
    result = actcli(f"{command} --resume")
    assert result.exit_code == 0, result.output
    assert list((workspace / "runs").iterdir()) == [run]
    assert (run / "finished").exists()


def test_resume_with_other_settings_starts_a_new_run_and_says_so(interrupted, actcli):
    workspace, _, command = interrupted
    result = actcli(f"{command} --resume --seed 3 --run-dir {workspace / 'runs' / 'new'}")
    assert result.exit_code == 0, result.output
    assert (workspace / "runs" / "new" / "finished").exists()


def test_resume_by_folder_continues_and_refuses_other_settings(interrupted, actcli):
    _, run, _ = interrupted
    refused = actcli(f"train --resume --run-dir {run} --seed 5")
    assert refused.exit_code == 1
    assert "was started with seed 0, not 5; leave out what differs" in refused.output
    refused = actcli(f"train --resume --run-dir {run} --batch-size 4 --shards-dir {run} --schedule cosine")
    assert refused.exit_code == 1
    assert "schedule.kind 'step', not 'cosine', and shards " in refused.output
    result = actcli(f"train --resume --run-dir {run} --workers 0 --device cpu")
    assert result.exit_code == 0, result.output
    assert (run / "finished").exists()


def test_resume_takes_the_whole_command_again_and_flags_that_say_the_same(interrupted, actcli):
    workspace, run, command = interrupted
    shards = next((workspace / "shards").iterdir())
    other = actcli(f"{command} --resume --run-dir {run} --dropout 0.1")
    assert other.exit_code == 1
    assert "was started with model_options.dropout 0.5, not 0.1; leave out what differs" in other.output
    result = actcli(f"{command} --resume --run-dir {run}")
    assert result.exit_code == 0, result.output
    assert (run / "finished").exists()
    again = actcli(f"train --resume --run-dir {run} --shards-dir {shards} --seed 0 --size 32")
    assert again.exit_code == 0, again.output
    assert f"{run} is finished" in again.output


def test_a_run_without_a_checkpoint_says_that_it_begins_again(interrupted, actcli):
    _, run, _ = interrupted
    result = actcli(f"train --resume --run-dir {run} --workers 0 --device cpu")
    assert f"{run} has no checkpoint; the training begins at its first step" in result.output


def test_all_split_sets_are_resumed_with_the_same_settings_only_and_keep_their_scores(interrupted, actcli):
    workspace, _, command = interrupted
    command = f"{command} --all-splits --run-dir {workspace / 'all'}"
    trained = actcli(command)
    assert trained.exit_code == 0, trained.output
    again = actcli(f"{command} --resume")
    assert again.exit_code == 0, again.output
    assert again.output.splitlines()[-6:] == trained.output.splitlines()[-6:]
    other = actcli(f"{command} --resume --seed 4")
    assert other.exit_code == 1
    assert "was started with seed 0, not 4; leave out what differs" in other.output
    absent = actcli(f"train --resume --all-splits --run-dir {workspace / 'runs'}")  # its runs are of no --all-splits
    assert (absent.exit_code, absent.output.count("there is no run in")) == (1, 1)
    going_on = f"--resume --all-splits --run-dir {workspace / 'all'} --workers 0 --device cpu"
    longer = actcli(f"train {going_on} --epochs 2 --micro-batch 2")
    assert longer.exit_code == 0, longer.output
    assert "epoch 2: loss" in longer.output
    assert yaml.safe_load((workspace / "all" / "split1" / "config.yaml").read_text())["micro_batch"] == 2


def test_resume_on_all_split_sets_alone_takes_the_settings_of_the_newest_run(interrupted, actcli):
    workspace, run, _ = interrupted
    result = actcli(f"train --resume --all-splits --workers 0 --device cpu --workspace {workspace}")
    assert result.exit_code == 0, result.output
    assert (run / "finished").exists()
    assert "split set" in result.output
    assert "mean" in result.output


def test_a_run_is_not_overwritten(interrupted, actcli):
    _, run, command = interrupted
    result = actcli(f"{command} --run-dir {run}")
    assert result.exit_code == 1
    assert "is a run already. Continue it with --resume" in result.output


# -- listings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("datasets", "sthv2"),
        ("datasets ucf101", "raw/ucf101"),
        ("recipes", "masnet-sthv2-r50-16f"),
        ("recipes show tsm-kinetics-r50-8f", "learning_rate: 0.02"),
        ("models vit", "vit_b16"),
    ],
)
def test_a_listing_shows_what_there_is(actcli, command, expected):
    result = actcli(command)
    assert result.exit_code == 0, result.output
    assert expected in result.output


def test_doctor_shows_versions(actcli):
    result = actcli("doctor")
    assert version("torch") in result.output
    assert "ffmpeg" in result.output
    assert result.exit_code == int("problem:" in result.output)


def test_bench_loader_recommends_a_loader(done, actcli):
    result = actcli(f"bench loader --frames 2 --size 32 --batch-size 4 --workers 1 --device cpu {done.space}")
    assert result.exit_code == 0, result.output
    assert "clips/s" in result.output


def test_a_run_on_some_classes_says_everywhere_what_was_left_out(done, actcli, tmp_path):
    (tmp_path / "shards").symlink_to(done.root / "shards")
    (tmp_path / "names").write_text("growing\nshrinking\n")
    space = f"--workspace {tmp_path}"
    train = actcli(f"train --model tsm {TINY} --classes {tmp_path}/names --fraction 0.7 {space}")
    assert train.exit_code == 0, train.output
    said = "left out: 12 of 18 clips of train (only 2 classes ('growing', 'shrinking'), 70 % of each class)"
    assert said in train.output
    [run] = (tmp_path / "runs").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["subset"]["classes"] == ["growing", "shrinking"]
    result = actcli(f"eval --workers 0 --device cpu {space}")
    assert result.exit_code == 0, result.output
    [folder] = (run / "eval").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["num_clips"] == 2
    assert metrics["left_out"] == "4 of 6 clips of val (only 2 classes ('growing', 'shrinking'))"
    assert "4 of 6 clips of val (only 2 classes" in (folder / "report.html").read_text()


def test_a_model_of_all_classes_is_tested_on_some_with_its_own_labels(done, actcli):
    result = actcli(f"eval --run {done.run.name} --classes growing --workers 0 {done.space}")
    assert result.exit_code == 0, result.output
    assert "the clips are of 1 of the 6 classes" in result.output
    [folder] = [path for path in (done.run / "eval").iterdir() if "-on-tiny-" in path.name]
    label = ShardSet.open(done.root / "shards" / "tiny").card.classes.index("growing")
    assert read_scores(folder).labels.tolist() == [label]
    assert read_scores(folder).logits.shape == (1, 6)


def test_a_class_that_is_not_there_is_refused_before_training(done, actcli):
    result = actcli(f"train --model tsm {TINY} --classes growning {done.space}")
    assert result.exit_code == 1
    assert "tiny has no class 'growning'; did you mean 'growing'?" in result.output


def test_cam_shows_the_worst_clips_of_the_newest_evaluation(done, actcli, tmp_path):
    result = actcli(f"cam --run {done.run.name} --worst 1 --out-dir {tmp_path} --workers 1 --device cpu {done.space}")
    assert result.exit_code == 0, result.output
    assert (len(list(tmp_path.glob("*.png"))), len(list(tmp_path.glob("*.mp4")))) == (1, 1)
    assert "the worst clips of" in result.output


def test_cam_refuses_an_evaluation_whose_clips_the_shards_do_not_hold(done, actcli, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(done.run, run)
    for path in run.glob("eval/*/metrics.json"):
        metrics = read_metrics(path.parent)
        write_metrics(path, {**metrics, "split": {"val": "train", "train": "val"}[metrics["split"]]})
    result = actcli(f"cam --run {run} --worst 1 --out-dir {tmp_path / 'cams'} --workers 1 {done.space}")
    assert result.exit_code == 1
    assert "does not hold the train clips of" in result.output or "does not hold the val clips of" in result.output


def test_cam_shows_what_can_be_read_and_fails_where_a_file_is_broken(done, actcli, tmp_path):
    video, broken = next((done.root / "raw").rglob("*.mp4")), tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    result = actcli(f"cam {video} {broken} --run {done.run.name} --out-dir {tmp_path / 'cams'} {done.space}")
    assert result.exit_code == 1
    assert f"error: {broken} cannot be read" in result.output
    assert len(list((tmp_path / "cams").glob("*.png"))) == 1


def test_predict_writes_a_video_with_labels(done, actcli, tmp_path):
    video = next((done.root / "raw").rglob("*.mp4"))
    result = actcli(f"predict {video} --run {done.run.name} --every 0.3s --overlay {tmp_path}/out.mp4 {done.space}")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out.mp4").stat().st_size > 0
    refused = actcli(f"predict {video.parent} --run {done.run.name} --overlay {tmp_path}/two.mp4 {done.space}")
    assert refused.exit_code == 1
    assert "--overlay takes a single video" in refused.output


def test_export_list_writes_a_dataset_for_other_projects(done, actcli, tmp_path):
    result = actcli(f"export-list --for vjepa2 --out-dir {tmp_path} {done.space}")
    assert result.exit_code == 0, result.output
    assert "24 clips for vjepa2" in result.output
    assert len(pd.read_csv(tmp_path / "train.csv", header=None, delimiter=" ")) == 18


def test_bytes_are_told_as_done_once_they_are(capsys):
    bar = Progress("verify", "MB")
    for done in (0, 5_900_000, 5_999_999, 6_000_001):
        bar.update_bytes(done, 6_000_001)
    assert capsys.readouterr().out.splitlines() == ["verify: 7/7 MB"]
