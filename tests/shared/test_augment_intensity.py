"""Changes of brightness, and modalities left out: within the brain, as strong as asked for, and told to the model."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from small_patches import brain, drawn, only, rng
from torch.testing import assert_close

from gliofed.shared.data.augment import change_intensity, draw_changes


def changed(image, config, rng):
    """One image (T, C, D, H, W), of which the first stays as it was."""
    return change_intensity(image[None].clone(), [drawn(config, rng, image.shape[1])])[0]


INTENSITIES = ["noise", "bias", "gamma"]


@pytest.mark.parametrize("kind", INTENSITIES)
def test_outside_the_brain_stays_zero_and_inside_changes(kind):
    for before in (brain(), brain()[:1]):  # a series, one visit
        after = changed(before, only(**{kind: 0.3}), rng())
        assert after.shape == before.shape and not after[before == 0].any()
        assert torch.isfinite(after).all() and not torch.allclose(after, before)


@pytest.mark.parametrize("kind", INTENSITIES)
def test_an_empty_or_constant_modality_stays_finite(kind):
    """A missing one is all zero; a z-scored scan of one value is too, and a cut may hold one voxel of brain."""
    image = torch.zeros(1, 2, 4, 4, 4)
    image[0, 1, 2, 2, 2] = 5
    after = changed(image, only(**{kind: 0.3}), rng())
    assert torch.isfinite(after).all() and not after[0, 0].any()
    if kind != "noise":
        assert_close(after, image)  # no range: nothing to brighten or to bend


def test_a_bias_field_is_smooth_bounded_and_one_for_all_visits():
    """On signals from a dark 1 to 101, the field is what is divided out; visits share it, modalities do not."""
    image = torch.full((2, 2, 16, 16, 16), 101.0)
    image[:, :, 0, 0, 0] = 1
    field = (changed(image, only(bias=0.3), rng(2)) - 1) / 100
    field[:, :, 0, 0, 0] = field[:, :, 0, 0, 1]
    assert_close(field[0], field[1])
    assert not torch.allclose(field[0, 0], field[0, 1], atol=0.01)
    assert field.min() >= 1 / 1.3 - 1e-4 and field.max() <= 1.3 + 1e-4 and field.std() > 0.01
    assert max(field.diff(dim=axis).abs().max() for axis in (-3, -2, -1)) < 0.1


def test_gamma_bends_between_the_same_ends_and_keeps_the_order():
    image = brain()
    after = changed(image, only(gamma=0.5), rng(3))
    for channel in (0, 1):
        old, new = (part[:, channel][image[:, channel] != 0] for part in (image, after))
        assert_close(torch.stack([old.min(), old.max()]), torch.stack([new.min(), new.max()]))
        assert torch.equal(old.argsort(), new.argsort())  # visits as well: one curve for all
        low, width = old.min(), old.max() - old.min()
        inner = (old > low + 0.05 * width) & (old < low + 0.95 * width)
        exponent = ((new - low) / width)[inner].log() / ((old - low) / width)[inner].log()
        assert exponent.std() < 1e-3 and 1 / 1.5 <= exponent.mean() <= 1.5


def test_noise_is_new_in_each_visit_and_as_strong_as_drawn():
    image = torch.ones(2, 1, 20, 20, 20)
    noise = changed(image, only(noise=0.4), rng()) - image
    generator = rng()
    generator.random()  # whether there is any
    deviation = generator.uniform(0, 0.4)
    assert_allclose(noise.std(), deviation, rtol=0.03)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.05


def test_dropout_never_takes_all():
    """Of those that are there: a modality that a visit lacks must not be the one that stays."""
    present = [True, True, False, True]
    generator = rng()
    seen = {draw_changes(only(dropout=0.7), (1.0,) * 3, present, generator).dropped for _ in range(200)}
    assert seen == {(), (0,), (1,), (3,), (0, 1), (0, 3), (1, 3)}  # every choice of three but all
    assert drawn(only(dropout=1), rng(), channels=1).dropped == ()
