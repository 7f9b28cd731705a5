"""When a run's privacy budget is spent; with privacy=central the server charges each sum before it is made."""

from collections import Counter
from collections.abc import Mapping

from gliofed.server.round.answers import EXPELLED, NOT_ADMITTED
from gliofed.server.round.history import Event, History
from gliofed.shared.accounting import noise_for, rdp_epsilon
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import CODES
from gliofed.shared.parse import ConfigError


class BudgetError(ConfigError):
    """The run's epsilon does not hold another sum, or none at all."""


def noise_of_a_sum(config: RunConfig) -> tuple[float, float]:
    """Noise multiplier of each sum, which follows from all planned rounds, and delta; BudgetError: none will do."""
    privacy = config.privacy
    delta = privacy.delta or 1 / (10 * len(config.round.expected))
    try:
        return noise_for(privacy.epsilon, delta, 1.0, config.rounds), delta
    except ValueError:
        raise BudgetError(
            f"privacy.epsilon={privacy.epsilon:g}: no noise is enough for it, with delta={delta:g} and "
            f"rounds={config.rounds}; give a larger epsilon, 1 to 10 is usual"
        ) from None


def charge_sum(history: History, config: RunConfig, round: int) -> tuple[float, float]:
    """Charge the sum of a round in the history; return its noise multiplier and epsilon with it, or raise BudgetError.

    A charge stays, whatever becomes of its round: of one that is folded again, after a crash or from an older
    checkpoint, somebody may have seen the first result.
    """
    privacy = config.privacy
    sigma, delta = noise_of_a_sum(config)
    sums = Counter([sigma, *(event["sigma"] for event in history.events() if event["event"] == "charge")])
    epsilon = rdp_epsilon([(noise, 1.0, count) for noise, count in sums.items()], delta)
    if not epsilon <= privacy.epsilon:
        raise BudgetError(
            f"privacy.epsilon={privacy.epsilon:g} is spent on {sums.total() - 1} sums, some of them of rounds that "
            f"were folded again; start a new run for more"
        )
    history.append({"event": "charge", "of_round": round, "sigma": sigma, "delta": delta, "epsilon": epsilon})
    return sigma, epsilon


def spent_for_good(history: History, config: RunConfig, sites: Mapping[str, Event]) -> int:
    """How many sites' budgets are spent, where fewer than a quorum of the others can count in any later round; else 0.

    `sites` are the lines of a round in which too few counted. A site that is away, or outside its hours, may come back;
    one that declines and has never counted in this run will not.
    """
    ever = {site for event in history.rounds() for site, line in event["sites"].items() if line["status"] == "counted"}
    reasons = {site: line["reason"] for site, line in sites.items()}
    spent = [site for site, reason in reasons.items() if reason == CODES["budget"]]
    gone = {*spent, *(site for site, reason in reasons.items() if reason in (EXPELLED.reason, NOT_ADMITTED.reason))}
    gone |= {site for site, line in sites.items() if line["status"] == "declined" and site not in ever}
    return len(spent) if config.private and len(sites.keys() - gone) < config.round.quorum else 0
