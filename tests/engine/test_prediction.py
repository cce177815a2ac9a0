"""A prediction is an evaluation of one video, and says what it could not read."""

from dataclasses import replace
from itertools import pairwise

import av
import numpy as np
import pytest
from scipy.special import softmax

from actcli.engine.evaluator import RunChoice, evaluate, options_for_run
from actcli.engine.overlay import check_overlay, class_colours, draw_overlay, write_overlay
from actcli.engine.prediction import Guess, Prediction, PredictOptions, merge_windows, predict
from actcli.engine.protocols import AskedViews
from actcli.engine.results import read_scores
from actcli.engine.runs import weights_path
from actcli.errors import ActcliError
from actcli.ingest import ExtractOptions, extract_dataset, make_synthetic
from actcli.models import create_model, save_weights
from actcli.shards import ShardOptions, ShardSet, write_shards

from .helpers import HARDWARE, run, tiny_config

WORKERS = replace(HARDWARE, workers=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Raw videos, shards of them that were resized, and a run on these."""
    root = tmp_path_factory.mktemp("predict")
    make_synthetic(root / "raw", num_clips=24, size=(64, 48), num_frames=8)
    extract_dataset(ExtractOptions("tiny", root / "raw", root / "frames", short_side=40, quality=80, executor="serial"))
    write_shards(ShardOptions(root / "frames", root / "shards"))
    run(tiny_config(str(root / "shards"), epochs=1), root / "run")
    return root


def test_a_clip_of_the_test_set_gets_the_very_scores_of_the_evaluation(trained, tmp_path):
    views = AskedViews(clips=2, crops=3)
    result = evaluate(options_for_run(RunChoice(trained / "run"), out_dir=tmp_path, views=views), HARDWARE)
    scores = read_scores(result.out_dir)
    shards = ShardSet.open(str(trained / "shards"))
    names = dict(zip(shards.index("val").keys.tolist(), shards.clip_names("val"), strict=True))
    files = [trained / "raw" / names[key] for key in scores.keys.tolist()]
    found = predict(files, PredictOptions(weights_path(trained / "run"), 6, views), WORKERS)
    assert [prediction.path for prediction in found] == [str(file) for file in files]
    for prediction, logits in zip(found, scores.logits, strict=True):
        probabilities = softmax(logits)
        expected = {shards.card.classes[label]: probabilities[label] for label in range(6)}
        assert {guess.class_name: guess.probability for guess in prediction.guesses} == pytest.approx(
            expected, abs=1e-6
        )
        ranked = [guess.probability for guess in prediction.guesses]
        assert ranked == sorted(ranked, reverse=True)


def test_folders_are_searched_and_broken_files_are_rows_with_a_reason(trained, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    good = next((trained / "raw").rglob("*.mp4"))
    (tmp_path / "good.mp4").write_bytes(good.read_bytes())
    (tmp_path / "notes.txt").write_text("no video either")
    found = predict([tmp_path, tmp_path / "absent.mp4"], PredictOptions(weights_path(trained / "run"), 2), WORKERS)
    assert [prediction.path.rsplit("/")[-1] for prediction in found] == ["broken.mp4", "good.mp4", "absent.mp4"]
    assert [bool(prediction.problem) for prediction in found] == [True, False, True]
    assert [len(prediction.guesses) for prediction in found] == [0, 2, 0]


def test_where_nothing_can_be_read_there_is_no_guess(trained, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    [found] = predict([tmp_path], PredictOptions(weights_path(trained / "run")), WORKERS)
    assert found.problem
    assert found.guesses == ()


def test_windows_cover_the_video(trained):
    video = next((trained / "raw").rglob("*.mp4"))
    options = PredictOptions(weights_path(trained / "run"), 1, every_seconds=0.2, window_seconds=0.3)
    found = predict([video], options, WORKERS)
    assert found[0].start == 0
    assert all(b.start - a.start == pytest.approx(0.2) for a, b in pairwise(found))
    assert all(prediction.guesses or prediction.problem for prediction in found)
    assert found[-1].end > found[-1].start


def _window(start, probabilities, path="a.mp4", length=1):
    ranked = sorted(probabilities.items(), key=lambda pair: -pair[1])
    return Prediction(path, tuple(Guess(*pair) for pair in ranked), start, start + length)


def test_neighbouring_windows_that_agree_become_one_segment():
    jump = {"jump": 0.6, "run": 0.4}
    windows = [_window(0, {"run": 0.9, "jump": 0.1}), _window(1, {"run": 0.7, "jump": 0.3}), _window(2, jump)]
    merged = merge_windows([*windows, _window(0, jump, "b.mp4")], 1)
    assert [(part.path, part.start, part.end) for part in merged] == [("a.mp4", 0, 2), ("a.mp4", 2, 3), ("b.mp4", 0, 1)]
    assert merged[0].guesses == (Guess("run", pytest.approx(0.8)),)


def test_the_probabilities_of_a_segment_are_means_over_all_its_windows():
    windows = [_window(0, {"run": 0.5, "jump": 0.3, "sit": 0.2}), _window(1, {"run": 0.5, "sit": 0.4, "jump": 0.1})]
    [merged] = merge_windows(windows, 2)
    assert merged.guesses == (Guess("run", pytest.approx(0.5)), Guess("sit", pytest.approx(0.3)))


def test_segments_that_overlap_share_the_time_at_its_middle():
    names = ["run", "jump", "run"]
    merged = merge_windows([_window(2 * n, {name: 1.0}, length=3) for n, name in enumerate(names)], 1)
    assert [(part.start, part.end) for part in merged] == [(0, 2.5), (2.5, 4.5), (4.5, 7)]


def test_places_that_no_overlay_can_be_written_to_are_refused(tmp_path):
    video = tmp_path / "video.mp4"
    video.write_bytes(b"")
    for out_path, message in (
        (tmp_path, "is a folder"),
        (video, "is the video itself"),
        (video / "x", "nothing can be"),
    ):
        with pytest.raises(ActcliError, match=message):
            check_overlay(video, out_path)


def test_windows_that_cannot_be_read_stay_apart():
    broken = [Prediction("a.mp4", start=n, end=n + 1, problem="no frames") for n in (0, 1)]
    assert merge_windows(broken, 5) == broken


def test_more_windows_than_anyone_wants_are_refused_before_they_are_made(trained):
    video = next((trained / "raw").rglob("*.mp4"))
    with pytest.raises(ActcliError, match=r"more than 100,000 windows; make the step longer \(--every\)"):
        predict([video], PredictOptions(weights_path(trained / "run"), every_seconds=1e-9), WORKERS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_guesses": 0}, "num_guesses is 0"),
        ({"every_seconds": 0.0}, "every_seconds is 0.0; it has to be more than 0"),
        ({"window_seconds": 1.0}, "belongs to every_seconds"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ActcliError, match=message):
        PredictOptions(tmp_path / "model.safetensors", **options)


def test_a_folder_without_videos_is_refused(trained, tmp_path):
    with pytest.raises(ActcliError, match="there is no video in"):
        predict([tmp_path], PredictOptions(weights_path(trained / "run")), WORKERS)


def test_a_model_that_needs_flow_is_refused_in_a_sentence(tmp_path):
    model = create_model("tsn", num_classes=2, num_frames=2, backbone="resnet18", modality="flow")
    save_weights(model, tmp_path / "flow.safetensors")
    with pytest.raises(ActcliError, match="tsn sees flow, and predict makes RGB frames only"):
        predict([tmp_path / "a.mp4"], PredictOptions(tmp_path / "flow.safetensors"), WORKERS)


def test_weights_without_names_give_numbers_and_say_what_they_assume(trained, tmp_path):
    model = create_model("tsn", num_classes=3, num_frames=2, backbone="resnet18")
    save_weights(model, tmp_path / "bare.safetensors", {"size": 32})
    notes = []
    video = next((trained / "raw").rglob("*.mp4"))
    [found] = predict([video], PredictOptions(tmp_path / "bare.safetensors"), WORKERS, note=notes.append)
    assert sorted(guess.class_name for guess in found.guesses) == ["0", "1", "2"]
    assert sum(guess.probability for guess in found.guesses) == pytest.approx(1.0)
    assert "short side of 256" in notes[0]
    assert np.isfinite([guess.probability for guess in found.guesses]).all()


def test_the_top_of_the_package_predicts(trained):
    import actcli

    file = next((trained / "raw").rglob("*.mp4"))
    [found] = actcli.predict([file], weights_path(trained / "run"), num_guesses=2)
    assert (found.path, len(found.guesses), found.problem) == (str(file), 2, "")


def test_an_overlay_has_every_picture_and_a_bar_below(trained, tmp_path):
    file = next((trained / "raw").rglob("*.mp4"))
    parts = [
        Prediction(str(file), (Guess("<left>", 0.9), Guess("right", 0.1)), 0.0, 0.4),
        Prediction(str(file), (Guess("right", 0.8),), 0.4, 0.8),
    ]
    assert write_overlay(file, parts, tmp_path / "out.mp4") == 8
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(56, 64, 3)] * 8


def test_the_bar_has_the_colour_of_each_part_and_a_mark_at_the_time():
    parts = [Prediction("", (Guess("a", 1.0),), 0.0, 1.0), Prediction("", (Guess("b", 1.0),), 1.0, 2.0)]
    bar = draw_overlay(np.zeros((80, 100, 3), np.uint8), parts, 0.5, 2.0)[-4]
    assert (tuple(bar[5]), tuple(bar[90])) == tuple(class_colours(parts).values())
    assert len(set(class_colours(parts).values())) == 2
    assert tuple(bar[25]) == (255, 255, 255)


def test_a_video_of_which_nothing_was_said_has_no_overlay(tmp_path):
    with pytest.raises(ActcliError, match=r"broken\.mp4 has no overlay: no picture\."):
        write_overlay(tmp_path / "broken.mp4", [Prediction("broken.mp4", problem="no picture")], tmp_path / "out.mp4")
