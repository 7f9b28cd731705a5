"""Epsilon of what was spent, and the noise that a budget asks for. The arithmetic is Opacus'."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from opacus.accountants import PRVAccountant, RDPAccountant

Spent = Sequence[tuple[float, float, int]]
"""(noise multiplier, sampling rate, steps) of Gaussian mechanisms, one after the other; at a rate of 1 all are in."""

ORDERS = [1 + fifth / 5 for fifth in range(1, 50)] + [*range(11, 32), 32, 40, 48, 64, 96, 128, 192, 256, 384, 512]
"""Opacus' own are closer together, which takes three times as long, and end at 63, too soon for a small epsilon."""
MOST_NOISE = 1e6
TOLERANCE = 1e-3
"""Relative, of the noise multiplier that `noise_for` finds."""
_ONE = threading.Lock()
"""Python's warning filters are the process's; sites of a simulation are threads of one."""


def rdp_epsilon(spent: Spent, delta: float) -> float:
    """Upper bound of epsilon by Renyi DP (Mironov et al. 2019, arXiv:1908.10530). Decides what is refused."""
    accountant = RDPAccountant()
    accountant.history = list(spent)
    with _quiet():
        return float(accountant.get_epsilon(delta, alphas=ORDERS)) if spent else 0.0


def prv_epsilon(spent: Spent, delta: float) -> float:
    """Upper bound of epsilon by privacy loss random variables (Gopi et al. 2021, arXiv:2106.02848): tighter, slower.

    At most `rdp_epsilon`, which is returned where the numbers are beyond this method.
    """
    other = rdp_epsilon(spent, delta)
    accountant = PRVAccountant()
    accountant.history = list(spent)
    try:
        with _quiet():
            return min(other, float(accountant.get_epsilon(delta))) if spent else 0.0
    except (RuntimeError, ValueError, ArithmeticError, MemoryError):
        return other


@lru_cache
def noise_for(
    epsilon: float, delta: float, rate: float, steps: int, also: tuple[tuple[float, float, int], ...] = ()
) -> float:
    """Smallest noise multiplier at which `steps` steps at sampling `rate`, and `also`, spend at most `epsilon` (RDP).

    Raises ValueError where no noise is enough, since `also` alone spends it.
    """

    def spends(sigma: float) -> float:
        return rdp_epsilon([*also, (sigma, rate, steps)], delta)

    low, high = 0.0, 1.0
    while not spends(high) <= epsilon:  # so that NaN is no budget kept
        low, high = high, 2 * high
        if high > MOST_NOISE:
            least = rdp_epsilon(also, delta)
            raise ValueError(f"epsilon={epsilon:g}: too small for any noise; what else is counted spends {least:.2g}")
    while high - low > TOLERANCE * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spends(middle) <= epsilon else (middle, high)
    return high


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus takes logarithms of 0 where a rate is 1, as meant, and says when the best order is an outer one."""
    with _ONE, warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        warnings.filterwarnings("ignore", "Optimal order is the")
        yield
