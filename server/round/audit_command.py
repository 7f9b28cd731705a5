"""gliofed-server audit: whether a run's audit log is whole, is signed by the sites, and agrees with theirs; copies."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from gliofed.server.provisioning.admit import read_records
from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.audit import compare, noted_head, read_audit
from gliofed.shared.audit_command import audit_status, copy_for, describe, find_audit
from gliofed.shared.signatures import Trust, read_trust
from gliofed.shared.terminal import path_word

HINT = "a run's folder"


def audit_command(arguments: list[str]) -> int:
    """Do what the arguments after `audit` ask for.

    Returns 0 where every line holds, and 1 where one does not. Raises NoLogError where there is no log.
    """
    parser = argparse.ArgumentParser(prog="gliofed-server audit")
    commands = parser.add_subparsers(required=True, metavar="verify|copy", dest="command")
    verify = commands.add_parser("verify", help="check every line of a run's log, or of the federation's")
    site = "a hospital's work folder, or a copy of its audit.jsonl or head.json, to compare with"
    verify.add_argument("--site", type=path_word, metavar="WORK", action="append", default=[], help=site)
    keys = "keys to check signatures with: ca.crt, a kit or a .pub file; by default from the federation's folder"
    verify.add_argument("--keys", type=path_word, metavar="FILE", action="append", default=[], help=keys)
    copy = commands.add_parser("copy", help="print a run's log for one hospital, with the lines of others as hashes")
    copy.add_argument("--site", metavar="NAME", required=True, help="the hospital's name")
    for command in (verify, copy):
        command.add_argument("run", type=path_word, metavar="RUN", help="the run's folder")
    given = parser.parse_args(arguments)
    return audit_status("gliofed-server", _verify(given) if given.command == "verify" else _copy(given))


def _verify(given: argparse.Namespace) -> Iterator[str]:
    file = find_audit(given.run, HINT)
    others = [find_audit(site, "--site a work folder, audit.jsonl or head.json") for site in given.site]
    trust = read_trust(given.keys, _known(file))
    log = read_audit(file, alone=given.run.is_file())
    yield from describe(log, "reply", trust)
    for other in others:
        if other.suffix == ".json":
            yield noted_head(other, log)
        else:
            site = read_audit(other, alone=True)
            yield from describe(site, "request", trust)
            yield compare(site, log)


def _copy(given: argparse.Namespace) -> Iterator[str]:
    yield from copy_for(read_audit(find_audit(given.run, HINT)), given.site)


def _known(log: Path) -> Trust:
    """The keys in the federation's folder, where the log is in it: every key that a site was ever admitted with."""
    for folder in log.resolve().parents:
        if (files := FederationFolder(folder)).settings.is_file() and files.authority.is_file():
            records = read_records(folder)[0].items()
            sites = {site: [one.fingerprint, *(each.fingerprint for each in one.earlier)] for site, one in records}
            return read_trust([files.authority], Trust(sites=sites))
    return Trust()
