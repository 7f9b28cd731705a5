"""When a run has ended: the sites measure its models on their test patients, once, and nothing is chosen by it."""

import time
from collections.abc import Mapping

from gliofed.server.report.sentences import rests
from gliofed.server.report.table import figure, measured_patients
from gliofed.server.round.best import best_round
from gliofed.server.round.evaluation import evaluate
from gliofed.server.round.history import Event, History, site_line
from gliofed.server.round.progress import RoundProgress
from gliofed.server.round.sites import Sites
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Request
from gliofed.shared.run_folder import ModelFolder, RunFolder
from gliofed.shared.tasks import TASKS
from gliofed.shared.wording import quantity

PART = "test"


def final_test(history: History) -> Event | None:
    """The test of a run, if it was made."""
    return next((event for event in history.events() if event["event"] == "test"), None)


def failed_test(history: History) -> str | None:
    """Why no site measured the last model on its test patients, though one was to."""
    return (final_test(history) or {}).get("failed")


def measure_test(
    sites: Sites, config: RunConfig, last: Request, history: History, files: RunFolder, progress: RoundProgress
) -> Event:
    """Let the sites that counted in any round, or were never drawn, measure the last model, and the best one if it is
    another.

    The event for the history; `failed` says why no site measured the last model, though one was to.
    """
    started, asked = time.monotonic(), _have_a_say(history)
    best = best_round(files)
    requests = {"last": last}
    if best not in (None, last.round):
        weights = ModelFolder(files.best).weights.read_bytes()
        requests["best"] = Request(run_id=last.run_id, round=best or 0, config=config, weights=weights, part=PART)
    progress.start(last.round, len(asked) * len(requests))
    models: dict[str, Event] = {}
    failed = None
    for name, request in requests.items():
        lines = {site: site_line(status="counted") for site in asked}
        measured, why = evaluate(sites, config, request, lines, progress)
        models[name] = {"round": request.round, "sites": _short(lines), "global": measured}
        failed = why if name == "last" else failed
    event: Event = {"event": "test", "round": last.round, "best_round": best, "models": models}
    event["seconds"] = round(time.monotonic() - started, 3)
    return event | ({"failed": failed} if failed else {})


def outcome_of(event: Event, config: RunConfig) -> list[str]:
    """A sentence for each model that was tested, by the test's `event`."""
    sentences, headline = [], TASKS[config.task].headline
    for name, model in event["models"].items():
        patients = quantity(measured_patients(model["sites"]), "patient")
        score = figure((model["global"] or {}).get(headline))
        sentences.append(f"test of the {name} round, {model['round']}: {headline} {score}, {patients}")
    return sentences


def _have_a_say(history: History) -> list[str]:
    """Sites whose update counted in a round, or that rested in all of them: whoever sent only what was refused has no
    say.
    """
    lines = [pair for event in history.rounds() for pair in event["sites"].items()]
    counted = {site for site, line in lines if line["status"] == "counted"}
    asked = {site for site, line in lines if not rests(line)}
    return sorted(counted | ({site for site, _ in lines} - asked))


def _short(lines: Mapping[str, Event]) -> dict[str, Event]:
    """What is known of each site; its status is measured, or not_measured with a reason."""
    keys = ("reason", "evaluate", "evaluated", "bytes_down")
    return {
        site: {"status": "measured" if line["evaluated"] else "not_measured", **{key: line[key] for key in keys}}
        for site, line in sorted(lines.items())
    }
