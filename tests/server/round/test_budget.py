"""A sum that the server makes is charged before it is made, and for good."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from gliofed.server.round.answers import EXPELLED
from gliofed.server.round.budget import BudgetError, charge_sum, spent_for_good
from gliofed.server.round.history import Event, History, site_line
from gliofed.shared.accounting import rdp_epsilon
from gliofed.shared.config import RunConfig
from gliofed.shared.mechanisms import PrivacyConfig
from gliofed.shared.messages import CODES

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


COUNTED = site_line(status="counted")
SPENT = site_line(status="declined", reason=CODES["budget"])
HOURS = site_line(status="declined", reason=CODES["hours"])
AWAY = site_line(status="missing", reason="not connected")
GONE = site_line(status=EXPELLED.status, reason=EXPELLED.reason)


@pytest.mark.parametrize(
    ("lines", "quorum", "spent"),
    [
        ((SPENT, SPENT, SPENT), 1, 3),
        ((COUNTED, SPENT, SPENT), 2, 2),
        ((SPENT, SPENT, AWAY), 1, 0),  # it may come back, and has a budget
        ((SPENT, SPENT, AWAY), 2, 2),  # alone it would not be enough
        ((SPENT, HOURS, SPENT), 1, 0),
        ((SPENT, SPENT, HOURS), 1, 2),  # it has never counted: whatever it declines for, it takes no part
        ((SPENT, SPENT, GONE), 1, 2),
        ((AWAY, AWAY, HOURS), 1, 0),  # nobody's budget is spent
    ],
)
def test_a_budget_is_spent_for_good_where_no_quorum_can_count_again(
    run: RunConfig, history: History, lines: tuple[Event, ...], quorum: int, spent: int
) -> None:
    """Else the run would end for good where it could go on, or fail without a model each time it is resumed."""
    history.append({"event": "round", "round": 1, "sites": {"a": COUNTED, "b": COUNTED, "c": HOURS}})
    private = replace(run.privacy, mechanism="dp_sgd", delta=None)
    config = replace(run, privacy=private, round=replace(run.round, quorum=quorum))
    sites = dict(zip("abc", lines, strict=True))
    assert spent_for_good(history, config, sites) == spent
    assert spent_for_good(history, replace(config, privacy=PrivacyConfig()), sites) == 0  # a ceiling, set meanwhile
