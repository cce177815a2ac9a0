"""An evaluation scores every clip once, and its numbers follow from its scores."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from actcli.engine.ensemble import fuse
from actcli.engine.evaluator import EvalOptions, evaluate
from actcli.engine.protocols import AskedViews, choose_views
from actcli.engine.recipes import Protocol
from actcli.engine.results import read_metrics, read_scores
from actcli.errors import ActcliError
from actcli.models import create_model, save_weights
from actcli.shards import ShardSet

from .helpers import HARDWARE


@pytest.fixture(scope="module")
def weights(tiny_shards, tmp_path_factory):
    """Weights of a model that was never trained."""
    path = tmp_path_factory.mktemp("weights") / "tsm.safetensors"
    model = create_model("tsm", num_classes=6, num_frames=2, backbone="resnet18")
    classes = list(ShardSet.open(tiny_shards).card.classes)
    save_weights(model, path, {"classes": classes, "sampling": "segments", "source": "a test"})
    return path


@pytest.fixture(scope="module")
def options(tiny_shards, weights, tmp_path_factory):
    views = AskedViews(clips=2, crops=3, size=32)
    return EvalOptions(weights, tiny_shards, tmp_path_factory.mktemp("eval"), views=views, keep_views=True)


@pytest.fixture(scope="module")
def evaluation(options):
    return evaluate(options, HARDWARE)


def test_every_clip_is_scored_once_in_key_order(evaluation, tiny_shards):
    scores = read_scores(evaluation.out_dir)
    index = ShardSet.open(tiny_shards).index("val")
    assert scores.keys.tolist() == sorted(index.keys.tolist())
    assert dict(zip(scores.keys, scores.labels, strict=True)) == dict(zip(index.keys, index.labels, strict=True))


def test_clips_are_named_as_in_the_official_list(evaluation, tiny_shards):
    table = pd.read_parquet(evaluation.out_dir / "scores.parquet").set_index("key")
    shards = ShardSet.open(tiny_shards)
    for key, name in zip(shards.index("val").keys, shards.clip_names("val"), strict=True):
        assert table.loc[f"{key:09d}", "clip"] == name
        assert f"/{table.loc[f'{key:09d}', 'class']}/" in name


def test_the_score_of_a_clip_is_the_mean_of_its_views(evaluation):
    table = pd.read_parquet(evaluation.out_dir / "scores.parquet")
    views = np.stack([np.stack(row) for row in table["views"]])
    assert views.shape == (6, 2 * 3, 6)
    np.testing.assert_allclose(np.stack(table["scores"]), views.mean(1), rtol=1e-5, atol=1e-7)
    assert np.abs(views - views[:, :1]).max() > 1e-4


def test_the_accuracy_follows_from_the_scores(evaluation):
    scores = read_scores(evaluation.out_dir)
    metrics = read_metrics(evaluation.out_dir)
    assert metrics["top1"] == pytest.approx((scores.logits.argmax(1) == scores.labels).mean(), abs=1e-6)
    assert metrics["num_clips"] == len(scores.keys) == 6
    assert metrics == json.loads(json.dumps(evaluation.metrics))


def test_the_protocol_and_its_cost_are_told(evaluation):
    metrics = evaluation.metrics
    assert metrics["num_views"] == 6
    assert metrics["gflops"] == pytest.approx(6 * metrics["gflops_per_view"], abs=6e-6)  # rounded to 1e-6
    assert "2 clip(s) x 3 crop(s) of 32 px" in metrics["protocol"]
    assert (metrics["split"], metrics["dataset"], metrics["model"]) == ("val", "tiny", "tsm")
    assert metrics["coverage"] == {"listed": 6, "ok": 6, "failed": 0, "missing": 0}  # of the split alone
    assert (evaluation.out_dir / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_scores_do_not_hang_on_the_batch_size(options, evaluation, tmp_path, batch_size):
    again = evaluate(replace(options, out_dir=tmp_path, batch_size=batch_size), HARDWARE)
    found, expected = read_scores(again.out_dir), read_scores(evaluation.out_dir)
    np.testing.assert_array_equal(found.keys, expected.keys)
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-3, atol=1e-5)


def test_another_split_can_be_scored_with_progress(options, tmp_path):
    seen = []
    chosen = replace(options, out_dir=tmp_path, split="train", views=AskedViews(size=32), batch_size=8)
    result = evaluate(chosen, HARDWARE, progress=lambda done, total: seen.append((done, total)))
    assert result.metrics["num_clips"] == 18
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_an_evaluation_fused_with_itself_keeps_its_accuracy(evaluation):
    fused = fuse([evaluation.out_dir, evaluation.out_dir])
    assert (fused.logits.argmax(1) == read_scores(evaluation.out_dir).logits.argmax(1)).all()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            ["a", "b", "c", "d", "e", "f", "g"],
            r"trained on 7 classes, dataset tiny has 6 other classes.*--init .* --new-head",
        ),
        (None, r"has 7 classes, dataset tiny has 6"),
    ],
)
def test_weights_of_other_classes_are_refused(options, tmp_path, classes, message):
    path = tmp_path / "other.safetensors"
    model = create_model("tsm", num_classes=7, num_frames=2, backbone="resnet18")
    save_weights(model, path, {"classes": classes})
    with pytest.raises(ActcliError, match=message):
        evaluate(replace(options, weights=path), HARDWARE)


def test_the_same_classes_in_another_order_are_refused(options, tiny_shards, tmp_path):
    path = tmp_path / "other.safetensors"
    model = create_model("tsm", num_classes=6, num_frames=2, backbone="resnet18")
    save_weights(model, path, {"classes": list(ShardSet.open(tiny_shards).card.classes)[::-1]})
    with pytest.raises(ActcliError, match="the same classes in another order"):
        evaluate(replace(options, weights=path), HARDWARE)


def test_a_split_that_does_not_exist_is_refused(options):
    with pytest.raises(ActcliError, match=r"no split 'test'; it has train, val"):
        evaluate(replace(options, split="test"), HARDWARE)


@pytest.mark.parametrize(
    ("asked", "trained", "clips", "chosen", "told"),
    [
        ("dense", "tsm", 2, "dense", False),
        (None, "tsm", 2, "tsm", False),
        (None, "segments", 7, "segments", False),
        (None, "tsm", 3, "segments", True),
        (None, "tsm-dense", 3, "dense", True),
        (None, "tokshift", 2, "dense", True),
    ],
)
def test_a_test_is_sampled_as_the_training_was_where_that_is_defined(asked, trained, clips, chosen, told):
    notes = []
    asked_views = AskedViews(clips=clips, sampling=asked)
    views = choose_views(asked_views, Protocol(), training_size=224, trained_with=trained, note=notes.append)
    assert views.sampling == chosen
    assert bool(notes) == told
    assert all(f"{trained} defines no test with {clips} clips" in note for note in notes)
