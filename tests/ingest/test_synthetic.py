import av
import numpy as np

from actcli.ingest import make_synthetic
from actcli.ingest.synthetic import CLASS_PAIRS, _draw_clip


def test_a_quarter_of_each_class_is_validation(tiny_raw):
    counts = {(p.parent.parent.name, p.parent.name): 0 for p in tiny_raw.rglob("*.mp4")}
    for path in tiny_raw.rglob("*.mp4"):
        counts[path.parent.parent.name, path.parent.name] += 1
    assert set(counts.values()) == {1, 3}
    assert {name for _, name in counts} == {name for pair in CLASS_PAIRS for name in pair}


def test_clips_are_short_h264_videos(tiny_raw):
    with av.open(str(next(tiny_raw.rglob("*.mp4")))) as container:
        stream = container.streams.video[0]
        assert (stream.codec.name, stream.width, stream.height, stream.frames) == ("h264", 64, 48, 8)


def test_the_same_seed_gives_the_same_files(tmp_path):
    one, two = (make_synthetic(tmp_path / name, 12, seed=3, size=(32, 32), num_frames=4) for name in "ab")
    other = make_synthetic(tmp_path / "c", 12, seed=4, size=(32, 32), num_frames=4)
    name = "train/growing/00004.mp4"
    assert (one / name).read_bytes() == (two / name).read_bytes() != (other / name).read_bytes()


def test_a_class_is_the_time_reverse_of_its_partner():
    for label in (0, 2, 4):
        forward, backward = (_draw_clip(np.random.default_rng(7), label + odd, (48, 32), 6) for odd in (0, 1))
        assert all(np.array_equal(a, b) for a, b in zip(forward, backward[::-1], strict=True))
        assert not np.array_equal(forward[0], forward[-1])
