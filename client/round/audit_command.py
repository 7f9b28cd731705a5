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
    try:
        return _verify(arguments.work.expanduser(), arguments.server and arguments.server.expanduser())
    except OSError as error:  # another user's folder
        return _say(f"{error.filename}: {error.strerror}", WRONG_USE)


def _verify(work: Path, server: Path | None) -> int:
    file = find_audit(work)
    if file is None:
        return _say(f"{work}: no audit log there; give a site's work folder", WRONG_USE)
    other = server and find_audit(server)
    if server and other is None:
        return _say(f"--server {server}: no audit log there; give a run's folder", WRONG_USE)
    try:
        log = read_audit(file, alone=work.is_file())
        print(f"{file}: {len(log.lines)} lines hold; head {log.head}")
        if other is not None:
            print(plain(compare(log, read_audit(other, alone=True))))
    except ConfigError as error:
        return _say(str(error), FAILED)
    return 0


def _say(sentence: str, status: int) -> int:
    print(f"gliofed-client: {plain(sentence)}", file=sys.stderr)
    return status
