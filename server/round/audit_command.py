"""gliofed-server audit: whether a run's audit log is whole, and agrees with the sites'."""

import argparse
import sys
from pathlib import Path

from shared.audit import compare, find_audit, noted_head, read_audit
from shared.parse import ConfigError
from shared.terminal import plain

FAILED, WRONG_USE = 1, 2


def audit_command(words: list[str]) -> int:
    """Do what the words after `audit` ask for.

    Returns 0 where every line holds, 1 where one does not, and 2 where there is no log.
    """
    parser = argparse.ArgumentParser(prog="gliofed-server audit", add_help=False)
    commands = parser.add_subparsers(required=True, metavar="verify")
    verify = commands.add_parser("verify", add_help=False)
    verify.add_argument("run", type=Path, metavar="RUN")
    verify.add_argument("--site", type=Path, metavar="WORK", action="append", default=[])
    arguments = parser.parse_args(words)
    file = find_audit(arguments.run.expanduser())
    if file is None:
        return _say(f"{arguments.run}: no audit log there; give a run's folder", WRONG_USE)
    others = [find_audit(site.expanduser()) for site in arguments.site]
    for site, other in zip(arguments.site, others, strict=True):
        if other is None:
            return _say(f"--site {site}: no audit log there; give a work folder, audit.jsonl or head.json", WRONG_USE)
    try:
        log = read_audit(file)
        print(f"{file}: {len(log.lines)} lines hold; head {log.head}")
        for other in filter(None, others):
            says = noted_head(other, log) if other.suffix == ".json" else compare(read_audit(other, alone=True), log)
            print(plain(says))
    except ConfigError as error:
        return _say(str(error), FAILED)
    return 0


def _say(sentence: str, status: int) -> int:
    print(f"gliofed-server: {plain(sentence)}", file=sys.stderr)
    return status
