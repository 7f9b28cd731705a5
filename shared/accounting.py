"""Epsilon of what was spent, and the noise that a budget asks for. The arithmetic is Opacus'."""

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Opacus is imported where it is used: it takes seconds to load, and reading a ledger needs none of it.

Spent = Sequence[tuple[float, float, int]]
"""(noise multiplier, sampling rate, steps) of Gaussian mechanisms, one after the other; at a rate of 1 all are in."""

ORDERS = tuple(
    [1 + fifth / 5 for fifth in range(1, 50)] + [*range(11, 32), 32, 40, 48, 64, 96, 128, 192, 256, 384, 512]
)
"""Opacus' own are closer together, which takes three times as long, and end at 63, too soon for a small epsilon."""
MOST_NOISE = 1e6
TOLERANCE = 1e-3
"""Relative, of the noise multiplier that `noise_for` finds."""
_ONE = threading.Lock()
"""Python's warning filters are the process's; sites of a simulation are threads of one."""


def rdp_epsilon(spent: Spent, delta: float) -> float:
    """Upper bound of epsilon by Renyi DP (Mironov et al. 2019, arXiv:1908.10530). Decides what is refused."""
    return _at_best_order(spent, delta, ORDERS)[0]


def prv_epsilon(spent: Spent, delta: float) -> float:
    """Upper bound of epsilon by privacy loss random variables (Gopi et al. 2021, arXiv:2106.02848): tighter, slower.

    At most `rdp_epsilon`, which is returned where the numbers are beyond this method.
    """
    from opacus.accountants import PRVAccountant

    other = rdp_epsilon(spent, delta)
    accountant = PRVAccountant()
    accountant.history = list(spent)
    try:
        with _quiet():
            return min(other, _at_least_zero(accountant.get_epsilon(delta))) if spent else 0.0
    except (RuntimeError, ValueError, ArithmeticError, MemoryError):
        return other


def default_delta(exact: int | None) -> float:
    """1 / (10 N) where the exact number N may be told: at 1 / N a release that gives one away would be in the bound.

    Else a constant, since delta shows in the noise: as much for a thousand patients.

    >>> default_delta(50), default_delta(None)
    (0.002, 0.0001)
    """
    return 1e-4 if exact is None else 1 / (10 * exact)


@lru_cache
def noise_for(
    epsilon: float, delta: float, rate: float, steps: int, also: tuple[tuple[float, float, int], ...] = ()
) -> float:
    """Smallest noise multiplier at which `steps` steps at sampling `rate`, and `also`, spend at most `epsilon` (RDP).

    Raises ValueError where no noise is enough, since `also` alone spends it.

    >>> round(noise_for(8.0, 1e-4, rate=0.1, steps=100), 2)
    0.92
    """

    def spends(sigma: float, orders: tuple[float, ...] = ORDERS) -> tuple[float, float]:
        return _at_best_order([*also, (sigma, rate, steps)], delta, orders)

    least, high = 0.0, 1.0
    while not (found := spends(high))[0] <= epsilon:  # so that NaN is no budget kept
        least, high = high, 2 * high
        if high > MOST_NOISE:
            other = rdp_epsilon(also, delta)
            raise ValueError(f"epsilon={epsilon:g}: too small for any noise; what else is counted spends {other:.2g}")
    # Halving at the best order alone takes a hundredth of the time. Where it ends, another order may do with less.
    while found[0] <= epsilon:
        low, only = least, (found[1],)
        while high - low > TOLERANCE * high:
            middle = (low + high) / 2
            low, high = (low, middle) if spends(middle, only)[0] <= epsilon else (middle, high)
        if low == least:
            break
        if (found := spends(low))[0] <= epsilon:
            high = low
    return high


def _at_best_order(spent: Spent, delta: float, orders: tuple[float, ...]) -> tuple[float, float]:
    """Epsilon by Renyi DP, and the order of `orders` that it is from."""
    if not spent:
        return 0.0, orders[0]
    from opacus.accountants.analysis.rdp import get_privacy_spent

    with _quiet():
        renyi = sum(steps * _of_one_step(sigma, rate, orders) for sigma, rate, steps in spent)
        epsilon, order = get_privacy_spent(orders=orders, rdp=renyi, delta=delta)
    return _at_least_zero(epsilon), float(order)


def _at_least_zero(epsilon: float) -> float:
    """An accountant's epsilon: the conversion to (epsilon, delta) goes below 0 where much less than delta is spent."""
    return float(np.maximum(epsilon, 0.0))  # NaN stays NaN, which is within no budget


@lru_cache(maxsize=1024)
def _of_one_step(sigma: float, rate: float, orders: tuple[float, ...]) -> NDArray[np.float64]:
    """Renyi divergence at each order. Kept, since it takes long, and rounds of a run differ in their steps alone."""
    from opacus.accountants.analysis.rdp import compute_rdp

    renyi: NDArray[np.float64] = compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=orders)
    return renyi


@contextmanager
def _quiet() -> Iterator[None]:
    """Opacus takes logarithms of 0 where a rate is 1, as meant, and says when the best order is an outer one."""
    with _ONE, warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        warnings.filterwarnings("ignore", "Optimal order is the")
        yield
