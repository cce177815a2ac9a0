import itertools
import json
import os
import shutil
import zlib
from dataclasses import replace

import av
import numpy as np
import pytest
import simplejpeg
from killing import run_until

from actcli.errors import ActcliError
from actcli.ingest import DatasetCard, ExtractOptions, disk, extract_dataset, payload_path, read_manifest
from actcli.ingest import extract as extract_module
from actcli.ingest.executors import Crash
from actcli.ingest.extract import _locked
from actcli.ingest.failure import ClipFailure
from actcli.ingest.ledger import Ledger
from actcli.ingest.outcome import ClipOutcome
from actcli.ingest.payload import PayloadWriter


def manifest_rows(frames_dir, modality="rgb"):
    return read_manifest(frames_dir, modality).to_pylist()


def payloads(frames_dir):
    return {path.name: path.read_bytes() for path in frames_dir.rglob("*.mjpeg")}


@pytest.fixture
def raw_copy(tiny_raw, tmp_path):
    return shutil.copytree(tiny_raw, tmp_path / "raw")


def test_every_clip_gets_a_row_and_a_whole_file(tiny_options):
    options = tiny_options()
    summary = extract_dataset(options)
    rows = manifest_rows(options.frames_dir)
    assert summary.listed == 24
    assert summary.counts == {"ok": 24, "partial": 0, "failed": 0, "missing": 0}
    assert [row["key"] for row in rows] == [f"{number:09d}" for number in range(24)]
    assert summary.frames == sum(row["num_frames"] for row in rows) == 24 * 8
    for row in rows:
        data = payload_path(options.frames_dir, row["key"]).read_bytes()
        assert len(data) == row["bytes"] == sum(row["frame_sizes"])
        last = data[len(data) - row["frame_sizes"][-1] :]
        assert simplejpeg.decode_jpeg_header(last) == (48, 64, "YCbCr", "420")
        assert (row["width"], row["height"], row["fps"]) == (64, 48, 12.0)
        assert row["decoder"].startswith("pyav ")


def test_manifest_repeats_the_annotations(tiny_options):
    options = tiny_options()
    extract_dataset(options)
    row = manifest_rows(options.frames_dir)[0]
    assert row["source_id"] == row["path"] == "train/growing/00004.mp4"
    assert (row["label"], row["class_name"], row["splits"]) == (0, "growing", [("1", "train")])


def test_card_says_what_was_done(tiny_options):
    options = tiny_options(quality=80)
    extract_dataset(options)
    card = DatasetCard.read(options.frames_dir)
    assert card.name == "tiny"
    assert card.classes == ("growing", "moving down", "moving left", "moving right", "moving up", "shrinking")
    assert card.flip_swaps == (("moving right", "moving left"),)
    assert card.split_sets == {"1": ("train", "val")}
    assert card.extraction["rgb"].settings["quality"] == 80
    assert "av" in card.extraction["rgb"].versions


def test_all_executors_give_the_same_files_and_manifest(tiny_options, tmp_path):
    extract_dataset(tiny_options(frames_dir=tmp_path / "a"))
    extract_dataset(tiny_options(frames_dir=tmp_path / "b", executor="processes", workers=2))
    assert payloads(tmp_path / "a") == payloads(tmp_path / "b")
    assert (tmp_path / "a/manifest.parquet").read_bytes() == (tmp_path / "b/manifest.parquet").read_bytes()


def test_damaged_clips_become_rows_with_their_reason(raw_copy, tiny_options):
    clips = sorted(raw_copy.rglob("*.mp4"))
    clips[0].write_bytes(b"")
    clips[1].write_bytes(clips[1].read_bytes()[:400])
    clips[2].write_text("<html>403 Forbidden</html>")
    options = tiny_options(raw_dir=raw_copy)
    summary = extract_dataset(options)
    assert summary.counts == {"ok": 21, "partial": 0, "failed": 3, "missing": 0}
    assert [(clip.key, clip.status, clip.stage) for clip in summary.failed] == [
        (f"{number:09d}", "failed", "open") for number in range(3)
    ]
    assert sum(row["status"] == "failed" for row in manifest_rows(options.frames_dir)) == 3
    assert not payload_path(options.frames_dir, "000000000").exists()


def test_a_second_run_does_nothing_and_retry_takes_up_only_the_failed(raw_copy, tiny_options):
    clip = sorted(raw_copy.rglob("*.mp4"))[3]
    whole = clip.read_bytes()
    clip.write_bytes(whole[:300])
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    clip.write_bytes(whole)
    again = extract_dataset(options)
    assert (again.already_done, again.counts["failed"]) == (24, 1)
    mended = extract_dataset(replace(options, retry_failed=True))
    assert (mended.already_done, mended.counts["ok"]) == (23, 24)


def test_retry_failed_before_the_end_of_a_run_is_refused(tiny_options):
    with pytest.raises(ActcliError, match="without --retry-failed first"):
        extract_dataset(tiny_options(retry_failed=True))


def test_a_clip_that_was_missing_and_appears_is_extracted_by_the_same_command(raw_copy, tiny_options, tmp_path):
    clips = sorted(raw_copy.rglob("*.mp4"))
    rows = [f"{clip.relative_to(raw_copy)},{clip.parts[-2]},{clip.parts[-3]}" for clip in clips]
    (raw_copy / "list.csv").write_text("\n".join(["path,label,split", *rows]))
    clip = clips[3]
    clip.rename(tmp_path / "elsewhere.mp4")
    options = tiny_options(raw_dir=raw_copy)
    first = extract_dataset(options)
    assert (first.counts["ok"], first.counts["missing"], first.already_done) == (23, 1, 0)
    assert b'"missing"' not in (options.frames_dir / "extract.jsonl").read_bytes()
    (tmp_path / "elsewhere.mp4").rename(clip)
    second = extract_dataset(options)
    assert (second.counts["ok"], second.counts["missing"], second.already_done) == (24, 0, 23)


def test_a_missing_clip_that_an_earlier_version_noted_is_looked_up_anew(tiny_options):
    options = tiny_options()
    extract_dataset(options)
    whole = read_manifest(options.frames_dir)
    body = b'{"key":"000000003","source_id":"x","status":"missing","stage":"find","error":"FileNotFoundError"'
    with (options.frames_dir / "extract.jsonl").open("ab") as ledger:
        ledger.write(body + b',"crc32":"%08x"}\n' % zlib.crc32(body))
    assert extract_dataset(options).already_done == 23
    assert read_manifest(options.frames_dir) == whole


def test_a_lost_file_is_extracted_again(tiny_options):
    options = tiny_options()
    extract_dataset(options)
    before = payloads(options.frames_dir)
    payload_path(options.frames_dir, "000000005").unlink()
    payload_path(options.frames_dir, "000000006").write_bytes(b"half")
    assert extract_dataset(options).already_done == 22
    assert payloads(options.frames_dir) == before


def test_changed_options_are_refused_by_name(tiny_options):
    extract_dataset(tiny_options())
    with pytest.raises(ActcliError, match=r"extracted with --short-side 256, not 32: continue with --short-side 256"):
        extract_dataset(tiny_options(short_side=32))


def test_another_dataset_in_the_same_folder_is_refused(tiny_options):
    extract_dataset(tiny_options())
    with pytest.raises(ActcliError, match="holds tiny, not other"):
        extract_dataset(tiny_options(dataset="other"))


def test_all_problems_are_reported_at_once(tiny_options, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ActcliError) as error:
        extract_dataset(
            tiny_options(raw_dir=tmp_path / "no", frames_dir=tmp_path / "file", short_side=3, quality=0, fps=0)
        )
    for part in ("--short-side is 3", "--quality is 0", "--fps is 0", "file is not a folder", "There is no folder"):
        assert part in str(error.value)


def test_a_dump_that_is_not_there_is_said_once(tmp_path):
    with pytest.raises(ActcliError) as error:
        extract_dataset(ExtractOptions("mine", tmp_path / "raw", tmp_path / "f", from_frames=(tmp_path / "no",)))
    assert str(error.value) == f"There is no folder {tmp_path}/no; --from-frames takes the folder of an existing dump."


def test_a_full_disk_is_foreseen(tiny_options, monkeypatch):
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ActcliError, match=r"has 1\.0 kB free, and tiny needs about \d+\.\d [kM]B there"):
        extract_dataset(tiny_options())


def test_annotations_without_any_clip_are_refused(tmp_path, tiny_options):
    raw = tmp_path / "jester"
    raw.mkdir()
    (raw / "jester-v1-labels.csv").write_text("A\n")
    (raw / "jester-v1-train.csv").write_text("1;A\n")
    (raw / "jester-v1-validation.csv").write_text("2;A\n")
    with pytest.raises(ActcliError, match=r"None of the 2 listed clips is in .*20bn-jester-v1/1"):
        extract_dataset(tiny_options(dataset="jester", raw_dir=raw))


def test_a_second_extraction_into_the_folder_is_refused(tiny_options):
    options = tiny_options()
    options.frames_dir.mkdir()
    with _locked(options.frames_dir), pytest.raises(ActcliError, match="Another extraction is writing"):
        extract_dataset(options)


def test_a_torn_last_ledger_line_is_forgiven(tiny_options):
    options = tiny_options()
    extract_dataset(options)
    before = (options.frames_dir / "manifest.parquet").read_bytes()
    ledger = options.frames_dir / "extract.jsonl"
    ledger.write_bytes(ledger.read_bytes()[:-40])
    assert extract_dataset(options).already_done == 23
    assert (options.frames_dir / "manifest.parquet").read_bytes() == before
    assert all(json.loads(line) for line in ledger.read_text().splitlines())


def test_a_damaged_ledger_line_is_named(tiny_options):
    options = tiny_options()
    extract_dataset(options)
    ledger = options.frames_dir / "extract.jsonl"
    ledger.write_text("nonsense\n" + ledger.read_text())
    with pytest.raises(ActcliError, match="Line 1 of"):
        extract_dataset(options)


def test_a_growing_folder_appends_keys(raw_copy, tiny_options):
    options = tiny_options(raw_dir=raw_copy)
    extract_dataset(options)
    before = {row["source_id"]: row["key"] for row in manifest_rows(options.frames_dir)}
    new = raw_copy / "train" / "growing" / "00000 first.mp4"
    shutil.copy(raw_copy / "train" / "growing" / "00004.mp4", new)
    summary = extract_dataset(options)
    after = {row["source_id"]: row["key"] for row in manifest_rows(options.frames_dir)}
    assert summary.already_done == 24
    assert after == before | {"train/growing/00000 first.mp4": "000000024"}


def test_odd_file_names_pass_through(raw_copy, tiny_options):
    names = ["a b#1%d&?.mp4", "quote'\"<b>.mp4", "naïve 動画.mp4", "-rf.mp4", os.fsdecode(b"bytes \xff.mp4")]
    source = raw_copy / "train" / "growing" / "00004.mp4"
    for name in names:
        shutil.copy(source, source.with_name(name))
    options = tiny_options(raw_dir=raw_copy, executor="processes", workers=2)
    assert extract_dataset(options).counts["ok"] == 29
    ids = {row["source_id"] for row in manifest_rows(options.frames_dir)}
    assert {"train/growing/naïve 動画.mp4", "train/growing/bytes \\xff.mp4"} <= ids


def test_layout_folders_writes_the_same_jpegs_as_files(tiny_options, tmp_path):
    extract_dataset(tiny_options(frames_dir=tmp_path / "stream"))
    extract_dataset(tiny_options(frames_dir=tmp_path / "files", layout="folders"))
    stream = payload_path(tmp_path / "stream", "000000002").read_bytes()
    folder = payload_path(tmp_path / "files", "000000002", layout="folders")
    names = sorted(path.name for path in folder.iterdir())
    assert names == [f"img_{number:05d}.jpg" for number in range(1, 9)]
    assert b"".join((folder / name).read_bytes() for name in names) == stream
    assert extract_dataset(tiny_options(frames_dir=tmp_path / "files", layout="folders")).already_done == 24


def test_short_side_and_upscale_decide_the_size(tiny_options, tmp_path):
    for name, changes, size in (
        ("small", {"short_side": 24}, (32, 24)),
        ("as_is", {"short_side": 96}, (64, 48)),
        ("large", {"short_side": 96, "upscale": True}, (128, 96)),
    ):
        extract_dataset(tiny_options(frames_dir=tmp_path / name, **changes))
        row = manifest_rows(tmp_path / name)[0]
        assert (row["width"], row["height"]) == size


def test_fps_resamples_in_time(tiny_options):
    options = tiny_options(fps=6)
    extract_dataset(options)
    assert {(row["num_frames"], row["fps"]) for row in manifest_rows(options.frames_dir)} == {(4, 6.0)}


def test_settings_without_effect_are_mentioned(tiny_options):
    summary = extract_dataset(tiny_options(flow_bound=8.0))
    assert summary.warnings == ("--flow-bound has no effect here.",)


def test_flow_has_one_field_less_than_frames(tiny_options):
    options = tiny_options()
    extract_dataset(options)
    summary = extract_dataset(replace(options, modality="flow", flow_bound=5.0))
    assert summary.counts["ok"] == 24
    for rgb, flow in zip(manifest_rows(options.frames_dir), manifest_rows(options.frames_dir, "flow"), strict=True):
        assert (rgb["key"], rgb["num_frames"], rgb["bound"]) == (flow["key"], flow["num_frames"] + 1, 0.0)
        assert len(flow["frame_sizes"]) == 2 * flow["num_frames"]
        assert flow["bound"] == 5.0
        assert payload_path(options.frames_dir, flow["key"], "flow").stat().st_size == flow["bytes"]
    assert set(DatasetCard.read(options.frames_dir).extraction) == {"rgb", "flow"}


def test_flow_of_a_sprite_points_where_it_goes(tiny_options):
    options = tiny_options(modality="flow")
    extract_dataset(options)
    for row in manifest_rows(options.frames_dir, "flow"):
        data = payload_path(options.frames_dir, row["key"], "flow").read_bytes()
        ends = np.cumsum([0, *row["frame_sizes"]])
        planes = [simplejpeg.decode_jpeg(data[a:b], "GRAY") for a, b in itertools.pairwise(ends)]
        x, y = (np.mean([plane.astype(float) - 127.5 for plane in planes[axis::2]]) for axis in (0, 1))
        direction = {"moving left": -x, "moving right": x, "moving up": -y, "moving down": y}
        if row["class_name"] in direction:
            assert direction[row["class_name"]] > 0.5


def test_progress_counts_every_clip(tiny_options):
    seen = []
    extract_dataset(tiny_options(), progress=seen.append)
    assert [state.done for state in seen] == list(range(1, 25))
    assert (seen[-1].total, seen[-1].failed, seen[-1].frames) == (24, 0, 192)


def test_interrupt_leaves_everything_resumable(tiny_options, tmp_path):
    options = tiny_options(executor="processes", workers=2)

    def interrupt(state):
        if state.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_dataset(options, progress=interrupt)
    with pytest.raises(ActcliError, match="run actcli extract to its end"):
        read_manifest(options.frames_dir)
    assert extract_dataset(options).already_done == 5
    extract_dataset(tiny_options(frames_dir=tmp_path / "whole"))
    assert payloads(options.frames_dir) == payloads(tmp_path / "whole")


RUN_EXTRACT = """
import sys
from pathlib import Path
from actcli.ingest import ExtractOptions, extract_dataset
extract_dataset(ExtractOptions("tiny", Path(sys.argv[1]), Path(sys.argv[2]), workers=2))
"""


def test_killed_and_continued_equals_an_undisturbed_run(tiny_raw, tiny_options, tmp_path):
    victim = tmp_path / "victim"
    run_until("actcli.ingest.ledger:Ledger", "append", 3, RUN_EXTRACT, tiny_raw, victim)
    assert (victim / "extract.jsonl").read_bytes().count(b"\n") == 3
    assert not (victim / "manifest.parquet").exists()
    assert extract_dataset(tiny_options(frames_dir=victim, executor="processes", workers=2)).already_done == 3
    extract_dataset(tiny_options(frames_dir=tmp_path / "undisturbed"))
    assert payloads(victim) == payloads(tmp_path / "undisturbed")
    for name in ("manifest.parquet", "dataset.json", "keys.jsonl"):
        assert (victim / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    assert not list(victim.rglob("*.tmp"))


def test_partial_clips_are_kept_and_marked_on_request(tiny_raw, tiny_options, tmp_path):
    raw = shutil.copytree(tiny_raw, tmp_path / "raw")
    cut_after_frames(raw / "train/growing/00004.mp4", 5)
    options = tiny_options(raw_dir=raw)
    assert extract_dataset(options).counts == {"ok": 23, "partial": 0, "failed": 1, "missing": 0}
    kept = extract_dataset(replace(options, keep_partial=True, retry_failed=True))
    assert kept.counts == {"ok": 23, "partial": 1, "failed": 0, "missing": 0}
    row = manifest_rows(options.frames_dir)[0]
    assert (row["status"], row["partial"], row["stage"], row["num_frames"]) == ("ok", True, "decode", 5)
    assert row["message"]


def cut_after_frames(path, count):
    """Drop what follows the first ``count`` frames of an mp4 whose index comes first."""
    with av.open(str(path)) as old:
        moved = path.with_suffix(".moved")
        with av.open(str(moved), "w", format="mp4", options={"movflags": "faststart"}) as new:
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    new.mux(packet)
    with av.open(str(moved)) as container:
        position = [packet.pos for packet in container.demux(video=0) if packet.size][count]
    path.write_bytes(moved.read_bytes()[:position])
    moved.unlink()


def dying(keys, times):
    """Stands in for ``run_tasks``: whoever works on one of ``keys`` dies, ``times`` times each; notes the runs."""
    runs, left = [], dict.fromkeys(keys, times)

    def run_tasks(executor, function, tasks, *, workers, timeout):
        runs.append((workers, []))
        for task in tasks:
            runs[-1][1].append(getattr(task, "key", None))
            if left.get(getattr(task, "key", None), 0):
                left[task.key] -= 1
                yield task, Crash("WorkerDied", "ended by SIGSEGV")
            else:
                yield task, function(task)

    return run_tasks, runs


def test_a_clip_whose_worker_died_is_tried_once_more_alone(tiny_options, monkeypatch):
    run_tasks, runs = dying(["000000004", "000000007"], 1)
    monkeypatch.setattr(extract_module, "run_tasks", run_tasks)
    assert extract_dataset(tiny_options(workers=3)).counts["ok"] == 24
    assert runs[1:] == [(1, ["000000004", "000000007"])]


def test_a_clip_that_kills_its_worker_twice_is_failed_until_the_same_command_is_given_again(tiny_options, monkeypatch):
    run_tasks, _ = dying(["000000004"], 2)
    monkeypatch.setattr(extract_module, "run_tasks", run_tasks)
    summary = extract_dataset(tiny_options())
    assert summary.counts == {"ok": 23, "partial": 0, "failed": 1, "missing": 0}
    assert (summary.failed[0].key, summary.failed[0].stage) == ("000000004", "worker")
    again = extract_dataset(tiny_options())
    assert (again.already_done, again.counts["ok"]) == (23, 24)


def test_a_disk_that_fills_up_stops_with_one_sentence_and_resumes(tiny_options, monkeypatch):
    options = tiny_options()
    whole, written = PayloadWriter.commit, []

    def commit(self):
        if len(written) == 7:
            raise OSError(28, "No space left on device")
        written.append(self)
        whole(self)

    monkeypatch.setattr(PayloadWriter, "commit", commit)
    with pytest.raises(ActcliError, match=r"failed after 7 clips: No space left on device\. Mend this"):
        extract_dataset(options)
    monkeypatch.undo()
    assert extract_dataset(options).already_done == 7


def test_unknown_words_are_refused_all_at_once(tiny_options):
    with pytest.raises(ActcliError) as error:
        extract_dataset(tiny_options(modality="depth", layout="zip", executor="slurm"))
    for word in ("'depth'", "'zip'", "'slurm'"):
        assert f"{word} is unknown" in str(error.value)


# --- Nodes of a cluster -----------------------------------------------------------------------------------------------


@pytest.fixture
def node(monkeypatch):
    """``node(change)``: extraction on a node that does ``change`` after each clip, and may give another outcome."""

    def become(change):
        def run_tasks(executor, function, tasks, *, workers, timeout):
            assert executor == "ray"
            for task in tasks:
                yield task, change(task, function(task))

        monkeypatch.setattr(extract_module, "run_tasks", run_tasks)
        monkeypatch.setattr("actcli.ingest.preflight.check_executor", lambda executor: None)

    return become


def test_a_node_that_writes_to_its_own_disk_ends_the_run(node, tiny_options, monkeypatch):
    options = tiny_options(executor="ray")
    monkeypatch.setattr(extract_module, "SHARED_SECONDS", 0.0)

    def elsewhere(task, outcome):
        if task.key == "000000003":
            payload_path(options.frames_dir, task.key).unlink()
        return outcome

    node(elsewhere)
    with pytest.raises(ActcliError, match=r"wrote .*000000003\.mjpeg, and it is not here: give --frames-dir a folder"):
        extract_dataset(options)
    assert len(Ledger(options.frames_dir / "extract.jsonl").outcomes) == 3


def test_a_file_that_is_seen_late_is_waited_for(node, tiny_options, monkeypatch):
    options = tiny_options(executor="ray")

    def late(task, outcome):
        if task.key == "000000003":
            path = payload_path(options.frames_dir, task.key)
            path.rename(path.with_suffix(".late"))
            monkeypatch.setattr(extract_module.time, "sleep", lambda seconds: path.with_suffix(".late").rename(path))
        return outcome

    node(late)
    assert extract_dataset(options).counts["ok"] == 24


def test_a_node_that_does_not_see_the_videos_ends_the_run(node, tiny_options):
    lost = ClipFailure("find", "FileNotFoundError", "there is no such file")
    node(lambda task, outcome: ClipOutcome.lost(task.key, task.source_id, lost))
    with pytest.raises(ActcliError, match=r"does not see .*, which is here: give --raw-dir a folder"):
        extract_dataset(tiny_options(executor="ray"))


@pytest.mark.parametrize("text", [None, "- pip", "a: [", "3: x"])
def test_a_runtime_environment_that_is_none_is_refused_before_work(tiny_options, tmp_path, monkeypatch, text):
    if text is not None:
        (tmp_path / "env.yaml").write_text(text)
    monkeypatch.setattr("actcli.ingest.preflight.check_executor", lambda executor: None)
    with pytest.raises(ActcliError, match=r"--runtime-env .*env\.yaml"):
        extract_dataset(tiny_options(executor="ray", runtime_env=tmp_path / "env.yaml"))


def test_a_runtime_environment_without_ray_is_noted(tiny_options, tmp_path):
    (tmp_path / "env.yaml").write_text("pip: [actcli]")
    summary = extract_dataset(tiny_options(executor="serial", runtime_env=tmp_path / "env.yaml"))
    assert "--runtime-env has no effect without --executor ray." in summary.warnings
