"""gliofed-client: the hospital's command."""

import argparse
import os
import sys
from pathlib import Path

from gliofed.shared.terminal import WRONG_USE, UserError, enter, path_word, tell

# All else is imported where it is used: Ctrl-C is answered meanwhile, and no command waits for what it does not need.

PATHS = {key: key for key in ("data.root", "work", "out")}
HELP = """gliofed-client: one hospital.

usage: gliofed-client check data.root=DIR data.labels=SCHEME [key=value ...]
       gliofed-client predict model=DIR data.root=DIR [data.labels=SCHEME] [key=value ...]
       gliofed-client ledger WORK [--json]
       gliofed-client audit verify WORK [--server RUN] [--keys FILE]...
       gliofed-client join KIT.zip --patients N [--hash HASH] [--into DIR]
       gliofed-client approve DIR [--code FILE.fab] [--hash SHA256 | --unpack DIR | --withdraw SHA256]
       gliofed-client start [DIR]
       gliofed-client status [DIR] [--json]
       gliofed-client withdraw PATIENT [DIR] [--yes] [--undo]

  check    read every scan to its end and say what to mend; status 0 without errors, 1 with
  predict  write a mask, or the grade, of every case; status 0 for all, 1 where one could not be predicted
  ledger   show what each patient was charged for in private runs, also while one trains; status 2 without a ledger,
           or where it is damaged
  audit    whether the log of all that was asked and left is whole, and agrees with a run's at the server; status 1
           where a line does not hold, 2 without a log
  join     unpack a federation's kit, make this hospital's key, and write the request to be admitted
  approve  show the code that is to run here and what is new in it, and ask; status 1 where it is not approved
  start    look at everything, then take part until Ctrl-C or SIGTERM; status 2 with all that must be mended before,
           1 with what will pass: a wrong clock, or a certificate of the server that ended
  status   what runs, what went wrong, which code is approved, what left the house, and the privacy spent; also while
           nothing runs
  withdraw a patient took back consent: out of the cohort for good, with all that the work folder has of them, and list
           the runs that trained with them; also while start runs; status 1 where a file there still names them;
           --undo where it was a mistake

SCHEME is what the masks' values mean: brats2018, brats2019, brats2020, brats2021, brats2023, brats2024, msd,
ucsf_pdgm, lumiere, hd_glio.

Settings of check
  data.modalities=[flair,t1,t1ce,t2]   images that a case must have
  {task} grading needs grades and no masks
  check.spacing=[0.2,10]               shortest and longest voxel edge, mm; see configs/check.yaml for the others
  work=DIR                             the site's work folder: freeze the cohort there and prepare its scans
  workers=N                            processes; else one for each core
  out=DIR                              where check.json and check.html go; else outputs/DATE/TIME, or in work

Settings of predict
  model=DIR                            the model/ that a run leaves, or the run's folder
  data.root=DIR                        folder of the scans, or of one case; masks are not needed
  data.labels=SCHEME                   of the masks that are written; a model that grades needs none
  out=DIR                              new or empty folder for the results; else outputs/DATE/TIME
  device=auto|cpu|cuda:N               where to compute
  model.iterations=K                   refinements of lstm_unet

Words of ledger
  WORK                                 the site's work folder, or the ledger's own
  --json                               one object: delta, epsilon_rdp, epsilon_prv, private, charges

Words of audit
  WORK                                 the site's work folder, its audit folder, or a copy of audit.jsonl
  --server RUN                         a run's folder, or a copy of its audit.jsonl, to hold against it
  --keys FILE                          ca.crt or a kit for the server's signatures, site.key.pub for the site's; else
                                       those of the hospital's folder, where WORK is in it

Words of join, approve, start, status and withdraw
  KIT.zip                              the file that the aggregator sent
  --patients N                         the most patients that this hospital will ever take part with, rounded up as it
                                       likes; the aggregator is told this number, and agrees to it
  --hash HASH                          of the kit, as the aggregator reads it by telephone: all, or ten pairs; without
                                       it, join shows the kit's hash, to be compared afterwards
  --into DIR                           the hospital's new folder; else ./FEDERATION-SITE
  DIR                                  that folder; start, status and withdraw take the one you are in
  PATIENT                              the id, as check names it; withdraw takes the work folder as DIR too
  --yes                                do not ask to type the id again
  --code FILE.fab                      new code that the aggregator sent; else the kit's
  --unpack DIR                         only write the code's files into this new folder, to read them
  --hash SHA256                        the whole hash of the code that was read, instead of a question
  --withdraw SHA256                    take back an approval; its first 8 characters will do
  --json                               one object, for a program to read
"""


def main() -> None:
    """Run the subcommand that the first word names."""
    os.umask(0o077)  # what it writes is of a hospital, and of patients
    enter("gliofed-client", _run)


def _run() -> int:
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h") or "--help" in words:
        from gliofed.shared.tasks import TASKS

        print(HELP.replace("{task}", f"task={'|'.join(TASKS):<31}"))
        return 0
    if command == "check":
        return _check(words)
    if command == "predict":
        from gliofed.client.prediction.predict_command import predict_command

        return predict_command(words)
    if command == "ledger":
        from gliofed.client.round.ledger_command import ledger_command

        return ledger_command(words)
    if command == "audit":
        from gliofed.client.round.audit_command import audit_command

        return audit_command(words)
    if command in ("join", "approve", "start", "status", "withdraw"):
        return _hospital(command, words)
    return _wrong(
        f"no command {command!r}; there are: check, predict, ledger, audit, join, approve, start, status, withdraw"
    )


def _hospital(command: str, words: list[str]) -> int:
    """Do what a hospital does across machines."""
    parser = argparse.ArgumentParser(prog=f"gliofed-client {command}", add_help=False)
    if command == "join":
        parser.add_argument("kit", type=path_word, metavar="KIT.zip")
        parser.add_argument("--patients", type=int, metavar="N")
        parser.add_argument("--hash", metavar="HASH")
        parser.add_argument("--into", type=path_word, metavar="DIR")
    elif command == "approve":
        parser.add_argument("folder", type=path_word, metavar="DIR")
        parser.add_argument("--code", type=path_word, metavar="FILE.fab")
        parser.add_argument("--hash", metavar="SHA256")
        parser.add_argument("--withdraw", metavar="SHA256")
        parser.add_argument("--unpack", type=path_word, metavar="DIR")
    else:
        if command == "withdraw":
            parser.add_argument("patient", metavar="PATIENT")
            parser.add_argument("--yes", action="store_true")
            parser.add_argument("--undo", action="store_true")
        parser.add_argument("folder", type=path_word, nargs="?", default=Path(), metavar="DIR")
    if command == "status":
        parser.add_argument("--json", action="store_true")
    given = parser.parse_args(words)
    if command == "join":
        from gliofed.client.link.join import join

        print("\n".join(join(given.kit, given.into, patients=given.patients, kit_hash=given.hash)))
        return 0
    if command == "approve":
        from gliofed.client.link.approve import approve, unpack, withdraw

        if given.withdraw:
            return withdraw(given.folder, given.withdraw)
        if given.unpack:
            return unpack(given.folder, given.code, given.unpack)
        return approve(given.folder, given.code, given.hash)
    if command == "start":
        from gliofed.client.link.start import start

        return start(given.folder)
    if command == "withdraw":
        from gliofed.client.link.withdraw_command import undo_command, withdraw_command

        return (undo_command if given.undo else withdraw_command)(given.patient, given.folder, given.yes)
    from gliofed.client.link.status_command import status

    return status(given.folder, given.json)


def _check(words: list[str]) -> int:
    from gliofed.shared.hydra_words import composed

    try:
        values = composed("check", words, PATHS)
        # Only now, so that a mistyped key is answered at once.
        from gliofed.client.doctor.check_command import check

        return check(values)
    except UserError as error:
        return _wrong(str(error))


def _wrong(sentence: str) -> int:
    tell("gliofed-client", f"{sentence}; see gliofed-client --help")
    return WRONG_USE
