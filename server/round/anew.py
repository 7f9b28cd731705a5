"""Sites that start anew: what they kept of a run is gone, and the operator lets them go on from nothing."""

import json
from pathlib import Path

from gliofed.server.round.history import History
from gliofed.shared.algorithms import kept_of
from gliofed.shared.config import RunConfig
from gliofed.shared.files import write_json
from gliofed.shared.parse import MALFORMED, ConfigError, parse
from gliofed.shared.run_folder import RunFolder


def let_start_anew(out: Path, site: str) -> list[str]:
    """Let a site of the run in folder `out` start anew in its next round; sentences on it. Raises ConfigError."""
    events = History(RunFolder(out).history).events()
    if not events:
        raise ConfigError(f"{out}: no history.jsonl there, so no run; give a run's folder")
    known = sorted({name for event in events for name in event.get("sites", ()) if event["event"] == "round"})
    if site not in known:
        raise ConfigError(f"{site}: no site of this run; those that were asked are {', '.join(known) or 'none'}")
    if events[-1]["event"] == "end" and events[-1]["status"] != "failed":
        raise ConfigError(f"{out}: it ended ({events[-1]['status']}), and nobody is asked any more")
    if not kept_of(_config(out)):
        raise ConfigError(f"{out}: sites keep nothing of this run, so there is nothing to start anew from")
    write_json(RunFolder(out).anew, sorted({*_wanted(out), site}))
    return [f"{site}: starts anew in the next round, with nothing kept; the history will say so"]


def start_anew(out: Path, history: History, round: int) -> set[str]:
    """The sites that start anew in this round, which the history says from now on, however often the round begins."""
    of_round = {"event": "anew", "of_round": round}
    known = {site for event in history.events() if of_round.items() <= event.items() for site in event["of_sites"]}
    wanted = _wanted(out)
    if new := sorted({*wanted} - known):  # a server that was killed before it removed the file wrote them down before
        history.append({**of_round, "of_sites": new})
    RunFolder(out).anew.unlink(missing_ok=True)
    return known.union(wanted)


def _config(out: Path) -> RunConfig:
    try:
        return parse(RunConfig, json.loads(RunFolder(out).description.read_text())["run"])
    except (OSError, *MALFORMED):
        raise ConfigError(f"{out}/run.json: damaged; put it back from a copy") from None


def _wanted(out: Path) -> list[str]:
    file = RunFolder(out).anew
    try:
        return parse(list[str], file.read_text()) if file.exists() else []
    except ValueError:
        raise ConfigError(f"{file}: damaged; remove it, and let the site start anew once more") from None
