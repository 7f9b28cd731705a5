"""gliofed-server status: the sites, the runs and the programs of a federation."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from server.link.online import read_online
from server.link.runs import Run, runs_of
from server.provisioning.admit import SiteRecord, admitted_keys, read_records
from server.provisioning.certificates import ending_soon
from server.provisioning.federation import open_federation
from server.report.bounds import bounds_met
from server.report.table import figure, patients_behind
from server.round.history import Event
from shared.parse import ConfigError
from shared.tasks import TASKS
from shared.terminal import command_line, plain

KEPT = ("patients", "epsilon")
"""What a site told last, while a newer round may have nothing of it."""


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
    sites = []
    for name in names:
        record, line = records.get(name), lines.get(name, {})
        member = (online or {}).get("sites", {}).get(name)
        sites.append(
            SiteStatus(
                name=name,
                membership="damaged" if name in faults else _membership(record),
                connected=None if online is None else bool(member and member["online"]),
                seen=member["seen"] if member else None,
                agreed=record.patients if record else None,
                patients=line.get("patients"),
                round=line.get("status"),
                reason="; ".join(filter(None, (line.get("reason"), bounds_met(line)))) or None,
                epsilon=line.get("epsilon"),
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
        runs=[_run_status(run) for run in runs],
        warnings=[*trouble, *ending_soon(folder)],
    )


def show(status: Status, as_json: bool, console: Console | None = None) -> None:
    """Print it, for a person or a program."""
    if as_json:
        print(json.dumps(asdict(status), allow_nan=False))
        return
    console = console or Console()
    programs = ", ".join(f"{name} {'runs' if runs else 'does not run'}" for name, runs in status.programs.items())
    known = programs if status.started else "gliofed-server start does not run; who is connected is not known"
    console.print(_cell(f"{status.federation}: {known}"), soft_wrap=True)
    sites = Table(
        Column("site", no_wrap=True), "", "connected", "last seen", "at most", "patients", "last round", "epsilon"
    )
    for site in status.sites:
        connected = "?" if site.connected is None else "yes" if site.connected else "no"
        last = f"{site.round}: {site.reason}" if site.reason else site.round
        seen = site.seen and f"{datetime.fromisoformat(site.seen).astimezone():%Y-%m-%d %H:%M}"
        numbers = site.agreed, site.patients, last, site.epsilon
        sites.add_row(*map(_cell, (site.name, site.membership, connected, seen, *numbers)))
    console.print(sites)
    runs = Table(Column("run", no_wrap=True), "state", "round", "score", "code")
    for run in status.runs:
        state = f"{run.state}: {run.reason}" if run.reason else run.state
        score = "" if run.value is None else f"{run.metric} {figure(run.value, run.patients)}"
        code = run.code and run.code[:8]
        runs.add_row(*map(_cell, (run.name, state, f"{run.round} of {run.rounds}", score, code)))
    console.print(runs if status.runs else "no run yet; gliofed-server run --help")
    for warning in status.warnings:
        console.print(_cell(warning), soft_wrap=True)


def _unagreed(site: str, folder: Path) -> str:
    admit = command_line("gliofed-server", "admit", f"{site}.request.json", "--patients", "N", "--folder", folder)
    cure = f"agree on one by telephone, then {admit}"
    return f"{site}: no number of patients is agreed, as it was admitted by an older version; {cure}"


def _membership(record: SiteRecord | None) -> str:
    if record is None:
        return "invited"
    return "admitted" if record.expelled is None else "expelled"


def _run_status(run: Run) -> RunStatus:
    """Say where a run stands; one of which a file is damaged must not hide the others."""
    try:
        return _known_status(run)
    except ConfigError as error:
        return RunStatus(name=run.name, state="damaged", reason=str(error), round=0, rounds=0, metric="", value=None)


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


def _last_lines(runs: list[Run]) -> dict[str, Event]:
    """What the newest round says of each site; patients and epsilon of the newest that tells them."""
    lines: dict[str, Event] = {}
    events: list[Event] = []
    for run in sorted(runs, key=Run.last_written):
        with suppress(ConfigError):  # said with the run
            events += [event for event in run.events() if event["event"] in ("round", "round_failed")]
    for event in events:
        for site, line in event["sites"].items():
            told = {key: value for key, value in line.items() if value is not None or key not in KEPT}
            lines[site] = {key: lines.get(site, {}).get(key) for key in KEPT} | told
    return lines


def _cell(value: object) -> Text:
    """Text as it is: a reason may quote a hospital, whose words must be no markup and no command for the terminal."""
    return Text("" if value is None else plain(str(value)))
