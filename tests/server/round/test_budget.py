"""A sum that the server makes is charged before it is made, and for good."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from server.round.budget import BudgetError, charge_sum
from server.round.history import History
from shared.accounting import rdp_epsilon
from shared.config import PrivacyConfig, RunConfig

ROUNDS = 3


@pytest.fixture
def run(run_config: Callable[..., RunConfig]) -> RunConfig:
    return replace(run_config(f"rounds={ROUNDS}"), privacy=PrivacyConfig(mechanism="central", epsilon=4.0, delta=0.01))


@pytest.fixture
def history(tmp_path: Path) -> History:
    return History(tmp_path / "history.jsonl")


def test_all_rounds_spend_the_budget(run: RunConfig, history: History) -> None:
    """Each epsilon is that of the sums so far, by an accounting of its own."""
    told = [charge_sum(history, run, round) for round in (1, 2, 3)]
    sigma = told[0][0]
    assert [noise for noise, _ in told] == [sigma] * ROUNDS
    assert [epsilon for _, epsilon in told] == [rdp_epsilon([(sigma, 1.0, n)], 0.01) for n in (1, 2, 3)]
    assert 3.99 < told[-1][1] <= 4.0


def test_a_round_that_is_made_again_is_charged_again(run: RunConfig, history: History) -> None:
    """Going back to an older checkpoint drops rounds from the history, and no charge."""
    for round in (1, 2):
        charge_sum(history, run, round)
        history.append({"event": "round", "round": round})
    history.forget_after(1)
    assert [event["round"] for event in history.rounds()] == [1]
    charge_sum(history, run, 2)
    before = history.path.read_bytes()
    with pytest.raises(BudgetError, match="epsilon=4 is spent on 3 sums"):
        charge_sum(history, run, 3)
    assert history.path.read_bytes() == before


def test_a_budget_that_no_noise_keeps_charges_nothing(run: RunConfig, history: History) -> None:
    """It was a traceback, of a server that was started again ten times."""
    run = replace(run, privacy=replace(run.privacy, epsilon=0.001, delta=0.0001))
    with pytest.raises(BudgetError, match=r"privacy\.epsilon=0\.001: no noise is enough for it, with delta=0\.0001"):
        charge_sum(history, run, 1)
    assert not history.path.exists()


def test_delta_follows_from_the_sites(run: RunConfig, history: History) -> None:
    run = replace(run, privacy=replace(run.privacy, delta=None), round=replace(run.round, expected=("a", "b")))
    charge_sum(history, run, 1)
    assert history.events()[0]["delta"] == 1 / 20
