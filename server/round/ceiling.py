"""How far SGD can move a model in a round, whatever its data are: train.clip bounds each of its gradients."""

import math
from collections.abc import Sequence
from statistics import median_low

from gliofed.server.round.fold import ENOUGH
from gliofed.shared.algorithms.optimizers import OPTIMIZERS, rate_of
from gliofed.shared.config import RunConfig

NOTHING = 1e-4
"""An update below this share of its ceiling has no vote: a majority that sends nothing would freeze the model."""
ROUNDING = 1.001
"""Of the clipped norm, of the sums and of the codec: fp16 keeps 11 bits of each value."""


def has_ceiling(config: RunConfig) -> bool:
    """Whether an honest update has one; with AdamW, whose steps ignore scale, and with noise it has a usual size."""
    return not config.private and not OPTIMIZERS[config.optimizer.name].scale_free


def ceiling(config: RunConfig, round: int, steps: int, norm: float) -> float:
    """Largest L2 norm of the update of so many steps from weights of L2 norm `norm`; infinite where there is none.

    PyTorch's step k, with momentum m and weight decay d, from a gradient that is clipped to ||g_k|| <= c:

        b_k = m b_(k-1) + g_k + d w_(k-1),  w_k = w_(k-1) - rate b_k

    By the triangle inequality, with ||w_k|| <= norm + ||w_k - w_0||, the norms of b_k and of w_k - w_0 are at most

        B_k = m B_(k-1) + c + d (norm + D_(k-1)),  D_k = D_(k-1) + rate B_k,  D_0 = 0

    and both are reached where all gradients, and the weights, point one way. B_0 is 0 where optimizer.moments are
    fresh. Else it is what endless steps of the earlier rounds come to, (c + d norm) / (1 - m), from weights as large as
    now. Without decay and with fresh ones D_n is rate * c times the sum of (1 - m^k) / (1 - m).
    """
    if not has_ceiling(config):
        return math.inf
    clip = config.train.clip or 1.0  # without one fold.clip is null too, and this is a unit alone
    rate, momentum, decay = rate_of(config, round), config.optimizer.momentum, config.train.weight_decay
    before = (clip + decay * norm) / (1 - momentum)
    moved, velocity = 0.0, 0.0 if config.optimizer.moments == "fresh" else before
    for _ in range(steps):
        velocity = momentum * velocity + clip + decay * (norm + moved)
        moved += rate * velocity
        if math.isinf(moved):
            break
    return moved * ROUNDING


def reference_share(shares: Sequence[float]) -> float:
    """The size of a round, by those of its updates in shares of their ceilings: the lower median of all that have one.

    No single one of three sets a median. Where fewer send anything it is the ceiling, which follows from the
    configuration and is no usual size: gradients may have any norm below the clip.

    >>> reference_share([0.2, 0.3, 500.0]), reference_share([0.2, 500.0]), reference_share([0.2, 0.0, 0.0])
    (0.3, 1.0, 1.0)
    """
    votes = [share for share in shares if share >= NOTHING]
    return median_low(votes) if len(votes) >= ENOUGH else 1.0
