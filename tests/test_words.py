"""Numbers in sentences."""

import pytest

from actcli.words import counted


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [
        (1, "epoch", "1 epoch"),
        (2, "epoch", "2 epochs"),
        (0, "clip", "0 clips"),
        (1, "class", "1 class"),
        (3, "class", "3 classes"),
    ],
)
def test_one_is_singular(number, noun, text):
    assert counted(number, noun) == text
