"""What the history says of each site in a round."""

import math
from collections import Counter
from collections.abc import Mapping

from gliofed.server.round.gate import REASON
from gliofed.server.round.history import Event, add_reason, site_line
from gliofed.server.round.spool import Spooled
from gliofed.shared.config import RunConfig
from gliofed.shared.left_out import in_words, many
from gliofed.shared.tasks import TASKS
from gliofed.shared.tasks.means import as_json
from gliofed.shared.wording import quantity


def line_of(reply: Spooled, refused: Mapping[str, str], down: int, config: RunConfig) -> Event:
    """The line of a site that sent an update; `refused` says why, by site, `down` how many bytes it was sent."""
    reason = refused.get(reply.site)
    line = site_line(status="refused" if reason else "counted", reason=reason, patients=reply.weight)
    line |= {"train": as_json(reply.metrics), "bytes_down": down, "bytes_up": reply.size}
    odd = sorted(reply.metrics.keys() - {"loss"}) or TASKS[config.task].impossible(
        reply.metrics, reply.patients, config.data
    )
    if odd:
        line |= {"train": None, "reason": reason or f"training metrics refused: {odd}"[:REASON]}
    if reason is None and not math.isfinite(reply.metrics.get("loss", 0.0)):  # what has noise is finite all the same
        rate = "privacy.lr" if config.privacy.mechanism == "dp_sgd" else "train.lr"
        add_reason(line, f"its training loss is not finite: lower {rate}")
    if reply.patients > reply.ceiling and not config.private:  # noise goes above it by itself
        line["claimed"] = reply.patients
    line |= {"left_out": reply.left_out} if reply.left_out else {}
    if many(reply.left_out, reply.patients):
        add_reason(line, f"left out: {in_words(reply.left_out)}"[:REASON])
    return line | ({"epsilon": reply.epsilon} if config.private and reply.epsilon is not None else {})


def why_not(sites: Mapping[str, Event]) -> list[str]:
    """Why the sites that did not count did not, by the reason that most of them have."""
    reasons = Counter(
        line["reason"] for line in sites.values() if line["status"] not in ("counted", "not_invited") and line["reason"]
    )
    return [f"of {quantity(reasons.total(), 'site')} {number}: {reason}" for reason, number in reasons.most_common(1)]
