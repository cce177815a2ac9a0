import shlex

import pytest

from actcli.errors import ActcliError
from actcli.ingest.card import DatasetCard, Extraction
from actcli.shards.manifest import Clip, _check_labels, extract_command


def clip(number: int, label: int, split: str) -> Clip:
    return Clip(f"{number:09d}", f"clip {number}", label, "", {"1": split}, 32, 24, 12.0, None, None)


def test_training_clips_without_a_class_are_named_before_anything_is_written():
    clips = [clip(number, -1, "train") for number in range(7)]
    with pytest.raises(ActcliError, match=r"7 clips for training or validation have no class: 'clip 0', .*'clip 4', …"):
        _check_labels(clips)


def test_test_clips_may_lack_a_class():
    _check_labels([clip(1, -1, "test"), clip(2, 0, "train")])


def test_the_command_that_restores_frames_names_every_root_of_a_dump(tmp_path):
    frames_dir = tmp_path / "frames" / "sthv1"
    settings = {"short_side": 0, "upscale": False, "fps": None, "from_frames": "/a b/u --from-frames /a b/v"}
    extraction = {"rgb": Extraction(settings, {})}
    card = DatasetCard("sthv1", ("wave",), "allowed", (), {"1": ("train",)}, extraction)
    assert shlex.split(extract_command(frames_dir, card, "rgb")) == [
        *("actcli", "extract", "--dataset", "sthv1", "--short-side", "0"),
        *("--from-frames", "/a b/u", "--from-frames", "/a b/v"),
    ]
