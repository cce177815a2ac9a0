import pytest

from actcli.errors import ActcliError
from actcli.shards.manifest import Clip, _check_labels


def clip(number: int, label: int, split: str) -> Clip:
    return Clip(f"{number:09d}", f"clip {number}", label, "", {"1": split}, 32, 24, 12.0, None, None)


def test_training_clips_without_a_class_are_named_before_anything_is_written():
    clips = [clip(number, -1, "train") for number in range(7)]
    with pytest.raises(ActcliError, match=r"7 clips for training or validation have no class: 'clip 0', .*'clip 4', …"):
        _check_labels(clips)


def test_test_clips_may_lack_a_class():
    _check_labels([clip(1, -1, "test"), clip(2, 0, "train")])
