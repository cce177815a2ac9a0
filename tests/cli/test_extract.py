"""``extract`` and its neighbours on own datasets: what is printed, what is refused, what ``--dry-run`` says."""

import shutil

import pandas as pd
import pytest


@pytest.fixture
def own(raw_workspace, tmp_path):
    """A workspace with an own dataset of two classes, six clips each, that comes without splits."""
    clips = sorted((raw_workspace / "raw" / "tiny").rglob("*.mp4"))
    for number in range(12):
        target = tmp_path / "raw" / "mine" / ("clap" if number % 2 else "wave") / f"rec{number // 4}_{number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[number], target)
    return tmp_path


def splits_of(root, dataset="mine"):
    table = pd.read_parquet(root / "frames" / dataset / "manifest.parquet")
    return {row.path: dict(row.splits)["1"] for row in table.itertuples()}


def test_classes_and_clips_of_each_split_are_told(own, actcli):
    result = actcli(f"extract --executor serial --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "2 classes, clips found: train 10, val 2" in result.output
    assert "2 classes, clips extracted: train 10, val 2" in result.output


def test_a_dry_run_counts_and_estimates_and_writes_nothing(own, actcli):
    result = actcli(f"extract --dry-run --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "to do: 12 of 12 listed clips" in result.output
    assert "of disk and" in result.output and "of memory" in result.output
    assert [line.split()[0:6:2] for line in result.output.splitlines() if "wave" in line and "raw" not in line]
    assert not (own / "frames").exists()


def test_added_clips_leave_the_others_on_their_side(own, actcli):
    actcli(f"extract --executor serial --workspace {own}")
    before = splits_of(own)
    for number in range(10):
        shutil.copy(own / "raw/mine/wave/rec0_0.mp4", own / f"raw/mine/wave/0new{number}.mp4")
    assert actcli(f"extract --executor serial --workspace {own}").exit_code == 0
    after = splits_of(own)
    assert before.items() <= after.items()
    assert sum(split == "val" for path, split in after.items() if path.startswith("wave")) == 3


def test_recordings_stay_together(own, actcli):
    result = actcli("extract", "--executor", "serial", "--group-by", r"(rec\d)_", "--workspace", own)
    assert result.exit_code == 0, result.output
    sides = {(path.split("/")[1][:4], split) for path, split in splits_of(own).items()}
    assert len(sides) == 3
    assert {split for _, split in sides} == {"train", "val"}


def test_frames_in_folders_get_lists_that_are_a_dataset_again(own, actcli, tmp_path):
    result = actcli(f"extract --layout folders --executor serial --workspace {own}")
    assert "next: actcli shard" not in result.output
    lists = {path.name for path in (own / "frames" / "mine").glob("*.txt")}
    assert lists == {"train_videofolder.txt", "val_videofolder.txt", "category.txt"}
    again = f"extract --dataset again --raw-dir {own / 'frames' / 'mine'} --executor serial --workspace {own}"
    assert actcli(again).exit_code == 0
    first, second = (pd.read_parquet(own / "frames" / name / "manifest.parquet") for name in ("mine", "again"))
    facts = ["label", "class_name", "num_frames", "checksum"]
    assert sorted(map(tuple, first[facts].values)) == sorted(map(tuple, second[facts].values))
    assert "wave" in set(second["class_name"])


@pytest.mark.parametrize("given", ["parent", "roots"])
def test_a_dump_alone_is_a_dataset(own, actcli, given):
    actcli(f"extract --layout folders --executor serial --workspace {own}")
    for row in pd.read_parquet(own / "frames/mine/manifest.parquet").itertuples():
        folder = own / "dump" / dict(row.splits)["1"] / row.class_name / row.key
        shutil.copytree(own / "frames/mine/0" / row.key, folder)
    result = actcli(f"extract --dataset other --from-frames {own / 'dump'} --executor serial --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "2 classes, clips extracted: train 10, val 2" in result.output


def test_a_class_without_training_clips_is_refused(own, actcli):
    raw = own / "raw" / "split"
    shutil.copytree(own / "raw/mine/wave", raw / "train" / "wave")
    shutil.copytree(own / "raw/mine/clap", raw / "val" / "clap")
    result = actcli(f"extract --dataset split --workspace {own}")
    assert result.exit_code == 1
    assert "1 of 2 classes have no clip for training: 'clap'" in result.output


def test_a_class_without_validation_clips_is_noted(own, actcli):
    raw = own / "raw" / "split"
    for name in ("wave", "clap"):
        shutil.copytree(own / "raw/mine" / name, raw / "train" / name)
    shutil.copytree(own / "raw/mine/clap", raw / "val" / "clap")
    result = actcli(f"extract --dataset split --executor serial --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "note: 1 class without a clip for validation: 'wave'" in result.output


def test_another_name_of_a_known_dataset_is_not_taken_for_an_own_one(own, actcli):
    (own / "raw" / "ssv2").mkdir()
    result = actcli(f"extract --dataset ssv2 --workspace {own}")
    assert result.exit_code == 1
    assert "did you mean sthv2? If its files lie in raw/ssv2, say: --dataset sthv2 --raw-dir raw/ssv2" in result.output


def test_an_unknown_dataset_is_an_error_of_datasets(actcli):
    result = actcli("datasets nosuch")
    assert result.exit_code == 1
    assert "There is no dataset 'nosuch'" in result.output


def test_names_cannot_steer_the_terminal(own, actcli):
    evil = "\x1b]0;owned\x07\x1b[31m[bold]\u202e.mp4"
    (own / "raw/mine/wave" / evil).write_bytes(b"")
    result = actcli(f"extract --executor serial --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "\x1b]0" not in result.output and "\x07" not in result.output and "\u202e" not in result.output
    assert r"\x1b]0;owned\x07\x1b[31m[bold]\u202e.mp4" in result.output


def test_names_that_are_no_text_are_printed_as_escapes(own, actcli):
    (own / "raw/mine/wave" / "b\udcff.mp4").write_bytes(b"")
    result = actcli(f"extract --executor serial --workspace {own}")
    assert result.exit_code == 0, result.output
    assert r"b\xff.mp4" in result.output


def test_a_demo_into_a_file_is_refused(actcli, tmp_path):
    (tmp_path / "file").write_text("")
    result = actcli(f"demo {tmp_path / 'file'}")
    assert result.exit_code == 1
    assert "is a file" in result.output


def test_a_demo_ends_with_the_step_that_fails(actcli, tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr("actcli.cli.demo_command.NUM_CLIPS", 12)
    monkeypatch.setattr("actcli.cli._app.app", lambda arguments, **_: steps.append(arguments[0]) or 3)
    assert actcli(f"demo {tmp_path / 'new'}").exit_code == 3
    assert steps == ["extract"]


def test_classes_that_lost_their_clips_are_named_at_the_end(own, actcli):
    for path in (own / "raw/mine/wave").iterdir():
        path.write_bytes(b"")
    result = actcli(f"extract --executor serial --workspace {own}")
    assert "note: None of the clips for training of 1 class could be extracted: 'wave'" in result.output


def test_classes_that_are_left_for_later_are_not_said_to_be_lost(own, actcli):
    result = actcli(f"extract --executor serial --classes wave --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "6 clips are left for later by --classes" in result.output
    assert "could be extracted" not in result.output


def test_what_a_dataset_expects_fits_the_terminal(actcli, monkeypatch):
    monkeypatch.setattr("actcli.cli.datasets_command.console.width", 60)
    lines = actcli("datasets folder").output.splitlines()
    assert max(map(len, lines)) <= 60
    assert not any(line and line[0] != " " for line in lines[2:])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--group-by (", "--group-by '(' is not a regular expression"),
        ("--val-fraction 1", "--val-fraction is 1; use a number between 0 and 1"),
        ("--from-frames absent", "There is no folder absent"),
    ],
)
def test_a_wrong_flag_is_the_only_problem(own, actcli, flags, sentence):
    result = actcli(f"extract {flags} --workspace {own}")
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if not line.startswith("extracting"))
    assert sentence in line


def test_a_folder_of_videos_is_no_dump_of_frames(own, actcli):
    result = actcli(f"extract --dataset new --from-frames {own / 'raw' / 'mine'} --workspace {own}")
    assert result.exit_code == 1
    assert "holds videos, not frames: give it with --raw-dir" in result.output


def test_lists_beside_a_dump_are_a_dataset(own, actcli):
    actcli(f"extract --layout folders --executor serial --workspace {own}")
    frames, lists = own / "frames/mine", own / "raw/listed"
    lists.mkdir()
    for path in frames.glob("*.txt"):
        shutil.copy(path, lists)
    result = actcli(f"extract --dataset listed --from-frames {frames} --executor serial --workspace {own}")
    assert result.exit_code == 0, result.output
    assert "2 classes, clips extracted: train 10, val 2" in result.output
