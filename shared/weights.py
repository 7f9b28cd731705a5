"""Weights of a run that do not come from a step: the first, which follow from its seed, and the average of rounds."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gliofed.shared.config import RunConfig
from gliofed.shared.seeding import seed_of
from gliofed.shared.tasks import model_of


def initial_model(config: RunConfig) -> nn.Module:
    """Build the model with the first weights, which follow from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(config.seed, "weights"))
        return model_of(config)


def average_of_rounds(
    average: Mapping[str, Tensor], weights: Mapping[str, Tensor], decay: float | None, round: int
) -> dict[str, Tensor]:
    """Take a round's weights into the moving average of those of the rounds before; empty where `decay` is None.

    The average a_r is that of Kingma and Ba 2015 (arXiv:1412.6980, section 7.2), without the bias of its start at zero:

        a_r = sum of d^(r - i) w_i / sum of d^(r - i),  i = 1 ... r
            = a_(r-1) + (1 - d) / (1 - d^r) (w_r - a_(r-1))

    >>> average_of_rounds({"w": torch.tensor(3.0)}, {"w": torch.tensor(6.0)}, 0.5, 2)  # (0.5 * 3 + 6) / 1.5
    {'w': tensor(5.)}
    """
    if decay is None:
        return {}
    part = (1 - decay) / (1 - decay**round)
    return {name: average.get(name, new).double().lerp(new.double(), part).float() for name, new in weights.items()}
