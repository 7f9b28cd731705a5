"""gliofed-client audit: whether a site's audit log is whole, and agrees with a server's."""

import argparse
import sys
from pathlib import Path

from shared.audit import compare, find_audit, read_audit
from shared.parse import ConfigError
from shared.terminal import plain

FAILED, WRONG_USE = 1, 2


def audit_command(words: list[str]) -> int:
    """Do what the words after `audit` ask for.

    Returns 0 where every line holds, 1 where one does not, and 2 where there is no log.
    """
    parser = argparse.ArgumentParser(prog="gliofed-client audit", add_help=False)
    commands = parser.add_subparsers(required=True, metavar="verify")
    verify = commands.add_parser("verify", add_help=False)
    verify.add_argument("work", type=Path, metavar="WORK")
    verify.add_argument("--server", type=Path, metavar="RUN", help="a run's folder, or a copy of its audit.jsonl")
    arguments = parser.parse_args(words)
    file = find_audit(arguments.work.expanduser())
    if file is None:
        return _say(f"{arguments.work}: no audit log there; give a site's work folder", WRONG_USE)
    other = arguments.server and find_audit(arguments.server.expanduser())
    if arguments.server and other is None:
        return _say(f"--server {arguments.server}: no audit log there; give a run's folder", WRONG_USE)
    try:
        log = read_audit(file)
        print(f"{file}: {len(log.lines)} lines hold; head {log.head}")
        if other is not None:
            print(plain(compare(log, read_audit(other, alone=True))))
    except ConfigError as error:
        return _say(str(error), FAILED)
    return 0


def _say(sentence: str, status: int) -> int:
    print(f"gliofed-client: {plain(sentence)}", file=sys.stderr)
    return status
