"""gliofed-client audit: whether a site's audit log is whole, is signed by the server, and agrees with the server's."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from gliofed.client.hospital_folder import HospitalFolder
from gliofed.shared.audit import compare, read_audit
from gliofed.shared.audit_command import audit_status, describe, find_audit
from gliofed.shared.signatures import Trust, read_trust
from gliofed.shared.terminal import path_word


def audit_command(arguments: list[str]) -> int:
    """Do what the arguments after `audit` ask for.

    Returns 0 where every line holds, and 1 where one does not. Raises NoLogError where there is no log.
    """
    parser = argparse.ArgumentParser(prog="gliofed-client audit")
    commands = parser.add_subparsers(required=True, metavar="verify")
    verify = commands.add_parser("verify", help="check every line")
    place = "the site's work folder, its audit folder, or a copy of audit.jsonl"
    verify.add_argument("work", type=path_word, metavar="WORK", help=place)
    verify.add_argument("--server", type=path_word, metavar="RUN", help="a run's folder, or a copy of its audit.jsonl")
    keys = "ca.crt or a kit for the server's signatures, site.key.pub for the site's; by default the hospital's own"
    verify.add_argument("--keys", type=path_word, metavar="FILE", action="append", default=[], help=keys)
    given = parser.parse_args(arguments)
    return audit_status("gliofed-client", _verify(given))


def _verify(given: argparse.Namespace) -> Iterator[str]:
    file = find_audit(given.work, "a site's work folder")
    server = given.server and find_audit(given.server, "--server a run's folder")
    trust = read_trust(given.keys, _known(file))
    log = read_audit(file, alone=given.work.is_file())
    yield from describe(log, "request", trust)
    if server:
        other = read_audit(server, alone=True)
        yield from describe(other, "reply", trust)
        yield compare(log, other)


def _known(log: Path) -> Trust:
    """The keys in the hospital's folder, where the log is in it."""
    for folder in log.resolve().parents:
        keys = HospitalFolder(folder).authority, HospitalFolder(folder).public_key
        if all(path.is_file() for path in keys):
            return read_trust(keys)
    return Trust()
