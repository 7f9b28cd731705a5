"""After a round: the sites measure the new model, each on its own validation patients; in the end, on test patients."""

from collections import Counter

from gliofed.server.report.sentences import rests
from gliofed.server.round.answers import NOT_CONNECTED, Absent, refusal
from gliofed.server.round.history import Event, add_reason
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.sites import Sites
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply, Request
from gliofed.shared.tasks import TASKS
from gliofed.shared.tasks.means import as_json
from gliofed.shared.wording import quantity

KEPT_BACK = ("withheld", "few_validation")
"""Codes of sites whose policy keeps metrics to itself: their evaluation did not fail."""


def evaluate(
    sites: Sites, config: RunConfig, request: Request, lines: dict[str, Event], progress: RoundProgress
) -> tuple[dict[str, float | None] | None, str | None]:
    """Ask the sites that have a line; note metrics, or why there are none, in their lines.

    Returns the metrics over the patients of all sites that counted or were not drawn, None where there are none; and
    why no such site measured the model, though one was to.
    """
    scores, part = dict[str, Reply](), request.part or "validation"
    failures: list[str] = []
    eligible = [site for site, line in lines.items() if line["status"] == "counted" or rests(line)]

    def fail(site: str, why: str) -> None:
        add_reason(lines[site], f"evaluation {why}")
        failures.extend([why] * (site in eligible))

    nodes, absent = sites.roll(request.round)
    for site in sorted(set(eligible) - nodes.keys()):
        why = absent.get(site, NOT_CONNECTED)  # who is not there since this server started was in no roll of it
        fail(site, f"{why.status}: {why.reason}")
    for site, answer in sites.ask("evaluate", request, {s: node for s, node in nodes.items() if s in lines}):
        progress.tick(f"round {request.round}: {site} {'tested' if request.part else 'evaluated'}")
        line = lines[site]
        line["bytes_down"] += len(request.weights)
        # Of a private run an undisclosed refusal may be one of these.
        kept = (*KEPT_BACK, "undisclosed") if config.private else KEPT_BACK
        if isinstance(answer, Reply) and answer.code in kept:
            add_reason(line, f"evaluation declined: {refusal(answer).reason}")
        elif isinstance(answer, Absent) or answer.status != "ok":
            why = answer if isinstance(answer, Absent) else refusal(answer)
            fail(site, f"{why.status}: {why.reason}")
        elif claim := _false_claim(answer, sites.agreed(nodes[site]), config, part):
            fail(site, f"refused: {claim}")
        else:
            line |= {"evaluate": as_json(answer.metrics), "evaluated": answer.patients}
            if site in eligible:  # who was refused has no say in the mean either
                scores[site] = answer
            if not answer.patients:
                add_reason(line, f"no {part} patients")
    claims = [(scores[site].metrics, scores[site].patients) for site in sorted(scores)]
    failed = None
    if failures and not any(patients for _, patients in claims):
        [(common, number)] = Counter(failures).most_common(1)
        failed = f"no site evaluated the model; at {number} of {quantity(len(eligible), 'site')} evaluation {common}"
    return as_json(TASKS[config.task].pool(claims, config.data)), failed


def _false_claim(answer: Reply, agreed: int | None, config: RunConfig, part: str) -> str | None:
    """What a site that evaluated says of itself that cannot be."""
    if agreed is not None and answer.patients > agreed:
        return f"{quantity(answer.patients, f'{part} patient')}, more than the {agreed} that were agreed"
    return TASKS[config.task].impossible(answer.metrics, answer.patients, config.data)
