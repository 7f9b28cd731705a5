"""Noise that hides something: its seed is the operating system's, and is written down nowhere."""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gliofed.shared.seeding import seed_of

NOISE, SAMPLING = 0, 1
"""Streams of a secret."""


def new_secret(test_seed: int | None, *keys: str | int) -> int:
    """Make a secret: 256 bits of the operating system's, in test mode from the seed and `keys`."""
    return secrets.randbits(256) if test_seed is None else seed_of(test_seed, *keys)


def secret_generator(secret: int, stream: int, device: torch.device) -> torch.Generator:
    """PyTorch's generator, seeded with all of `secret`; each `stream` has numbers of its own.

    On a CPU manual_seed keeps 32 bits, which can be tried out one by one. So the whole state of the generator, a
    Mersenne Twister, is set: its 624 words lie after three numbers of 8 bytes.
    """
    words = np.random.SeedSequence(secret, spawn_key=(stream,)).generate_state(624)
    made = torch.Generator(device)
    if device.type != "cpu":
        return made.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)  # Philox takes 64 bits
    made.manual_seed(0)
    state = made.get_state().numpy().copy()
    state[24 : 24 + 8 * len(words)] = words.astype(np.uint64).view(np.uint8)
    return made.set_state(torch.from_numpy(state))


def noisy_mean(
    updates: Sequence[Callable[[str], Tensor]],
    model: Mapping[str, Tensor],
    clip: float,
    sigma: float,
    secret: int,
    count: int = 1,
) -> dict[str, Tensor]:
    """Sum of updates, each clipped to the L2 norm `clip`, with Gaussian noise, over `count`: all weigh the same.

    `count` is a constant of the run: one that is not there counts as zero, else the divisor would tell who was.

    An update gives a tensor by its name in `model`, which gives shapes. The noise of the sum has a deviation of
    2 clip sigma: another update in place of one moves the sum by 2 clip at most, so `sigma` is the noise multiplier.
    Sums in double precision. An update that is not finite counts as zero.
    Source: McMahan et al. 2018, arXiv:1710.06963, with the sensitivity of a replaced participant.

    >>> from torch import tensor
    >>> updates = [{"w": tensor([30.0, 40.0])}, {"w": tensor([0.6, 0.0])}]
    >>> noisy_mean([each.__getitem__ for each in updates], updates[0], clip=1.0, sigma=0.0, secret=0, count=2)
    {'w': tensor([0.6000, 0.4000])}
    """
    generator = secret_generator(secret, NOISE, torch.device("cpu"))
    factors = [_clip_factor(update, model, clip) for update in updates]
    mean = {}
    for name, mine in model.items():
        total = torch.normal(0.0, 2 * clip * sigma, mine.shape, generator=generator, dtype=torch.float64)
        for update, factor in zip(updates, factors, strict=True):
            if factor:
                total += update(name).double() * factor
        mean[name] = (total / count).to(mine.dtype)
    return mean


def _clip_factor(update: Callable[[str], Tensor], model: Mapping[str, Tensor], clip: float) -> float:
    norm = math.sqrt(sum(update(name).double().square().sum().item() for name in model))
    return clip / max(norm, clip) if math.isfinite(norm) else 0.0
