"""gliofed-server status: print it, on a terminal of 80 columns or for a program."""

import json
from dataclasses import asdict
from datetime import datetime

from rich.console import Console
from rich.table import Column, Table

from gliofed.server.link.status import RunStatus, SiteStatus, Status
from gliofed.server.report.table import figure
from gliofed.server.round.progress import RoundState
from gliofed.shared.terminal import cell

MOST_NAMES = 8
"""Sites that a line about a round names; --json has all."""


def show(status: Status, as_json: bool, console: Console | None = None) -> None:
    """Print it, for a person or a program."""
    if as_json:
        print(json.dumps(asdict(status), allow_nan=False))
        return
    console = console or Console()
    programs = ", ".join(f"{name} {'runs' if runs else 'does not run'}" for name, runs in status.programs.items())
    known = programs if status.started else "gliofed-server start does not run; who is connected is not known"
    console.print(cell(f"{status.federation}: {known}"), soft_wrap=True)
    sites = _table("site", "state", "last seen", "patients", "last round", "epsilon")
    for site in status.sites:
        epsilon = site.epsilon and f"{site.epsilon:.3f}"
        cells = site.name, site.membership, _seen(site), _patients(site), site.doing or site.round, epsilon
        sites.add_row(*map(cell, cells))
    console.print(sites)
    for site in status.sites:
        if site.reason:
            console.print(cell(f"{site.name}: {site.round}: {site.reason}"), soft_wrap=True)
    runs = _table("run", "state", "round", "score", "code")
    for run in status.runs:
        score = "" if run.value is None else f"{run.metric} {figure(run.value, run.patients)}"
        code = run.code and run.code[:8]
        runs.add_row(*map(cell, (run.name, run.state, f"{run.round} of {run.rounds}", score, code)))
    console.print(runs if status.runs else "no run yet; gliofed-server run --help")
    for run in status.runs:
        if sentence := run.reason or (run.now and _now(run.now, run)):
            console.print(cell(f"{run.name}: {sentence}"), soft_wrap=True)
    for warning in status.warnings:
        console.print(cell(warning), soft_wrap=True)


def _table(first: str, *others: str) -> Table:
    """A table for 80 columns: only the first one's names may be longer than fits, and go on in the next line."""
    columns = [Column(first, overflow="fold"), *(Column(heading, no_wrap=True) for heading in others)]
    return Table(*columns, box=None, padding=(0, 2, 0, 0), pad_edge=False)


def _seen(site: SiteStatus) -> str:
    if site.connected or site.seen is None:
        return {True: "connected", False: "never", None: "?"}[site.connected]
    return _clock(site.seen)


def _patients(site: SiteStatus) -> str:
    """How many it trained on last, of how many were agreed at most."""
    trained = "?" if site.patients is None else str(site.patients)
    return trained if site.agreed is None else f"{trained} of {site.agreed}"


def _now(now: RoundState, run: RunStatus) -> str:
    """Where a round stands, in a line."""
    working = [site for site in now.asked if site not in now.answered]
    parts = [f"round {now.round}, {now.phase} since {_clock(now.since)}"]
    answered = [f"{site} {did}" for site, did in sorted(now.answered.items())]
    parts += [f"{what}: {_some(some)}" for what, some in (("at work", working), ("answered", answered)) if some]
    if run.seconds_left is not None:
        parts.append(f"about {_span(run.seconds_left)} left")
    return "; ".join(parts)


def _some(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def _clock(time: str) -> str:
    """The local time, short; the year can be told."""
    return f"{datetime.fromisoformat(time).astimezone():%m-%d %H:%M}"


def _span(seconds: float) -> str:
    """Write seconds as a person would say them.

    >>> [_span(seconds) for seconds in (0, 75, 600, 9000, 200000)]
    ['0 s', '75 s', '10 min', '2.5 h', '2.3 days']
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
