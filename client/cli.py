"""gliofed-client: one hospital.

usage: gliofed-client COMMAND [argument ...]
       gliofed-client COMMAND --help, for its arguments

$commands

Settings of check data.root=DIR data.labels=SCHEME [key=value ...]
$check

Settings of predict model=DIR data.root=DIR [data.labels=SCHEME] [key=value ...]
$predict

Label schemes: what the masks' values mean
$labels

Layouts of data sets, which are recognised
$layouts
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from gliofed.shared.terminal import WRONG_USE, UserError, enter, path_word, tell

# All else is imported where it is used: Ctrl-C is answered meanwhile, and no command waits for what it does not need.

PATHS = {key: key for key in ("data.root", "work", "out")}
BY_SETTINGS = ("check", "predict")
"""Commands whose arguments are settings, which are explained together."""


def main() -> None:
    """Run the subcommand that the first word names."""
    os.umask(0o077)  # what it writes is of a hospital, and of patients
    enter("gliofed-client", _run)


def _run() -> int:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h") or ({"--help", "-h"} & {*arguments} and command in BY_SETTINGS):
        print(_help())
        return 0
    if command not in COMMANDS:
        return _wrong(f"no command {command!r}; there are: {', '.join(COMMANDS)}")
    try:
        return COMMANDS[command](arguments)
    except UserError as error:
        if command in BY_SETTINGS:
            return _wrong(str(error))
        raise


def _help() -> str:
    from gliofed.shared.help_text import help_text, labels, layouts, settings

    return help_text(
        __doc__,
        commands={name: " ".join((command.__doc__ or "").split()).rstrip(".") for name, command in COMMANDS.items()},
        check=settings("check", {}),
        predict=settings("predict", {}, model="model.folder"),
        labels=labels(),
        layouts=layouts(),
    )


def _check(arguments: list[str]) -> int:
    """Read every scan to its end and say what to fix; status 0 without errors, 1 with errors."""
    from gliofed.shared.hydra_words import composed

    values = composed("check", arguments, PATHS)
    # Only now, so that a mistyped key is answered at once.
    from gliofed.client.doctor.check_command import check

    return check(values)


def _predict(arguments: list[str]) -> int:
    """Write a mask or a grade for every case; status 0 if all were predicted, 1 if one could not be."""
    from gliofed.client.prediction.predict_command import predict_command

    return predict_command(arguments)


def _ledger(arguments: list[str]) -> int:
    """Show the privacy budget that private runs have spent for each patient, also while one trains; status 2 if there
    is no ledger or it is damaged.
    """
    parser = _parser("ledger")
    parser.add_argument("work", type=path_word, metavar="WORK", help="the site's work folder, or the ledger's folder")
    columns = "one object: delta, epsilon_rdp, epsilon_prv, private, budgets, charges"
    parser.add_argument("--json", action="store_true", help=columns)
    given = parser.parse_args(arguments)
    from gliofed.client.round.ledger_command import show_ledger

    return show_ledger(given.work, given.json)


def _audit(arguments: list[str]) -> int:
    """Check that the log of everything that was asked and that left is complete, and agrees with a run's log at the
    server; status 1 if a line is wrong, 2 if there is no log.
    """
    from gliofed.client.round.audit_command import audit_command

    return audit_command(arguments)


def _join(arguments: list[str]) -> int:
    """Unpack a federation's kit, make this hospital's key, and write the request to be admitted."""
    parser = _parser("join")
    parser.add_argument("kit", type=path_word, metavar="KIT.zip", help="the file that the aggregator sent")
    ceiling = "the most patients that this hospital will ever have in the study, rounded up as you like; "
    ceiling += "the aggregator is told this number and agrees to it"
    parser.add_argument("--patients", type=int, metavar="N", help=ceiling)
    spoken = "the kit's hash as the aggregator read it out by telephone, all of it or ten pairs; "
    spoken += "by default it is shown, for you to compare"
    parser.add_argument("--hash", metavar="HASH", help=spoken)
    into = "the new folder; by default ./FEDERATION-SITE"
    parser.add_argument("--into", type=path_word, metavar="DIR", help=into)
    given = parser.parse_args(arguments)
    from gliofed.client.link.join import join

    print("\n".join(join(given.kit, given.into, patients=given.patients, kit_hash=given.hash)))
    return 0


def _approve(arguments: list[str]) -> int:
    """Show the code that is to run here and what is new in it, and ask for approval; status 1 if it is not approved."""
    parser = _parser("approve")
    parser.add_argument("folder", type=path_word, metavar="DIR", help="the hospital's folder")
    code = "code that the aggregator sent; by default the kit's"
    parser.add_argument("--code", type=path_word, metavar="FILE.fab", help=code)
    whole = "approve without a question: the whole hash of the code that you have read"
    parser.add_argument("--hash", metavar="SHA256", help=whole)
    parser.add_argument("--withdraw", metavar="SHA256", help="take back an approval; its first 8 characters suffice")
    parser.add_argument("--unpack", type=path_word, metavar="DIR", help="only write the code into this new folder")
    given = parser.parse_args(arguments)
    from gliofed.client.link.approve import approve, unpack, withdraw

    if given.withdraw:
        return withdraw(given.folder, given.withdraw)
    if given.unpack:
        return unpack(given.folder, given.code, given.unpack)
    return approve(given.folder, given.code, given.hash)


def _start(arguments: list[str]) -> int:
    """Check everything, then take part until Ctrl-C or SIGTERM; status 2 and a list of problems if somebody here must
    fix them, 1 if they are temporary: a wrong clock, or an expired certificate of the server.
    """
    given = _in_folder(_parser("start")).parse_args(arguments)
    from gliofed.client.link.start import start

    return start(given.folder)


def _status(arguments: list[str]) -> int:
    """Show what is running, what went wrong, which code is approved, what has left the hospital, and the privacy budget
    spent; also while nothing is running.
    """
    parser = _in_folder(_parser("status"))
    parser.add_argument("--json", action="store_true", help="one object, for a program to read")
    given = parser.parse_args(arguments)
    from gliofed.client.link.status_command import status

    return status(given.folder, given.json)


def _report(arguments: list[str]) -> int:
    """Write one page for this hospital: the rounds it took part in, what left it, its cohort and its privacy; also
    while start is running.
    """
    parser = _in_folder(_parser("report"), " or a work folder")
    slices = "also show slices of this hospital's patients, with this model that a run left"
    parser.add_argument("--model", type=path_word, metavar="DIR", help=slices)
    parser.add_argument("--out", type=path_word, metavar="FILE", help="by default site-report.html in the work folder")
    given = parser.parse_args(arguments)
    from gliofed.client.link.site_report import report_command

    return report_command(given.folder, given.model, given.out)


def _compare(arguments: list[str]) -> int:
    """Train a model on this hospital's patients alone and compare the federated model with it on the test patients;
    nothing is sent.
    """
    parser = _parser("compare")
    parser.add_argument("model", type=path_word, metavar="MODEL", help="a run's model/ or best/, from the aggregator")
    _in_folder(parser)
    rounds = "rounds that the own model is trained for; by default those of the federated model"
    parser.add_argument("--rounds", type=int, metavar="N", help=rounds)
    out = "folder of the results; by default compare/RUN-N-rounds in the work folder"
    parser.add_argument("--out", type=path_word, metavar="FOLDER", help=out)
    device = "auto, cpu or cuda:N; by default that of site.yaml"
    parser.add_argument("--device", metavar="DEVICE", help=device)
    given = parser.parse_args(arguments)
    from gliofed.client.link.compare_command import compare_command

    return compare_command(given.model, given.folder, given.rounds, given.out, given.device)


def _withdraw(arguments: list[str]) -> int:
    """Take a patient who withdrew consent out of the cohort for good, delete what the work folder has of them, and list
    the runs that trained with them; also while start is running; status 1 if a file there still names them.
    """
    parser = _parser("withdraw")
    parser.add_argument("patient", metavar="PATIENT", help="the patient's id, as check prints it")
    _in_folder(parser, " or the work folder")
    parser.add_argument("--yes", action="store_true", help="do not ask to type the id again")
    parser.add_argument("--undo", action="store_true", help="undo a withdrawal that was a mistake")
    given = parser.parse_args(arguments)
    from gliofed.client.link.withdraw_command import undo_command, withdraw_command

    return (undo_command if given.undo else withdraw_command)(given.patient, given.folder, given.yes)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "check": _check,
    "predict": _predict,
    "ledger": _ledger,
    "audit": _audit,
    "join": _join,
    "approve": _approve,
    "start": _start,
    "status": _status,
    "report": _report,
    "compare": _compare,
    "withdraw": _withdraw,
}
"""Every command; its docstring is in --help."""


def _parser(command: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog=f"gliofed-client {command}", description=COMMANDS[command].__doc__)


def _in_folder(parser: argparse.ArgumentParser, other: str = "") -> argparse.ArgumentParser:
    line = f"the hospital's folder{other}; by default the current one"
    parser.add_argument("folder", type=path_word, nargs="?", default=Path(), metavar="DIR", help=line)
    return parser


def _wrong(sentence: str) -> int:
    tell("gliofed-client", f"{sentence}; see gliofed-client --help")
    return WRONG_USE
