"""What is done with a batch on the device: normalisation, mixup, cutmix."""

import pytest
import torch

from actcli.errors import ActcliError
from actcli.loaders import Batch, MixUp, Normalise

CLIPS = torch.arange(2 * 2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 1, 2, 4, 5, 3).movedim(-1, -3)


def test_normalising_divides_by_255_and_takes_mean_and_std():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    wanted = (CLIPS.float() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(Normalise(mean, std)(CLIPS), wanted)


def test_bgr_in_full_range_is_mirrored_in_colour_before_the_mean():
    got = Normalise((104, 117, 128), (1, 1, 1), "bgr", 255.0)(CLIPS)
    torch.testing.assert_close(got[:, :, :, 0], CLIPS[:, :, :, 2].float() - 104)
    torch.testing.assert_close(got[:, :, :, 2], CLIPS[:, :, :, 0].float() - 128)


def test_a_mean_of_one_pair_serves_every_flow_channel():
    flow = CLIPS.repeat(1, 1, 1, 2, 1, 1)[:, :, :, :4]
    got = Normalise((127.0, 120.0), (1.0, 2.0), value_range=255.0)(flow)
    torch.testing.assert_close(got[:, :, :, 2], flow[:, :, :, 2].float() - 127)
    torch.testing.assert_close(got[:, :, :, 3], (flow[:, :, :, 3].float() - 120) / 2)


def test_the_result_is_contiguous_and_of_the_type_asked_for():
    got = Normalise((0.5,), (0.5,))(CLIPS, torch.float16)
    assert got.is_contiguous()
    assert got.dtype == torch.float16
    assert -1 <= got.min() < got.max() <= 1


def test_a_mean_that_does_not_fit_the_channels_is_refused():
    with pytest.raises(ActcliError, match="2 values for 3 channels"):
        Normalise((0.5, 0.5), (0.5, 0.5))(CLIPS)


def test_a_two_stream_batch_has_no_single_clips():
    batch = Batch(CLIPS, CLIPS, torch.tensor([0, 1]), torch.tensor([5, 6]))
    with pytest.raises(ActcliError, match=r"batch\.rgb and batch\.flow"):
        _ = batch.clips
    assert len(batch) == 2


STREAMS = (torch.randn(4, 2, 3, 8, 8), torch.randn(4, 2, 4, 8, 8))
LABELS = torch.tensor([0, 1, 2, 3])


def test_mixup_blends_clips_and_targets_by_the_same_weight():
    mixed, targets = MixUp(4, mixup_alpha=1.0)(STREAMS, LABELS, step=3)
    weight = targets[0, 0]
    assert 0 < weight < 1
    torch.testing.assert_close(targets[0], torch.tensor([weight, 0, 0, 1 - weight]))
    for before, after in zip(STREAMS, mixed, strict=True):
        torch.testing.assert_close(after, weight * before + (1 - weight) * before.flip(0))


def test_cutmix_weighs_targets_by_the_area_that_is_left():
    mixed, targets = MixUp(4, mixup_alpha=0.0, cutmix_alpha=1.0)(STREAMS, LABELS, step=1)
    kept = (mixed[0][0] == STREAMS[0][0]).all(0).all(0)
    assert 0 < kept.sum() < 64
    torch.testing.assert_close(targets[0, 0], kept.float().mean())
    assert torch.equal(kept, (mixed[1][0] == STREAMS[1][0]).all(0).all(0))


def test_mixing_depends_on_seed_and_step_alone():
    mix = MixUp(4, seed=5)
    first = mix(STREAMS, LABELS, step=7)
    again = MixUp(4, seed=5)(STREAMS, LABELS, step=7)
    other = mix(STREAMS, LABELS, step=8)
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_without_mixing_targets_are_smoothed_one_hot():
    mixed, targets = MixUp(4, probability=0.0, label_smoothing=0.1)(STREAMS, LABELS, step=0)
    assert torch.equal(mixed[0], STREAMS[0])
    torch.testing.assert_close(targets, torch.eye(4) * 0.9 + 0.025)
