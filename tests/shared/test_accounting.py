"""Epsilon against closed forms of the Gaussian mechanism, and the noise that a budget asks for."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import RDPAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from gliofed.shared.accounting import ORDERS, TOLERANCE, noise_for, prv_epsilon, rdp_epsilon

DELTA = 1e-5


def closed_form(sigma: float, steps: int, delta: float) -> float:
    """Epsilon of `steps` Gaussian mechanisms by Renyi DP, on the orders of ours (Mironov 2017, arXiv:1702.07476).

    Converted as in Balle et al. 2020, arXiv:1905.09982, theorem 21.
    """
    alpha = np.array(ORDERS, dtype=np.float64)
    renyi = steps * alpha / (2 * sigma**2)
    return float(np.min(renyi - (math.log(delta) + np.log(alpha)) / (alpha - 1) + np.log((alpha - 1) / alpha)))


def exact(sigma: float, steps: int, delta: float) -> float:
    """The least epsilon that is true: k Gaussian mechanisms are one of deviation sigma / sqrt(k).

    Source: Balle & Wang 2018, arXiv:1805.06530, theorem 8.
    """
    mu = math.sqrt(steps) / sigma

    def surplus(epsilon: float) -> float:
        return float(norm.cdf(mu / 2 - epsilon / mu) - np.exp(epsilon + norm.logcdf(-mu / 2 - epsilon / mu)) - delta)

    return float(brentq(surplus, 0.0, 1e3))


@pytest.mark.parametrize(("sigma", "steps"), [(0.5, 1), (1.0, 1), (2.0, 10), (20.0, 100), (100.0, 30)])
def test_renyi_is_the_closed_form_where_all_are_in(sigma: float, steps: int) -> None:
    assert rdp_epsilon([(sigma, 1.0, steps)], DELTA) == pytest.approx(closed_form(sigma, steps, DELTA), rel=1e-6)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 10)])
def test_the_tighter_bound_lies_between_truth_and_renyi(sigma: float, steps: int) -> None:
    spent = [(sigma, 1.0, steps)]
    tight, truth = prv_epsilon(spent, DELTA), exact(sigma, steps, DELTA)
    assert truth <= tight <= rdp_epsilon(spent, DELTA)
    assert tight == pytest.approx(truth, rel=0.05)  # else it would be no tighter bound


def test_nothing_spent_is_nothing() -> None:
    assert rdp_epsilon([], DELTA) == prv_epsilon([], DELTA) == 0.0


@settings(max_examples=5, deadline=None)
@given(sigma=st.floats(0.5, 20), rate=st.floats(0.01, 1), steps=st.integers(1, 1000), more=st.integers(1, 1000))
def test_epsilon_never_falls(sigma: float, rate: float, steps: int, more: int) -> None:
    """With more steps, whether they are counted with the others or apart."""
    together = rdp_epsilon([(sigma, rate, steps + more)], DELTA)
    assert together >= rdp_epsilon([(sigma, rate, steps)], DELTA)
    assert rdp_epsilon([(sigma, rate, steps), (sigma, rate, more)], DELTA) == pytest.approx(together, rel=1e-6)


@pytest.mark.parametrize("epsilon", [0.1, 8.0])
@pytest.mark.parametrize("also", [(), ((50.0, 1.0, 1),)])
def test_the_noise_spends_the_budget_and_no_more(epsilon: float, also: tuple[tuple[float, float, int], ...]) -> None:
    """A small epsilon needs orders beyond Opacus' own; a warning of it would be an error here."""
    sigma = noise_for(epsilon, DELTA, 0.1, 50, also)
    assert rdp_epsilon([*also, (sigma, 0.1, 50)], DELTA) <= epsilon
    assert rdp_epsilon([*also, (sigma * (1 - 2 * TOLERANCE), 0.1, 50)], DELTA) > epsilon


def halved(epsilon: float, rate: float, steps: int, also: tuple[tuple[float, float, int], ...]) -> float:
    """The plain search: halving, with all orders each time, by Opacus' accountant."""

    def spends(sigma: float) -> float:
        accountant = RDPAccountant()
        accountant.history = [*also, (sigma, rate, steps)]
        return float(accountant.get_epsilon(DELTA, alphas=ORDERS))

    low, high = 0.5, 8.0
    while high - low > TOLERANCE / 2 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if spends(middle) <= epsilon else (middle, high)
    return high


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps", "also"), [(1.0, 0.25, 20, ((50.0, 1.0, 2),)), (2.0, 0.02, 80, ())]
)
def test_one_order_at_a_time_finds_the_same_noise(
    epsilon: float, rate: float, steps: int, also: tuple[tuple[float, float, int], ...]
) -> None:
    """The best order changes with the noise: a search that kept the first one would find too much."""
    expected = halved(epsilon, rate, steps, also)
    assert noise_for(epsilon, DELTA, rate, steps, also) == pytest.approx(expected, rel=1.5 * TOLERANCE)


def test_epsilon_is_opacus_to_the_bit() -> None:
    """What is kept between calls must not show, whoever asked first."""
    spent = [(1.1, 0.25, 10), (2.0, 1.0, 5), (1.1, 0.25, 3)]
    accountant = RDPAccountant()
    accountant.history = spent
    expected = accountant.get_epsilon(DELTA, alphas=ORDERS)
    assert [rdp_epsilon(spent, DELTA) for _ in range(2)] == [expected] * 2


def test_a_budget_that_is_spent_is_refused() -> None:
    with pytest.raises(ValueError, match=r"epsilon=0\.5: too small"):
        noise_for(0.5, DELTA, 0.1, 1, ((1.0, 1.0, 1),))


def test_threads_do_not_disturb_each_other() -> None:
    """Sites of a simulation are threads, and what silences Opacus is the process's.

    The orders are too few for this noise: Opacus would warn.
    """
    spent = [(1e4, 1.0, 1)]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: rdp_epsilon(spent, DELTA), range(80)))
    assert len(set(found)) == 1
    assert warnings.filters == filters


@pytest.mark.parametrize("spent", [[(1e4, 1.0, 1)], [(1e5, 0.1, 3), (1e6, 1.0, 1)]])
def test_epsilon_is_never_below_zero(spent: list[tuple[float, float, int]]) -> None:
    """The conversion itself goes below it; a server takes no such number, and a sum of it would hide what is spent."""
    accountant = RDPAccountant()
    accountant.history = spent
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert accountant.get_epsilon(0.1, alphas=ORDERS) < 0
    assert rdp_epsilon(spent, 0.1) == prv_epsilon(spent, 0.1) == 0.0


def test_an_epsilon_that_is_no_number_stays_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is within no budget; as 0 it would be within each. No numbers are known for which Opacus does that."""
    monkeypatch.setattr("opacus.accountants.analysis.rdp.get_privacy_spent", lambda **_: (math.nan, 2.0))
    assert math.isnan(rdp_epsilon([(1.0, 1.0, 1)], DELTA))
