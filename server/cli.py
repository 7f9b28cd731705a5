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
from shared.terminal import plain

WRONG_USE = 2


def main() -> None:
    """Run the subcommand that the first word names."""
    if sys.argv[1:2] == ["audit"] and len(sys.argv) > 2:
        from server.audit_command import audit_command

        sys.exit(audit_command(sys.argv[2:]))
    given = _parser().parse_args()
    if given.command == "report":
        sys.exit(_report(given.run, given.metric, given.json))
    try:
        print("\n".join(_provisioning(given)))
    except ConfigError as error:
        # It may quote a hospital's request.
        print(f"gliofed-server: {plain(str(error))}", file=sys.stderr)
        sys.exit(WRONG_USE)
    except OSError as error:  # no such request, or a folder of another user
        print(f"gliofed-server: {error.filename or given.command}: {error.strerror}", file=sys.stderr)
        sys.exit(WRONG_USE)
    sys.exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gliofed-server", description="The aggregator.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    report = commands.add_parser("report", help="show a run's rounds, sites and metrics, also while it runs")
    report.add_argument("run", type=Path, help="the run's folder")
    report.add_argument("--metric", help="such as loss, hd95_et or auc; else Dice, or accuracy of grading")
    report.add_argument("--json", action="store_true", help="the history's events as one JSON list")
    commands.add_parser("audit", help="verify RUN: check the log of a run, alone or against a site's", add_help=False)
    make = commands.add_parser("provision", help="make a federation's authority, certificates and kits, or what is new")
    make.add_argument("file", type=Path, metavar="federation.yaml", help="name, address, names, sites, days")
    make.add_argument(
        "--into", type=Path, metavar="DIR", help="the federation's folder; else its name, beside the file"
    )
    renew = commands.add_parser("renew", help="make new server certificates, with the same authority")
    renew.add_argument("folder", type=Path, metavar="DIR", help="the federation's folder")
    admit = commands.add_parser("admit", help="let a hospital in whose request came")
    admit.add_argument("request", type=Path, metavar="REQUEST.json", help="what gliofed-client join wrote")
    admit.add_argument("--replace", action="store_true", help="take a new key for one that is lost, or was expelled")
    expel = commands.add_parser("expel", help="shut a hospital out")
    expel.add_argument("site", metavar="SITE", help="its name")
    for command in (admit, expel):
        command.add_argument("--folder", type=Path, default=Path(), metavar="DIR", help="the federation's; else here")
    return parser


def _provisioning(given: argparse.Namespace) -> list[str]:
    """Do what makes and changes a federation's folder; the sentences to print."""
    # Imported here, for a mistyped word is answered at once.
    from server.admit import admit, expel
    from server.certificates import ending_soon
    from server.provision import provision, renew

    if given.command == "provision":
        return provision(given.file, given.into)
    if given.command == "renew":
        return renew(given.folder)
    if given.command == "expel":
        return expel(given.site, given.folder)
    return admit(given.request, given.folder, given.replace) + ending_soon(given.folder)


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
