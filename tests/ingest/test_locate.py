import os
from pathlib import Path

import pytest

from actcli.ingest import ClipRecord
from actcli.ingest.datasets.kinetics import clip_names
from actcli.ingest.locate import DumpFinder, locate_in


def record(source_id: str, class_name: str = "", split: str = "train", names: tuple[str, ...] = ()) -> ClipRecord:
    return ClipRecord(source_id, source_id, 0, class_name, {"1": split}, other_names=names)


KINETICS = clip_names("-_x_0000112", 103, 113)
IN_KINETICS = record(KINETICS[0], "passing American football (in game)", "val", KINETICS[1:])


def found(roots: tuple[Path, ...], *records: ClipRecord, modality: str = "rgb") -> dict[str, str]:
    return DumpFinder(roots, records, modality).locate()


@pytest.mark.parametrize("folder", ["Archery/v_Archery_g01_c01", "v_Archery_g01_c01"])
def test_a_dump_is_found_by_class_and_name_or_by_name(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    clip = record("Archery/v_Archery_g01_c01.avi", "Archery")
    assert found((tmp_path,), clip) == {clip.source_id: str(tmp_path / folder)}


@pytest.mark.parametrize("folder", ["42", "000042"])
def test_a_dump_of_numbered_clips_is_found_padded_or_not(tmp_path, folder):
    (tmp_path / folder).mkdir()
    assert found((tmp_path,), record("42")) == {"42": str(tmp_path / folder)}


@pytest.mark.parametrize("name", ["-_x_0000112_000103_000113", "-_x_0000112_103_113", "-_x_0000112_103", "-_x_0000112"])
@pytest.mark.parametrize(
    "above",
    [
        "passing American football (in game)",
        "passing_American_football_(in_game)",
        "passing_American_football_in_game",
        "rawframes_val/passing_American_football_in_game",
        "frames/val_256",
        "",
    ],
)
def test_a_kinetics_dump_is_found_under_every_customary_name(tmp_path, above, name):
    folder = tmp_path / above / name
    folder.mkdir(parents=True)
    assert found((tmp_path,), IN_KINETICS) == {IN_KINETICS.source_id: str(folder)}


def test_several_roots_are_searched(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"rawframes_{split}" / split).mkdir(parents=True)
    clips = [record(split, split=split) for split in ("train", "val")]
    roots = (tmp_path / "rawframes_train", tmp_path / "rawframes_val")
    assert found(roots, *clips) == {split: str(tmp_path / f"rawframes_{split}" / split) for split in ("train", "val")}


def test_the_folder_of_the_clips_own_split_is_preferred(tmp_path):
    for split in ("train", "val"):
        (tmp_path / f"rawframes_{split}" / "abc").mkdir(parents=True)
    assert found((tmp_path,), record("abc", split="val")) == {"abc": str(tmp_path / "rawframes_val" / "abc")}


def test_a_name_that_two_clips_share_is_not_looked_for_without_its_class(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "b" / "1").mkdir(parents=True)
    assert found((tmp_path,), record("a/1.mp4", "a"), record("b/1.mp4", "b")) == {"b/1.mp4": str(tmp_path / "b" / "1")}


def test_clips_that_are_not_there_are_found_missing_without_asking_for_each(tmp_path, monkeypatch):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "5.mp4").touch()
    calls = []
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: calls.append(path) or listdir(path))
    monkeypatch.setattr(os, "stat", lambda *arguments: pytest.fail("a clip was asked for"))
    clips = [record(f"{folder}/{number}.mp4") for folder in ("train", "gone") for number in range(1000)]
    assert locate_in(tmp_path, clips) == {"train/5.mp4": "train/5.mp4"}
    assert len(calls) == 2
