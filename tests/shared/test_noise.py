"""The noisy mean against Flower's arithmetic and what its docstring promises; secrets against another generator."""

import math

import numpy as np
import pytest
import torch
from flwr.supercore.differential_privacy import compute_clip_model_update, compute_stdv
from torch import Tensor
from torch.testing import assert_close

from gliofed.shared.noise import NOISE, SAMPLING, new_secret, noisy_mean, secret_generator

CLIP, CPU = 0.5, torch.device("cpu")
MODEL = {"a": torch.zeros(30, 20), "b": torch.zeros(7)}
Update = dict[str, Tensor]


def updates(norms: list[float]) -> list[Update]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for norm in norms:
        update = {name: torch.randn(t.shape, generator=generator, dtype=torch.float64) for name, t in MODEL.items()}
        made.append({name: tensor * norm / distance(update) for name, tensor in update.items()})
    return made


def distance(one: Update, other: Update | None = None) -> float:
    parts = [tensor - (0 if other is None else other[name]) for name, tensor in one.items()]
    return math.sqrt(sum(part.double().square().sum().item() for part in parts))


def mean(given: list[Update], sigma: float, secret: int = 1) -> Update:
    model = {name: tensor.double() for name, tensor in MODEL.items()}  # nothing is rounded at the end
    return noisy_mean([update.__getitem__ for update in given], model, CLIP, sigma, secret, len(given))


def test_equals_flowers_clipping() -> None:
    """Of three updates one is within the clip: it stays as it is."""
    given = updates([0.2, 0.8, 40.0])
    arrays = [[tensor.numpy().copy() for tensor in update.values()] for update in given]
    for array in arrays:
        compute_clip_model_update(array, [tensor.numpy() for tensor in MODEL.values()], CLIP)
    for place, found in enumerate(mean(given, sigma=0.0).values()):
        assert_close(found, sum(torch.from_numpy(array[place]) for array in arrays) / 3)


def test_noise_has_flowers_deviation_for_twice_the_clip() -> None:
    """Flower's hides an update that is taken away; ours one that is replaced, which moves the sum twice as far."""
    given = updates([0.2, 0.8, 40.0])
    clean, noisy = mean(given, 0.0), [mean(given, 1.5, secret) for secret in range(20)]
    drawn = torch.cat([(one[name] - clean[name]).flatten() for one in noisy for name in MODEL])
    assert drawn.std().item() == pytest.approx(compute_stdv(1.5, 2 * CLIP, 3), rel=0.03)  # 12140 numbers: .6 %
    assert abs(drawn.mean().item()) < 0.03 * drawn.std().item()


def test_a_replaced_update_moves_the_sum_by_twice_the_clip_at_most() -> None:
    """The worst case is reached: an update and its opposite."""
    first, second = updates([3.0, 0.4])
    opposite = {name: -tensor for name, tensor in first.items()}
    with_first, with_opposite = mean([first, second], 1.0), mean([opposite, second], 1.0)
    assert 2 * distance(with_first, with_opposite) == pytest.approx(2 * CLIP, rel=1e-9)


def test_what_is_not_finite_counts_as_zero() -> None:
    """Its norm would make everything NaN; that it was there must not show."""
    broken, good = updates([1.0, 0.3])
    broken["a"][3, 4] = math.nan
    assert_close(mean([broken, good], 0.0), {name: tensor / 2 for name, tensor in good.items()})


def test_noise_is_the_secrets() -> None:
    """Two secrets have no noise in common; 256 bits of one are all used."""
    (given,) = updates([0.3])
    assert_close(mean([given], 1.0, 5), mean([given], 1.0, 5), rtol=0, atol=0)
    other = mean([given], 1.0, 5 + 2**200)
    assert all(bool((other[name] != tensor).all()) for name, tensor in mean([given], 1.0, 5).items())


def test_a_secret_repeats_in_test_mode_only() -> None:
    assert new_secret(3, "a", 1) == new_secret(3, "a", 1)
    assert len({new_secret(3, "a", 1), new_secret(3, "b", 1), new_secret(3, "a", 2), new_secret(4, "a", 1)}) == 4
    assert new_secret(None, "a", 1) != new_secret(None, "a", 1)


def test_every_bit_of_a_secret_counts() -> None:
    """manual_seed drops all but 32 bits on a CPU; who sees noise could try those. NumPy's twister is the oracle."""
    low, high = (secret_generator(secret, NOISE, CPU) for secret in (7, 7 + 2**200))
    assert not torch.equal(torch.randn(4, generator=low), torch.randn(4, generator=high))
    oracle = np.random.MT19937()
    words = np.random.SeedSequence(7, spawn_key=(SAMPLING,)).generate_state(624)
    oracle.state = {**oracle.state, "state": {"key": words, "pos": 624}}
    ours = torch.empty(700, dtype=torch.int32).random_(generator=secret_generator(7, SAMPLING, CPU))
    assert ours.tolist() == (oracle.random_raw(700) & 0x7FFFFFFF).tolist()
