"""gliofed-server: the aggregator's command."""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from server.history import History
from server.report.table import results_table
from shared.parse import ConfigError
from shared.tasks import TASKS

WRONG_USE = 2


def main() -> None:
    """Run the subcommand that the first word names."""
    parser = argparse.ArgumentParser(prog="gliofed-server", description="The aggregator.")
    commands = parser.add_subparsers(required=True, metavar="command")
    report = commands.add_parser("report", help="show a run's rounds, sites and metrics, also while it runs")
    report.add_argument("run", type=Path, help="the run's folder")
    report.add_argument("--metric", help="such as loss, hd95_et or auc; else Dice, or accuracy of grading")
    report.add_argument("--json", action="store_true", help="the history's events as one JSON list")
    arguments = parser.parse_args()
    sys.exit(_report(arguments.run, arguments.metric, arguments.json))


def _report(run: Path, metric: str | None, as_json: bool) -> int:
    path = run / "history.jsonl"
    if not path.exists():
        print(f"gliofed-server: {run}: no history.jsonl there, so no run; give a run's folder", file=sys.stderr)
        return WRONG_USE
    try:
        events = History(path).events()
    except ConfigError as error:
        print(f"gliofed-server: {error}", file=sys.stderr)
        return WRONG_USE
    if as_json:
        print(json.dumps(events))
        return 0
    known = sorted({name for event in events for name in event.get("global") or {}})
    if metric is None:
        metric = next((task.headline for task in TASKS.values() if task.headline in known), "dice")
    if known and metric not in known:
        print(f"gliofed-server: --metric {metric}: this run has {', '.join(known)}", file=sys.stderr)
        return WRONG_USE
    Console().print(results_table(events, metric))
    for event in events:
        for site, line in event.get("sites", {}).items():
            if line["reason"]:
                print(f"round {event['round']}: {site} {line['status']}: {line['reason']}")
    print(f"status: {events[-1]['status'] if events and events[-1]['event'] == 'end' else 'not ended'}")
    return 0
