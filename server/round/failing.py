"""Why a round has no result."""

from gliofed.server.round.budget import spent_for_good
from gliofed.server.round.gate import NOT_FINITE
from gliofed.server.round.history import Event, History
from gliofed.server.round.lines import why_not
from gliofed.shared.config import RunConfig
from gliofed.shared.wording import quantity

DIVERGED = "training has diverged: begin anew with a lower train.lr or strategy.lr"
"""Where no update is finite; going on with the run would only give the same."""


class RoundError(Exception):
    """A round without a result: too few updates counted."""

    def __init__(self, event: Event) -> None:
        """Keep the round's `event` for the history."""
        super().__init__(f"round {event['round']}: {event['reason']}")
        self.event = event


class SpentError(RoundError):
    """A round without a result, since the run's privacy budget is spent: none after it can have one."""


def too_few(history: History, config: RunConfig, event: Event, counted: int) -> RoundError:
    """Why the round of this `event`, in which so many updates counted, has no result."""
    few = f"{quantity(counted, 'update')} counted, fewer than round.quorum={config.round.quorum}"
    if gone := spent_for_good(history, config, event["sites"]):
        where = f"{gone} of {quantity(len(event['sites']), 'site')}"
        return spent(event, f"{few}: the privacy budget is spent at {where}")
    asked = [str(line["reason"]) for line in event["sites"].values() if line["status"] != "not_invited"]
    diverged = asked and all(reason.startswith(NOT_FINITE) for reason in asked)
    reason = "; ".join([few, *why_not(event["sites"]), *([DIVERGED] if diverged else [])])
    return RoundError(event | {"event": "round_failed", "reason": reason})


def spent(event: Event, why: str) -> RoundError:
    """The end of a run whose budget is spent in the round of this `event`; with nothing trained before, it failed."""
    before = event["round"] - 1
    reason = f"{why}; the model is that of round {before}" if before else f"{why}; nothing was trained"
    return (SpentError if before else RoundError)(event | {"event": "round_failed", "reason": reason})
