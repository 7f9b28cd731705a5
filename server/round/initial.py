"""Before round 1: the sites measure the weights that a run was given, for later rounds to be compared with."""

import time

from gliofed.server.report.table import figure, patients_behind
from gliofed.server.round.evaluation import evaluate
from gliofed.server.round.history import Event, History, site_line
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.sites import Sites
from gliofed.shared.messages import Request
from gliofed.shared.tasks import TASKS

MEASURED = ("status", "reason", "evaluate", "evaluated", "bytes_down")


def measure_given(sites: Sites, history: History, request: Request, progress: RoundProgress) -> None:
    """Let every site that is there measure the weights of this `request`, of round 0; write it down as `initial`.

    It is done once in a run, and not in one whose sites evaluate nothing.
    """
    config = request.config
    if not config.round.evaluate_every or any(event["event"] == "initial" for event in history.events()):
        return
    started = time.monotonic()
    nodes, absent = sites.roll(0)
    lines = {site: site_line(status=why.status, reason=why.reason) for site, why in absent.items()}
    lines |= {site: site_line(status="counted") for site in nodes}
    progress.start(0, len(nodes))
    means, failed = evaluate(sites, config, request, lines, progress)
    measured = {site: {key: lines[site][key] for key in MEASURED} for site in sorted(lines)}
    event: Event = {"event": "initial", "round": 0, "seconds": round(time.monotonic() - started, 3)}
    event |= {"sites": measured, "global": means, **({"evaluation_failed": failed} if failed else {})}
    history.append(event)
    headline = TASKS[config.task].headline
    score = (means or {}).get(headline)
    shown = "not measured" if score is None else f"{headline} {figure(score, patients_behind(event))}"
    progress.finish(f"round 0/{config.rounds}: the given weights, {shown}, {event['seconds']:.1f} s")
