"""gliofed-server report: a run's table, its events, or its page, from the files of its folder."""

import json
from pathlib import Path

from gliofed.server.report.table import print_results
from gliofed.shared.events import Event, read_events
from gliofed.shared.files import write_bytes
from gliofed.shared.parse import ConfigError
from gliofed.shared.run_folder import RunFolder
from gliofed.shared.tasks import TASKS
from gliofed.shared.terminal import plain


def report_command(run: Path, *, metric: str | None, as_json: bool, page: Path | None) -> None:
    """Print the table of a run, or its events; or write `page`, where an empty path is the one in the run's folder.

    Raises ConfigError: no run there, a damaged history, or a metric that the run has not.
    """
    path = RunFolder(run).history
    if not path.exists():
        raise ConfigError(f"{run}: no history.jsonl there, so no run; give a run's folder")
    events = read_events(path)
    if page is not None:
        _write_page(run, RunFolder(run).page if page == Path() else page)
    elif as_json:
        print(json.dumps(events))
    else:
        _print(events, metric)


def _print(events: list[Event], metric: str | None) -> None:
    known = sorted({name for event in events for name in event.get("global") or {}})
    if metric is None:
        headlines = [task.headline for task in TASKS.values()]
        metric = next((name for name in headlines if name in known), headlines[0])
    if known and metric not in known:
        raise ConfigError(f"--metric {metric}: this run has {', '.join(known)}")
    print_results(events, metric)
    end = events[-1] if events and events[-1]["event"] == "end" else {"status": "not ended"}
    print(plain(f"status: {end['status']}{': ' + end['reason'] if 'reason' in end else ''}"))


def _write_page(run: Path, file: Path) -> None:
    from gliofed.server.report.page import make_page

    if file.is_dir():
        raise ConfigError(f"--html {file}: is a folder; give a file, such as {file / RunFolder(run).page.name}")
    write_bytes(file, make_page(run).encode())
    print(plain(f"written: {file}"))
