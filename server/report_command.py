"""gliofed-server report: the table of a run, its events, its figures; and the curves of several runs together."""

import json
from collections.abc import Sequence
from pathlib import Path

from gliofed.server.report.comparison import print_comparison
from gliofed.server.report.record import read_json, read_record
from gliofed.server.report.series import headline, known_metrics
from gliofed.server.report.table import print_results
from gliofed.shared.events import Event, events_of
from gliofed.shared.files import make_writable, write_bytes
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import RunFolder, SimulationFolder
from gliofed.shared.terminal import plain

Events = list[Event]


def report(runs: Sequence[Path], metric: str | None, as_json: bool, plots: Path | bool, page: Path | bool) -> None:
    """Print one run, as a table or as JSON; draw its figures where `plots` is a folder, and write its page where `page`
    is a file, or True for those in the run's folder.

    Several runs are drawn together. Raises ConfigError.
    """
    if len(runs) > 1:
        if as_json or page:
            raise ConfigError(f"{runs[1]}: a second run; {'--json' if as_json else '--html'} shows one, so drop it")
        if isinstance(plots, bool):
            raise ConfigError(f"{runs[1]}: a second run; several are drawn together, so give --plots DIR as well")
        draw_together(runs, metric, plots)
        return
    run, events = runs[0], events_of(runs[0])
    if as_json:
        print(json.dumps(events))
    else:
        show(events, of_run(events, metric))
        if comparison := read_json(SimulationFolder(run).comparison, dict):
            print_comparison(comparison)
    if plots:
        draw(run, of_run(events, metric), RunFolder(run).plots if plots is True else Path(plots), as_json)
    if page:
        write_report(run, RunFolder(run).page if page is True else Path(page), as_json)


def write_report(run: Path, file: Path, silent: bool) -> None:
    """Write the run's page."""
    from gliofed.server.report.page.page import make_page

    if file.is_dir():
        raise ConfigError(f"--html {file}: is a folder; give a file, such as {file / RunFolder(run).page.name}")
    write_bytes(file, make_page(run).encode())
    if not silent:
        print(plain(f"written: {file}"))


def show(events: Events, metric: str) -> None:
    """Print the table, the sentences below it, and how the run ended."""
    print_results(events, metric)
    end = events[-1] if events and events[-1]["event"] == "end" else {"status": "not ended"}
    print(plain(f"status: {end['status']}{': ' + end['reason'] if 'reason' in end else ''}"))


def draw(run: Path, metric: str, folder: Path, silent: bool) -> None:
    """Draw every figure that the run has."""
    from gliofed.server.report.plots.plots import draw_plots

    _say(draw_plots(read_record(run, metric), make_writable(folder, f"--plots {folder}")), folder, silent)


def draw_together(runs: Sequence[Path], metric: str | None, folder: Path) -> None:
    """Draw losses and metric of several runs, which are called after their folders; runs of one task only."""
    from gliofed.server.report.plots.sweep import draw_runs

    named = {run.resolve().name: (run, events_of(run)) for run in runs}
    if len(named) < len(runs):
        raise ConfigError(f"{runs[0]}: not the only run of that name; name their folders differently")
    metrics = {of_run(events, metric) for _, events in named.values()}
    if len(metrics) > 1:
        raise ConfigError(f"{runs[0]}: not of the same task as the others ({', '.join(sorted(metrics))})")
    notes = {read_record(run).note for run, _ in named.values()} - {""}
    drawn = {name: events for name, (_, events) in named.items()}
    _say(draw_runs(drawn, make_writable(folder, f"--plots {folder}"), metrics.pop(), "; ".join(notes)), folder, False)


def of_run(events: Events, metric: str | None) -> str:
    """The metric to show. Raises ConfigError for one that the run does not have."""
    known = sorted(known_metrics(events))
    if metric is not None and known and metric not in known:
        raise ConfigError(f"--metric {metric}: this run has {', '.join(known)}")
    return metric or headline(events)


def _say(names: Sequence[str], folder: Path, silent: bool) -> None:
    if not silent:
        print(plain(f"drawn in {folder}: {', '.join(names)}" if names else "nothing drawn: no round is finished yet"))
