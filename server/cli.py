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

    def add(name: str, line: str) -> argparse.ArgumentParser:
        """Add a command, whose line is in both helps."""
        return commands.add_parser(name, help=line, description=f"{line[0].upper()}{line[1:]}.")

    report = add("report", "show a run's rounds, sites and metrics, also while it runs")
    report.add_argument(
        "run", type=path_word, nargs="+", metavar="RUN", help="the run's folder; with --plots DIR, one or more"
    )
    report.add_argument("--metric", help="such as loss, hd95_et or auc; by default the task's main metric")
    where = "draw the figures as PNG and SVG into DIR, by default RUN/plots; for several runs, their curves together"
    report.add_argument("--plots", type=path_word, nargs="?", const=True, default=False, metavar="DIR", help=where)
    report.add_argument("--json", action="store_true", help="the history's events as one JSON list")
    page = "write the report as one page for any browser into FILE, by default report.html in the run's folder"
    report.add_argument("--html", type=path_word, nargs="?", const=True, default=False, metavar="FILE", help=page)
    commands.add_parser("audit", help="check a run's log (verify), or copy it for one hospital", add_help=False)
    make = add("provision", "make a federation's authority, certificates and kits; later, only those that are new")
    what = "YAML with name, address, sites and, if needed, names, listen and days"
    make.add_argument("file", type=path_word, metavar="federation.yaml", help=what)
    into = "the federation's folder; by default beside the file, called after the federation"
    make.add_argument("--into", type=path_word, metavar="DIR", help=into)
    renew = add("renew", "make new server certificates with the same authority")
    renew.add_argument("folder", type=path_word, metavar="DIR", help="the federation's folder")
    admit = add("admit", "let in a hospital that sent its request")
    admit.add_argument("request", type=path_word, metavar="REQUEST.json", help="what gliofed-client join wrote")
    fingerprint = "fingerprint of the hospital's key, as it was read out by telephone; by default you are asked for it"
    admit.add_argument("--fingerprint", metavar="SHA256:...", help=fingerprint)
    replace = "accept a new key in place of one that is lost or was expelled"
    admit.add_argument("--replace", action="store_true", help=replace)
    most = "the largest number of patients agreed with the hospital; by default the one that it states"
    admit.add_argument("--patients", type=int, metavar="N", help=most)
    expel = add("expel", "shut a hospital out")
    expel.add_argument("site", metavar="SITE", help="the hospital's name")
    start = add("start", "run the federation: sites connect, and runs are trained")
    commands.add_parser("run", help="submit a run or resume one; see gliofed-server run --help", add_help=False)
    show = add("status", "show the sites, the runs, and what needs attention")
    show.add_argument("--json", action="store_true", help="one object: federation, started, programs, sites, runs, ...")
    for command in (start, show):
        line = "the federation's folder; by default the current one"
        command.add_argument("folder", type=path_word, nargs="?", default=Path(), metavar="FED", help=line)
    anew = add("anew", "let a site start anew in a run if what it kept from that run is gone")
    anew.add_argument("run", type=path_word, metavar="RUN", help="the run's folder")
    anew.add_argument("site", metavar="SITE", help="the site's name")
    stop = add("stop", "stop a run, which can be resumed later")
    logs = add("logs", "print the log of a run's server, or the last lines of the link's logs")
    logs.add_argument("--follow", action="store_true", help="keep printing until the run is over")
    for command in (stop, logs):
        command.add_argument("name", nargs="?", metavar="NAME", help="the run's name")
    for command in (admit, expel, stop, logs):
        line = "the federation's folder; by default the current one"
        command.add_argument("--folder", type=path_word, default=Path(), metavar="DIR", help=line)
    return parser


def _do(given: argparse.Namespace) -> None:
    # Imported here, so that a mistyped word is answered at once.
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
