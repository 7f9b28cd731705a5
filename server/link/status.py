"""What gliofed-server status tells: the sites, the runs and the programs of a federation."""

from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from gliofed.server.link.online import read_online
from gliofed.server.link.runs import Run, runs_of
from gliofed.server.provisioning.admit import admitted_keys, read_records
from gliofed.server.provisioning.certificates import ending_soon
from gliofed.server.provisioning.federation import open_federation
from gliofed.server.report.sentences import bounds_met
from gliofed.server.report.table import patients_behind
from gliofed.server.round.history import Event
from gliofed.server.round.progress import RoundState, read_progress
from gliofed.shared.parse import ConfigError
from gliofed.shared.tasks import TASKS
from gliofed.shared.terminal import command_line

KEPT = ("patients", "epsilon")
"""What a site told last, while a newer round may have nothing of it."""
LAST = 5
"""Finished rounds by whose mean the seconds left are estimated."""


@dataclass(frozen=True, kw_only=True)
class SiteStatus:
    """One row of the sites; what nobody knows is None."""

    name: str
    membership: str
    """admitted, expelled, damaged: its record cannot be read; or invited: no request of it was admitted."""
    connected: bool | None
    seen: str | None
    """When it was last connected; ISO 8601."""
    agreed: int | None
    """Ceiling of its number of patients."""
    patients: int | None
    """That it trained on last, as it tells them."""
    round: str | None
    """What became of it in the last round that asked it."""
    reason: str | None
    """Why, and which bounds it met."""
    epsilon: float | None
    """Of each of its patients so far, as it told last."""
    doing: str | None = None
    """preparing, training or evaluating, where a round asked it and it has not answered yet."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One row of the runs."""

    name: str
    state: str
    reason: str | None
    round: int
    rounds: int
    metric: str
    """The one that its task shows first."""
    value: float | None
    patients: int | None = None
    """Validation patients behind that value."""
    code: str | None = None
    """SHA-256 of the code bundle that it began with, which hospitals must approve; None: an older version made it."""
    now: RoundState | None = None
    """Where its round stands; None: its server does not run, or is still loading."""
    seconds_left: float | None = None
    """Until its last round, estimated from the last finished ones; None: there is none, or its server does not run."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """All that there is to show."""

    federation: str
    started: bool
    """Whether gliofed-server start runs."""
    programs: dict[str, bool]
    sites: list[SiteStatus]
    runs: list[RunStatus]
    warnings: list[str]


def status(folder: Path) -> Status:
    """Look at a federation's folder; `start` need not run. Raises ConfigError."""
    federation, online, runs = open_federation(folder), read_online(folder), runs_of(folder)
    (records, damaged), lines = read_records(folder), _last_lines(runs)
    faults = damaged | admitted_keys(folder, records)[1]
    names = dict.fromkeys([*federation.sites, *sorted(records | damaged)])
    found = [_run_status(run, started=online is not None) for run in runs]
    busy = {site: run.now.phase for run in found if run.now for site in run.now.asked if site not in run.now.answered}
    sites = []
    for name in names:
        record, line = records.get(name), lines.get(name, {})
        known = "invited" if record is None else "expelled" if record.expelled else "admitted"
        membership = "damaged" if name in faults else known
        member = (online or {}).get("sites", {}).get(name)
        sites.append(
            SiteStatus(
                name=name,
                membership=membership,
                connected=None if online is None else bool(member and member["online"]),
                seen=member["seen"] if member else None,
                agreed=record.patients if record else None,
                patients=line.get("patients"),
                round=line.get("status"),
                reason="; ".join(filter(None, (line.get("reason"), bounds_met(line)))) or None,
                epsilon=line.get("epsilon"),
                doing=busy.get(name),
            )
        )
    trouble = [online["trouble"]] if online and online["trouble"] else []
    trouble += [_unagreed(name, folder) for name, each in records.items() if not (each.patients or each.expelled)]
    trouble += [fault for fault in faults.values() if fault not in "".join(trouble)]  # `start` may have said it
    return Status(
        federation=federation.name,
        started=online is not None,
        programs=online["programs"] if online else {},
        sites=sites,
        runs=found,
        warnings=[*trouble, *ending_soon(folder)],
    )


def _unagreed(site: str, folder: Path) -> str:
    admit = command_line("gliofed-server", "admit", f"{site}.request.json", "--patients", "N", "--folder", folder)
    cure = f"agree on one by telephone, then {admit}"
    return f"{site}: no number of patients is agreed, as it was admitted by an older version; {cure}"


def _run_status(run: Run, started: bool) -> RunStatus:
    """Say where a run stands; one of which a file is damaged must not hide the others."""
    try:
        found, lives = _known_status(run), run.lives()
    except ConfigError as error:
        return RunStatus(name=run.name, state="damaged", reason=str(error), round=0, rounds=0, metric="", value=None)
    if lives and (now := read_progress(run.folder)):
        return replace(found, now=now, seconds_left=_seconds_left(run, found, now))
    try:
        if run.ended() is None and not lives:
            run.check()
    except ConfigError as error:
        return replace(found, state="damaged", reason=str(error))
    return replace(found, reason=found.reason or (_waits_for(run, found.state, lives) if started else None))


def _waits_for(run: Run, state: str, lives: bool) -> str | None:
    """Why no round of a run goes on while `start` runs; None: it waits for its turn, or nobody wants it to."""
    if state == "running" and run.wanted().wanted == "stop":
        return "is being stopped"
    if state == "running" and not lives and read_progress(run.folder):
        return "its server was killed; start submits it again, mostly within two minutes"
    if state == "running":
        return "its server starts"
    if state == "waiting" and run.submission().tries:
        return f"its server ended, see {run.files.log}; start submits it again"
    return None


def _known_status(run: Run) -> RunStatus:
    saved = run.saved()
    state, reason = run.state()
    rounds = [event for event in run.events() if event["event"] == "round"]
    # No RunConfig: that of an older version may have other fields, and its run is whole.
    metric = TASKS[saved["run"]["task"]].headline if saved["run"].get("task") in TASKS else ""
    measured = [event for event in rounds if (event["global"] or {}).get(metric) is not None]
    return RunStatus(
        name=run.name,
        state=state,
        reason=reason,
        round=len(rounds),
        rounds=saved["run"].get("rounds", 0),
        metric=metric,
        value=measured[-1]["global"][metric] if measured else None,
        patients=patients_behind(measured[-1]) if measured else None,
        code=saved.get("code_sha256"),
    )


def _seconds_left(run: Run, found: RunStatus, now: RoundState) -> float | None:
    """Estimate it; a round that takes longer than the last ones did is taken to end now."""
    seconds = [event["seconds"] for event in run.events() if event["event"] == "round" and "seconds" in event][-LAST:]
    if not seconds:
        return None
    mean = sum(seconds) / len(seconds)
    gone = (datetime.now(UTC) - datetime.fromisoformat(now.began)).total_seconds()
    left: float = (found.rounds - found.round) * mean - min(max(gone, 0.0), mean)
    return round(left, 1)


def _last_lines(runs: list[Run]) -> dict[str, Event]:
    """What the newest round says of each site; patients and epsilon of the newest that tells them."""
    lines: dict[str, Event] = {}
    events: list[Event] = []
    for run in sorted(runs, key=Run.last_written):
        with suppress(ConfigError):  # said with the run
            events += [event for event in run.events() if event["event"] in ("round", "round_failed")]
    for event in events:
        for site, line in event["sites"].items():
            reported = {key: value for key, value in line.items() if value is not None or key not in KEPT}
            lines[site] = {key: lines.get(site, {}).get(key) for key in KEPT} | reported
    return lines
