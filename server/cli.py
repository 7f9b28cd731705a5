"""gliofed-server: the aggregator's command."""

import argparse
import os
import sys
from pathlib import Path

from gliofed.shared.terminal import enter, path_word, plain
from gliofed.shared.wording import quantity


def main() -> None:
    """Run the subcommand that the first word names; what it writes is its user's alone."""
    os.umask(0o077)
    enter("gliofed-server", _run)


def _run() -> int | None:
    if sys.argv[1:2] == ["audit"]:
        from gliofed.server.round.audit_command import audit_command

        return audit_command(sys.argv[2:])
    if sys.argv[1:2] == ["run"]:
        from gliofed.server.link.run_command import run_command

        run_command(sys.argv[2:])
    else:
        _do(_parser().parse_args())
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="gliofed-server", description="The aggregator.")
    commands = parser.add_subparsers(required=True, metavar="command", dest="command")
    report = commands.add_parser("report", help="show a run's rounds, sites and metrics, also while it runs")
    report.add_argument(
        "run", type=path_word, nargs="+", metavar="RUN", help="its folder; with --plots DIR also several"
    )
    report.add_argument("--metric", help="such as loss, hd95_et or auc; else the one that its task shows first")
    where = "draw its figures, as PNG and SVG, into DIR, else into RUN/plots; of several runs the curves together"
    report.add_argument("--plots", type=path_word, nargs="?", const=True, default=False, metavar="DIR", help=where)
    report.add_argument("--json", action="store_true", help="the history's events as one JSON list")
    page = "write the report as one page, for any browser; else to report.html in the run's folder"
    report.add_argument("--html", type=path_word, nargs="?", const=True, default=False, metavar="FILE", help=page)
    commands.add_parser("audit", help="verify RUN: check a run's log; copy RUN --site NAME", add_help=False)
    make = commands.add_parser("provision", help="make a federation's authority, certificates and kits, or what is new")
    make.add_argument("file", type=path_word, metavar="federation.yaml", help="name, address, names, sites, days")
    make.add_argument(
        "--into", type=path_word, metavar="DIR", help="the federation's folder; else its name, beside the file"
    )
    renew = commands.add_parser("renew", help="make new server certificates, with the same authority")
    renew.add_argument("folder", type=path_word, metavar="DIR", help="the federation's folder")
    admit = commands.add_parser("admit", help="let a hospital in whose request came")
    admit.add_argument("request", type=path_word, metavar="REQUEST.json", help="what gliofed-client join wrote")
    admit.add_argument("--fingerprint", metavar="SHA256:...", help="of its key, as it said by telephone; else it asks")
    admit.add_argument("--replace", action="store_true", help="take a new key for one that is lost, or was expelled")
    admit.add_argument(
        "--patients", type=int, metavar="N", help="agreed ceiling of its number of patients; else what it states"
    )
    expel = commands.add_parser("expel", help="shut a hospital out")
    expel.add_argument("site", metavar="SITE", help="its name")
    start = commands.add_parser("start", help="run the federation: sites connect, and runs are trained")
    commands.add_parser("run", help="submit a run, or go on with one; see gliofed-server run --help", add_help=False)
    show = commands.add_parser("status", help="show the sites, the runs, and what must be seen to")
    show.add_argument("--json", action="store_true", help="one object: federation, started, programs, sites, runs, ...")
    for command in (start, show):
        command.add_argument(
            "folder", type=path_word, nargs="?", default=Path(), metavar="FED", help="its folder; else here"
        )
    anew = commands.add_parser("anew", help="let a site go on with nothing kept, where what it kept of a run is gone")
    anew.add_argument("run", type=path_word, metavar="RUN", help="the run's folder")
    anew.add_argument("site", metavar="SITE", help="its name")
    stop = commands.add_parser("stop", help="stop a run; it can go on later")
    logs = commands.add_parser("logs", help="print what a run's server said, or the last lines of the link's logs")
    logs.add_argument("--follow", action="store_true", help="until the run is over")
    for command in (stop, logs):
        command.add_argument("name", nargs="?", metavar="NAME", help="of the run")
    for command in (admit, expel, stop, logs):
        command.add_argument(
            "--folder", type=path_word, default=Path(), metavar="DIR", help="the federation's; else here"
        )
    return parser


def _do(given: argparse.Namespace) -> None:
    # Imported here, for a mistyped word is answered at once.
    if given.command == "report":
        from gliofed.server.report_command import report

        report(given.run, given.metric, given.json, given.plots, given.html)
    elif given.command == "start":
        from gliofed.server.link.start import start

        start(given.folder)
    elif given.command == "status":
        from gliofed.server.link.status import status
        from gliofed.server.link.status_command import show

        show(status(given.folder), given.json)
    elif given.command == "logs":
        from gliofed.server.link.logs import logs

        logs(given.folder, given.name, given.follow)
    elif given.command == "stop":
        from gliofed.server.link.logs import stop

        _print(stop(given.folder, given.name))
    elif given.command == "anew":
        from gliofed.server.round.anew import let_start_anew

        _print(let_start_anew(given.run, given.site))
    else:
        _print(_provisioning(given))


def _print(sentences: list[str]) -> None:
    for sentence in sentences:
        print(plain(sentence))


def _provisioning(given: argparse.Namespace) -> list[str]:
    """Do what makes and changes a federation's folder; the sentences to print."""
    from gliofed.server.provisioning.admit import admit, expel
    from gliofed.server.provisioning.certificates import ending_soon
    from gliofed.server.provisioning.provision import provision, renew
    from gliofed.shared.join_request import read_request
    from gliofed.shared.keys import pairs

    if given.command == "provision":
        return provision(given.file, given.into)
    if given.command == "renew":
        return renew(given.folder)
    if given.command == "expel":
        return expel(given.site, given.folder)
    request, _ = read_request(given.request)  # nobody telephones about a file that is none
    stated = "no number of patients" if request.patients is None else f"at most {quantity(request.patients, 'patient')}"
    kit = "without naming its kit" if request.kit_sha256 is None else f"with the kit {pairs(request.kit_sha256)}"
    print(f"{request.site} states {stated}, and joined {kit}")
    fingerprint = given.fingerprint or _ask_fingerprint()
    admitted = admit(given.request, given.folder, fingerprint, given.replace, patients=given.patients)
    return admitted + ending_soon(given.folder)


def _ask_fingerprint() -> str:
    """Ask for what the hospital says, without showing what the request says: nobody can agree by pressing Enter."""
    from gliofed.shared.parse import ConfigError

    if not sys.stdin.isatty():
        raise ConfigError("nobody to ask; give the fingerprint that the hospital said by telephone, with --fingerprint")
    print("Call the hospital, on a number that you knew before, for the fingerprint of its key: all, or 12 characters.")
    try:
        return input("SHA256:")
    except EOFError:
        return ""
