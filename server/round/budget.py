"""Epsilon of a run whose server adds the noise (privacy=central): each sum is charged before it is made."""

from collections import Counter

from server.round.history import History
from shared.accounting import noise_for, rdp_epsilon
from shared.config import RunConfig


class BudgetError(Exception):
    """The run's epsilon does not hold another sum."""


def charge_sum(history: History, config: RunConfig, round: int) -> tuple[float, float]:
    """Charge the sum of a round in the history; return its noise multiplier and epsilon with it, or raise BudgetError.

    The noise follows from all planned rounds. A charge stays, whatever becomes of its round: of one that is folded
    again, after a crash or from an older checkpoint, somebody may have seen the first result.
    """
    privacy = config.privacy
    delta = privacy.delta or 1 / (10 * len(config.round.expected))
    sigma = noise_for(privacy.epsilon, delta, 1.0, config.rounds)
    sums = Counter([sigma, *(event["sigma"] for event in history.events() if event["event"] == "charge")])
    epsilon = rdp_epsilon([(noise, 1.0, count) for noise, count in sums.items()], delta)
    if not epsilon <= privacy.epsilon:
        raise BudgetError(
            f"privacy.epsilon={privacy.epsilon:g} is spent on {sums.total() - 1} sums, some of them of rounds that "
            f"were folded again; start a new run for more"
        )
    history.append({"event": "charge", "of_round": round, "sigma": sigma, "delta": delta, "epsilon": epsilon})
    return sigma, epsilon
