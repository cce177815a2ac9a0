"""What is continued, extended, locked, stopped and refused around a training."""

import os
import re
import shutil
import signal
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from actcli.engine import preparation, trainer
from actcli.engine.checkpoints import load_checkpoint
from actcli.engine.hardware import Hardware, describe_crowd
from actcli.engine.history import is_finished
from actcli.engine.initial import build_model
from actcli.engine.memory import micro_batch_size, step_memory
from actcli.engine.runs import LAST_CHECKPOINT, RunConfig, find_run, read_state, weights_path
from actcli.engine.signals import Interrupted
from actcli.engine.training import continued_run, describe_finished, new_run, newest_run, same_run
from actcli.errors import ActcliError
from actcli.files import folder_lock
from actcli.models import backbones, create_model, load_weights, save_weights
from actcli.models.backbones.resnet import resnet18
from actcli.shards import ShardSet

from .helpers import HARDWARE, RESNET, Reporter, run, start_script, tiny_config, weights_of

STOPPED = """
import os, signal, sys
from pathlib import Path
import pytest
import torch
from engine.helpers import HARDWARE, Reporter, train
from narrow import use_narrow_networks
from actcli.engine.runs import RunConfig
from actcli.engine.signals import Interrupted

class Stopping(Reporter):
    def step(self, report):
        if (report.epoch, report.step) == (0, 1):
            os.kill(os.getpid(), signal.SIGTERM)

torch.set_num_threads(1)
use_narrow_networks(pytest.MonkeyPatch())
run_dir = Path(sys.argv[1])
try:
    train(RunConfig.read(run_dir), run_dir, HARDWARE, Stopping())
except Interrupted as stopped:
    print(stopped, flush=True)
    sys.exit(128 + stopped.signal_number)
"""


@pytest.fixture(scope="module")
def whole(tiny_shards, tmp_path_factory):
    """A run of two epochs and its configuration."""
    run_dir = tmp_path_factory.mktemp("runs") / "whole"
    config = tiny_config(tiny_shards)
    run(config, run_dir)
    return config, run_dir


class Stopper(Reporter):
    """Sends a signal at a step."""

    def __init__(self, at, number=signal.SIGINT):
        super().__init__()
        self.at, self.number = at, number

    def step(self, report):
        if (report.epoch, report.step) == self.at:
            os.kill(os.getpid(), self.number)


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_keeps_it(whole, tmp_path, number):
    config, whole_dir = whole
    with pytest.raises(Interrupted, match=r"stopped in epoch 2, after step 3 of 4.*--resume --run-dir") as stopped:
        run(config, tmp_path, reporter=Stopper((1, 3), number))
    assert stopped.value.signal_number == number
    progress = load_checkpoint(tmp_path / LAST_CHECKPOINT)["progress"]
    assert (progress["epoch"], progress["step"]) == (1, 3)
    run(RunConfig.read(tmp_path), tmp_path, resume=True)
    found, expected = weights_of(tmp_path), weights_of(whole_dir)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_signal_during_validation_keeps_the_epoch(whole, tmp_path):
    config, whole_dir = whole

    class InValidation(Reporter):
        def validating(self, done, total):
            if not self.validations:
                os.kill(os.getpid(), signal.SIGINT)
            super().validating(done, total)

    with pytest.raises(Interrupted, match="epoch 1, after step 4 of 4"):
        run(config, tmp_path, reporter=InValidation())
    run(RunConfig.read(tmp_path), tmp_path, resume=True)
    found, expected = weights_of(tmp_path), weights_of(whole_dir)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert read_state(tmp_path).epochs == read_state(whole_dir).epochs


def test_the_checkpoint_of_a_run_that_went_on_is_that_of_an_undisturbed_one(whole, tmp_path):
    config, whole_dir = whole
    with pytest.raises(Interrupted):
        run(config, tmp_path, reporter=Stopper((1, 1)))
    run(RunConfig.read(tmp_path), tmp_path, resume=True)
    assert (tmp_path / LAST_CHECKPOINT).read_bytes() == (whole_dir / LAST_CHECKPOINT).read_bytes()


def test_handlers_are_restored_and_a_second_signal_stops_at_once(whole, tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    class Twice(Reporter):
        def step(self, report):
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)  # heard before it returns: two at the same moment would be one

    with pytest.raises(KeyboardInterrupt) as stopped:
        run(whole[0], tmp_path, reporter=Twice())
    assert not isinstance(stopped.value, Interrupted)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_process_told_to_end_says_what_is_kept(whole, tmp_path):
    config, _ = whole
    config.write(tmp_path / "run")
    (tmp_path / "script.py").write_text(STOPPED)
    done = start_script(tmp_path / "script.py", tmp_path / "run")
    assert done.returncode == 128 + signal.SIGTERM
    assert "stopped in epoch 1, after step 1 of 4" in done.stdout and "is kept in" in done.stdout
    assert (tmp_path / "run" / LAST_CHECKPOINT).exists()


def test_training_in_a_thread_leaves_signals_alone(whole, tmp_path):
    done = []
    thread = threading.Thread(target=lambda: done.append(run(whole[0], tmp_path)))
    thread.start()
    thread.join()
    assert len(done[0]) == 2


# -- continuing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(whole, tmp_path):
    """A folder with a finished run and a newer unfinished one."""
    config, _ = whole
    run(replace(config, recipe=replace(config.recipe, epochs=1)), tmp_path / "finished")
    with pytest.raises(Interrupted):
        run(config, tmp_path / "unfinished", reporter=Stopper((0, 2)))
    return tmp_path


def test_the_newest_unfinished_run_is_continued(runs):
    assert newest_run(runs) == runs / "unfinished"
    continued_run(newest_run(runs)).train(HARDWARE, Reporter())
    assert is_finished(runs / "unfinished")


def test_where_all_are_finished_the_newest_says_so_and_how_to_extend_it(runs):
    continued_run(newest_run(runs)).train(HARDWARE, Reporter())
    told = describe_finished(continued_run(newest_run(runs)))
    assert "unfinished is finished: 2 epochs" in told
    assert "--epochs 4" in told


def test_a_finished_run_is_extended_and_its_configuration_says_so(whole, tmp_path):
    config, _ = whole
    run(config, tmp_path)
    longer = continued_run(tmp_path, 3)
    assert describe_finished(longer) is None
    history = longer.train(HARDWARE, Reporter())
    assert len(history) == 3
    state = read_state(tmp_path)
    assert (state.finished, len(state.epochs), state.config.recipe.epochs) == (True, 3, 3)
    assert state.config.changes == ("3 epochs instead of 2, from epoch 3 on",)


def test_fewer_epochs_than_were_done_are_refused(whole):
    with pytest.raises(ActcliError, match="has done 2 epochs already"):
        continued_run(whole[1], 1)


def test_the_same_settings_find_the_run_whatever_the_memory_chose(runs, whole):
    config, _ = whole
    assert RunConfig.read(runs / "unfinished").micro_batch is not None
    assert same_run(config, runs).run_dir == runs / "unfinished"
    other = replace(config, recipe=replace(config.recipe, seed=5))
    assert same_run(other, runs).resume is False


def test_a_new_run_says_that_an_interrupted_one_waits(runs, whole):
    notes = []
    new_run(whole[0], runs, None, notes.append)
    assert "unfinished was interrupted with these settings" in notes[0]


def test_without_a_run_there_is_nothing_to_continue(tmp_path):
    with pytest.raises(ActcliError, match=r"no run in .* to continue\. Start one: actcli train --model tsm"):
        newest_run(tmp_path)


# -- one at a time, on a disk that may be full ----------------------------------------------------------------------


def test_two_trainings_in_one_folder_are_refused(whole, tmp_path):
    with folder_lock(tmp_path, "Another training"), pytest.raises(ActcliError, match="Another training is writing to"):
        run(whole[0], tmp_path)


def test_a_run_is_read_by_the_training_that_may_write_it_alone(whole, tmp_path):
    run(whole[0], tmp_path)
    (tmp_path / LAST_CHECKPOINT).write_bytes(b"another training is at it")
    with folder_lock(tmp_path, "Another training"), pytest.raises(ActcliError, match="Another training is writing to"):
        run(whole[0], tmp_path, resume=True)


def test_a_run_that_appeared_while_another_was_being_prepared_is_not_written_over(whole, tmp_path):
    run(whole[0], tmp_path)
    before = (tmp_path / LAST_CHECKPOINT).read_bytes()
    with pytest.raises(ActcliError, match="is a run already"):
        trainer.train(whole[0], tmp_path, HARDWARE, Reporter())
    assert (tmp_path / LAST_CHECKPOINT).read_bytes() == before


def test_processes_that_cannot_share_a_batch_are_refused_before_they_are_started(whole, tmp_path, monkeypatch):
    monkeypatch.setattr("actcli.engine.trainer.launch", lambda *_: pytest.fail("processes were started"))
    with pytest.raises(ActcliError, match="cannot be shared by 99 processes"):
        trainer.train(whole[0], tmp_path, replace(HARDWARE, devices=99), Reporter())


def test_more_processes_than_cores_are_told(monkeypatch):
    monkeypatch.setattr("actcli.engine.hardware.os.cpu_count", lambda: 2)
    assert describe_crowd(Hardware("cpu", devices=2)) is None
    assert describe_crowd(Hardware("cpu", devices=3)).startswith("3 processes share 2 cores")


def test_a_folder_that_cannot_be_written_to_is_refused_before_the_first_step(whole, tmp_path):
    (tmp_path / "file").write_text("")
    reporter = Reporter()
    with pytest.raises(ActcliError, match="nothing can be written to"):
        trainer.train(whole[0], tmp_path / "file" / "run", HARDWARE, reporter)
    assert reporter.steps == []


def test_a_disk_without_room_for_the_run_is_refused_before_the_first_step(whole, tmp_path, monkeypatch):
    usage = SimpleNamespace(total=10**9, used=10**9, free=10**6)
    monkeypatch.setattr("actcli.files.shutil.disk_usage", lambda folder: usage)
    monkeypatch.setitem(backbones._BUILDERS, "resnet18", resnet18)  # of 45 MB
    reporter = Reporter()
    with pytest.raises(ActcliError, match=r"takes about 26. MB and its disk has 1 MB free"):
        trainer.train(whole[0], tmp_path / "run", HARDWARE, reporter)
    assert reporter.steps == []


def test_a_run_that_goes_on_needs_no_room_for_what_it_replaces(whole, tmp_path, monkeypatch):
    config, _ = whole
    run(config, tmp_path)
    held = sum(path.stat().st_size for path in (tmp_path / "checkpoints").iterdir())
    monkeypatch.setattr("actcli.files.shutil.disk_usage", lambda folder: SimpleNamespace(free=held))
    assert len(continued_run(tmp_path, 3).train(HARDWARE, Reporter())) == 3


def test_a_full_disk_stops_with_the_last_checkpoint_whole(whole, tmp_path, monkeypatch):
    config, _ = whole
    with pytest.raises(Interrupted):
        run(config, tmp_path, reporter=Stopper((0, 2)))
    before = (tmp_path / LAST_CHECKPOINT).read_bytes()
    monkeypatch.setattr(torch, "save", lambda state, file: _full(file))
    with pytest.raises(ActcliError, match=r"\(No space left on device\)\. The one before it is whole"):
        run(RunConfig.read(tmp_path), tmp_path, resume=True)
    assert (tmp_path / LAST_CHECKPOINT).read_bytes() == before
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if "tmp" in path.name] == []


def _full(file):
    file.write(b"half")
    raise OSError(28, "No space left on device")


def test_no_flipped_bit_in_a_checkpoint_or_in_weights_is_believed(whole, tmp_path):
    checkpoint, weights = (tmp_path / name for name in ("last.ckpt", "best.safetensors"))
    model = create_model("vit", num_classes=3, num_frames=2, backbone="vit_ti16", image_size=32)
    save_weights(model, weights, {"classes": ["a", "b", "c"]})
    checkpoint.write_bytes((whole[1] / LAST_CHECKPOINT).read_bytes())
    for path, read in ((checkpoint, load_checkpoint), (weights, load_weights)):
        data = path.read_bytes()
        intact = read(path)
        for number in range(12):
            at = int(len(data) * (number + 0.5) / 12)
            path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            try:
                found = read(path)
            except ActcliError:
                continue
            assert path is checkpoint  # between the files of the zip archive lie bytes that hold nothing
            assert same_tensors(found["model"], intact["model"])
        path.write_bytes(data)


def same_tensors(first, second):
    return all(torch.equal(first[name], value) for name, value in second.items())


def test_a_checkpoint_that_lacks_a_field_is_refused(whole, tmp_path):
    run(whole[0], tmp_path)
    state = load_checkpoint(tmp_path / LAST_CHECKPOINT)
    del state["optimizer"], state["version"]
    trainer.save_checkpoint(tmp_path / LAST_CHECKPOINT, state)
    with pytest.raises(ActcliError, match="is no checkpoint of this training"):
        continued_run(tmp_path, 3).train(HARDWARE, Reporter())


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_dry_run_finds_a_damaged_checkpoint_and_a_damaged_index_before_it_times_anything(
    whole, tiny_shards, tmp_path, monkeypatch
):
    monkeypatch.setattr("actcli.engine.training.plan_training", None)  # would be called next
    shutil.copytree(whole[1], tmp_path / "run")
    damage(tmp_path / "run" / LAST_CHECKPOINT)
    with pytest.raises(ActcliError, match=r"last\.ckpt is"):
        continued_run(tmp_path / "run", 3).plan(HARDWARE)
    shards = shutil.copytree(tiny_shards, tmp_path / "shards")
    damage(shards / "train.index.parquet")
    with pytest.raises(ActcliError, match=r"train\.index\.parquet: "):
        new_run(tiny_config(str(shards)), tmp_path / "runs", None).plan(HARDWARE)


def test_a_run_is_found_by_name_or_folder_and_else_the_newest_is_named(whole, tmp_path):
    with pytest.raises(ActcliError, match=r"there is no run in .* Train one first"):
        find_run(tmp_path, None)
    assert find_run(whole[1].parent, None) == whole[1]
    assert find_run(whole[1].parent, "whole") == whole[1]
    assert find_run(tmp_path, str(whole[1])) == whole[1]
    with pytest.raises(
        ActcliError, match=r"there is no run 'hole' in .*; the newest are: whole. Choose one with --run"
    ):
        find_run(whole[1].parent, "hole")


def test_a_run_says_how_far_it_came(whole, tmp_path):
    assert read_state(whole[1]).in_words() == "finished"
    shutil.copytree(whole[1], tmp_path / "run")
    (tmp_path / "run" / "finished").unlink()
    assert read_state(tmp_path / "run").in_words() == "interrupted after 2 of 2 epochs"
    (tmp_path / "run" / "history.jsonl").write_text("{")
    with pytest.raises(ActcliError, match=r"history\.jsonl cannot be read"):
        read_state(tmp_path / "run")


def test_weights_have_the_rights_that_new_files_get(whole, tmp_path):
    (tmp_path / "new").touch()
    assert weights_path(whole[1]).stat().st_mode == (tmp_path / "new").stat().st_mode


# -- classes and memory ------------------------------------------------------------------------------------------------


def test_a_classifier_of_other_class_names_is_refused_and_names_them(tiny_shards, tmp_path):
    classes = list(ShardSet.open(tiny_shards).card.classes)
    model = create_model("tsm", num_classes=6, num_frames=2, **RESNET)
    save_weights(model, tmp_path / "other.safetensors", {"classes": [*classes[:4], "hopping", classes[5]]})
    config = replace(tiny_config(tiny_shards), init=str(tmp_path / "other.safetensors"))
    with pytest.raises(ActcliError, match=rf"1 of the 6 classes .*'hopping' where the dataset has '{classes[4]}'"):
        run(config, tmp_path / "run")


def test_weights_trained_with_other_options_are_told(tiny_shards, tmp_path):
    model = create_model("tsm", num_classes=6, num_frames=2, shift_div=4, **RESNET)
    save_weights(model, tmp_path / "w.safetensors", {})
    notes = []
    config = replace(tiny_config(tiny_shards), init=str(tmp_path / "w.safetensors"))
    build_model(config, ShardSet.open(tiny_shards).card.classes, notes.append)
    assert notes[0].endswith("were trained with other options: shift_div 4 there, 8 here")


def test_a_batch_that_is_cut_updates_like_the_whole(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards, "vit", epochs=1)
    run(replace(config, micro_batch=4), tmp_path / "whole")
    reporter = Reporter()
    run(replace(config, micro_batch=3), tmp_path / "cut", reporter=reporter)
    assert any("each batch of 4 clips goes through the network 3 at a time" in note for note in reporter.notes)
    found, expected = weights_of(tmp_path / "cut"), weights_of(tmp_path / "whole")
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_little_memory_cuts_the_batch_and_the_run_remembers(tiny_shards, tmp_path, monkeypatch):
    config = tiny_config(tiny_shards, epochs=1)
    memory = step_memory({"name": "tsm", "num_classes": 6, "num_frames": 2, **RESNET}, 32)
    monkeypatch.setattr(preparation, "available_memory", lambda device: int(memory.of(2) / 0.75) + 1)
    run(config, tmp_path)
    assert RunConfig.read(tmp_path).micro_batch == 2


@pytest.mark.parametrize(("batch", "fitting", "parts"), [(16, 5, 4), (16, 16, 16), (16, 100, 16), (7, 3, 3), (8, 0, 1)])
def test_parts_are_few_and_of_nearly_equal_size(batch, fitting, parts):
    assert micro_batch_size(batch, fitting) == parts


def test_memory_grows_with_clips_and_pixels():
    small, large = (
        step_memory({"name": "tsm", "num_classes": 6, "num_frames": 2, **RESNET}, size) for size in (32, 64)
    )
    assert large.per_clip == pytest.approx(4 * small.per_clip, rel=0.2)
    assert small.of(3) - small.of(1) == 2 * small.per_clip
    assert small.fixed == large.fixed


def test_memory_is_counted_for_pictures_of_which_one_position_is_left():
    assert step_memory({"name": "masnet", "num_classes": 6, "num_frames": 8}, 32).per_clip > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator is 'tpu'"),
        ({"workers": -1}, "workers -1"),
        ({"checkpoint_minutes": -1.0}, "checkpoint_minutes is -1.0"),
        ({"checkpoint_minutes": float("nan")}, "checkpoint_minutes is nan"),
    ],
)
def test_hardware_that_does_not_exist_is_refused(arguments, message):
    with pytest.raises(ActcliError, match=message):
        Hardware(**arguments)


def test_the_time_of_an_epoch_is_told_once_after_the_first_pass(tiny_shards, tmp_path):
    reporter = Reporter()
    run(tiny_config(tiny_shards), tmp_path, reporter=reporter)
    [(epoch_seconds, seconds_left)] = reporter.foretellings
    assert 0 < epoch_seconds < seconds_left == pytest.approx(2 * epoch_seconds)


@pytest.fixture
def edited(whole, tmp_path):
    """``edited(name, change)``: a copy of the run with one of its files changed."""

    def make(name, change):
        run_dir = shutil.copytree(whole[1], tmp_path / "edited")
        (run_dir / name).write_text(change((run_dir / name).read_text()))
        return run_dir

    return make


def without_seals(text):
    return re.sub(r', "sha256": "\w+"', "", text)


CHANGES = [
    lambda text: text.replace('"epoch": 0', '"epoch": 1'),
    lambda text: text.replace('"epoch": 1', '"epoch": 1 '),
    lambda text: "".join(text.splitlines(keepends=True)[1:]),
    lambda text: "".join(text.splitlines(keepends=True)[::-1]),
    lambda text: text + text,
    lambda text: text.rstrip("\n"),
    lambda text: without_seals(text.splitlines()[0]) + "\n" + text.splitlines()[1] + "\n",
]


@pytest.mark.parametrize("change", CHANGES)
def test_an_edited_history_is_not_believed_and_made_again_from_the_checkpoint(edited, whole, change):
    run_dir = edited("history.jsonl", change)
    with pytest.raises(
        ActcliError, match=r"history\.jsonl is not what was written.*Delete it, and this writes it again"
    ):
        read_state(run_dir)
    assert not is_finished(run_dir)
    (run_dir / "history.jsonl").unlink()
    continued_run(run_dir).train(HARDWARE, Reporter())
    assert read_state(run_dir).epochs == read_state(whole[1]).epochs
    assert is_finished(run_dir)


def test_a_history_without_its_last_epochs_is_that_of_no_finished_run(edited):
    run_dir = edited("history.jsonl", lambda text: text.splitlines(keepends=True)[0])
    assert not is_finished(run_dir)
    with pytest.raises(ActcliError, match=r"finished .*is not the mark of the history\.jsonl there.*Delete both"):
        read_state(run_dir)
    for name in ("finished", "history.jsonl"):
        (run_dir / name).unlink()
    continued_run(run_dir).train(HARDWARE, Reporter())
    assert read_state(run_dir).in_words() == "finished"


def test_a_history_without_checksums_is_read_and_said_to_be_edited(edited, whole):
    run_dir = edited("history.jsonl", without_seals)
    state = read_state(run_dir)
    told = "history.jsonl was edited by hand, or is of an earlier version: it had no checksum"
    assert (state.epochs, state.config.changes) == (read_state(whole[1]).epochs, (told,))
    assert not state.finished
    (run_dir / "finished").write_text("")  # as earlier versions marked the end
    assert read_state(run_dir).finished
    continued_run(run_dir, epochs=3).train(HARDWARE, Reporter())
    assert read_state(run_dir).config.changes[0] == told  # for good
    assert is_finished(run_dir)


@pytest.mark.parametrize("mark", ["", "0" * 64 + "  history.jsonl\n"])
def test_a_mark_of_another_history_makes_no_run_finished(edited, mark):
    run_dir = edited("finished", lambda text: mark)
    assert not is_finished(run_dir)
    with pytest.raises(ActcliError, match=r"finished .*is not the mark of"):
        read_state(run_dir)


def unsealed(text):
    return "".join(text.splitlines(keepends=True)[:-1])


def test_an_edited_configuration_is_not_believed_unless_its_checksum_was_taken_away(tiny_shards, tmp_path):
    config = tiny_config(tiny_shards)
    config.write(tmp_path)
    path = tmp_path / "config.yaml"
    assert RunConfig.read(tmp_path) == config
    edited = path.read_text().replace("batch_size: ", "batch_size: 1", 1)
    for text in (edited, path.read_text() + "\n", path.read_text().replace("\n", "\r\n")):
        path.write_bytes(text.encode())
        with pytest.raises(ActcliError, match=r"not what was written.*delete the last line"):
            RunConfig.read(tmp_path)
    path.write_text(unsealed(edited))
    read = RunConfig.read(tmp_path)
    assert read.recipe.batch_size == int(f"1{config.recipe.batch_size}")
    assert read.changes == ("config.yaml was edited by hand, or is of an earlier version: it had no checksum",)
    read.write(tmp_path)
    assert RunConfig.read(tmp_path) == read  # sealed anew, and still said to be edited


@pytest.mark.parametrize("clips", [0, -3])
def test_a_run_in_passes_of_no_clips_is_refused(tiny_shards, tmp_path, clips):
    tiny_config(tiny_shards).write(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(unsealed(path.read_text()).replace("micro_batch: null", f"micro_batch: {clips}"))
    with pytest.raises(ActcliError, match=f"micro_batch is {clips}; it has to be at least 1"):
        RunConfig.read(tmp_path)
