"""What a run adds to the provenance of its model: counts and settings, and no name of a site or a patient."""

import hashlib
from datetime import UTC, datetime
from typing import Any

from gliofed.server.round.history import Event, History
from gliofed.server.round.state import State
from gliofed.shared.config import RunConfig
from gliofed.shared.files import write_json
from gliofed.shared.mechanisms import MECHANISMS
from gliofed.shared.provenance import Chain, read_provenance
from gliofed.shared.run_folder import ModelFolder, RunFolder
from gliofed.shared.versions import versions


def provenance_of(files: RunFolder, config: RunConfig, run_id: str, state: State) -> Chain:
    """The provenance of the weights that `state` leaves: that of the weights the run began with, and its own entry."""
    before = [] if config.init is None else read_provenance(files.init, config.init)
    return [*before, entry_of(History(files.history), config, run_id, state)]


def count_all_rounds(files: RunFolder, config: RunConfig) -> None:
    """Let best/ tell what the whole run has spent: its round was chosen by a look at all of them."""
    if not ModelFolder(files.best).weights.is_file():
        return
    sha256 = hashlib.sha256(ModelFolder(files.best).weights.read_bytes()).hexdigest()
    if chain := read_provenance(files.best, sha256):  # an earlier version wrote none
        history = History(files.history)
        *before, own = chain
        write_json(ModelFolder(files.best).provenance, [*before, own | {"privacy": _privacy(history, config)}])


def entry_of(history: History, config: RunConfig, run_id: str, state: State) -> Event:
    """One run, up to the round of `state`.

    Numbers of patients are those that sites told, noisy in a private run, and summed over sites: of each its largest.
    Epsilon is the largest that a site told, or that of the sums.
    """
    rounds = [event for event in _trained(history, state.event) if event["event"] == "round"]
    lines = [line for event in rounds if event["round"] <= state.round for line in event["sites"].items()]
    counted = [(site, line) for site, line in lines if line["status"] == "counted"]
    sites = {site for site, _ in counted}
    return {
        "run_id": run_id,
        "config_hash": config.hash,
        "task": config.task,
        "model": {"name": config.model.name, "preset": config.model.preset},
        "algorithm": config.algorithm.name,
        "round": state.round,
        "rounds": config.rounds,
        "sites": len(sites),
        "patients": {
            "training": _sum_over_sites(counted, "patients"),
            "validation": _sum_over_sites([pair for pair in lines if pair[0] in sites], "evaluated"),
            "noisy": config.private,
        },
        "privacy": _privacy(history, config, state.event),
        "versions": versions(),
        "init_sha256": config.init,
        "weights_sha256": hashlib.sha256(state.coded_result).hexdigest(),
        "ended": datetime.now(UTC).date().isoformat(),
    }


def _sum_over_sites(lines: list[tuple[str, Event]], key: str) -> int | None:
    """The largest number of each site, summed; None where no site told any."""
    largest: dict[str, int] = {}
    for site, line in lines:
        if line.get(key) is not None:
            largest[site] = max(line[key], largest.get(site, 0))
    return sum(largest.values()) if largest else None


def _trained(history: History, newest: Event | None) -> list[Event]:
    """Every round, also one without a result, and the `newest`, whose line may not be there yet."""
    events = [event for event in history.events() if event["event"] in ("round", "round_failed")]
    written = {event["round"] for event in events if event["event"] == "round"}
    return [*events, newest] if newest and newest["round"] not in written else events


def _privacy(history: History, config: RunConfig, newest: Event | None = None) -> dict[str, Any]:
    """What was spent; delta is null where it is each site's own."""
    privacy, delta = config.privacy, config.privacy.delta
    lines = [line for event in _trained(history, newest) for line in event["sites"].values()]
    spent = [line["epsilon"] for line in lines if "epsilon" in line]
    if charges := [event for event in history.events() if event["event"] == "charge"]:
        spent, delta = [charges[-1]["epsilon"]], charges[-1]["delta"]
    return {
        "mechanism": privacy.mechanism,
        "unit": MECHANISMS[privacy.mechanism].unit,
        "epsilon": max(spent, default=None),
        "delta": delta,
        "test_mode": privacy.test_seed is not None,
    }
