import numpy as np
import simplejpeg

from actcli.ingest.lookalikes import MAX_DISTANCE, clip_bits, joined, lookalikes, read_bits, sampled_frames


def test_lookalikes_differ_in_few_bits():
    rng = np.random.default_rng(0)
    left = rng.random((300, 252)) < 0.5
    right = rng.random((200, 252)) < 0.5
    for row, distance in ((5, 0), (6, MAX_DISTANCE), (7, MAX_DISTANCE + 1)):
        right[row] = left[100 + row]
        right[row, :distance] ^= True
    assert lookalikes(left, right) == [(105, 5), (106, 6)]


def test_all_pairs_are_compared_across_blocks(monkeypatch):
    monkeypatch.setattr("actcli.ingest.lookalikes._BLOCK", 7)
    bits = np.random.default_rng(1).random((50, 252)) < 0.5
    assert lookalikes(bits, bits) == [(number, number) for number in range(50)]


def test_pairs_are_joined_into_sets():
    assert joined([(9, 4), (1, 2), (2, 7)]) == [[1, 2, 7], [4, 9]]
    assert joined([]) == []


def test_sampled_frames_are_spread_and_exist():
    assert sampled_frames(8) == [1, 3, 5, 7]
    assert sampled_frames(1) == [0, 0, 0, 0]


def test_flat_pictures_are_not_compared():
    flat = simplejpeg.encode_jpeg(np.full((64, 64, 3), 7, np.uint8))
    assert clip_bits([flat] * 4) is None


def test_a_clip_that_cannot_be_read_has_no_bits():
    picture = simplejpeg.encode_jpeg(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    found = read_bits(lambda number: [picture if number else b"no jpeg"] * 4, 2)
    assert found[0] is None
    assert found[1] is not None and found[1].shape == (252,)
