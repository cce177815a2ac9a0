"""Curves that TensorBoard reads."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actcli.engine.curves import Curves


def drawn(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_was_drawn(tmp_path):
    curves = Curves(tmp_path / "tensorboard", first_step=0)
    curves.add(1, {"train/loss": 0.5, "train/waiting": 0.25})
    curves.add(2, {"train/loss": 0.125})
    assert drawn(tmp_path / "tensorboard") == {"train/loss": [(1, 0.5), (2, 0.125)], "train/waiting": [(1, 0.25)]}
    curves.close()


def test_a_run_that_goes_on_replaces_what_is_after_its_checkpoint(tmp_path):
    for first_step, steps in ((1, (1, 2, 3)), (3, (3, 4))):
        curves = Curves(tmp_path, first_step)
        for step in steps:
            curves.add(step, {"loss": step + first_step})
        curves.close()
    assert drawn(tmp_path) == {"loss": [(1, 2), (2, 3), (3, 6), (4, 7)]}
