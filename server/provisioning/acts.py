"""Who did what to a federation, and when: a chained log in its folder, audit/audit.jsonl."""

from pathlib import Path
from typing import Any

from gliofed.server.provisioning.federation_folder import FederationFolder
from gliofed.shared.audit import audit_file, read_audit
from gliofed.shared.chain import begun, hold_chain
from gliofed.shared.kit import kit_sha256
from gliofed.shared.locks import BusyError
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import user_name

WAIT = 10.0
"""Seconds for the line of another command: writing one takes milliseconds."""


def made_kits(folder: Path, site: str) -> set[str]:
    """Hashes of all the kits that were ever made for a site, as far as is known. Raises ConfigError, and OSError."""
    kit, file = FederationFolder(folder).kit(site), audit_file(folder)
    made = {kit_sha256(kit.read_bytes())} if kit.exists() else set()
    for event in read_audit(file).events() if begun(file) else []:
        if event["event"] == "provisioned":
            made |= {kits[site] for kits in (event["kits"], event["replaced"]) if site in kits}
    return made


def note_act(folder: Path, act: str, **about: Any) -> None:
    """Note an act with its time and user, before it is done where that can wait. Raises ConfigError, and OSError.

    `act` is provisioned, renewed, admitted, expelled, started, ended, run_submitted, run_resumed or run_stopped.
    """
    try:
        with hold_chain(audit_file(folder), WAIT) as log:
            log.append({"event": act, "user": user_name(), **about})
    except BusyError as error:
        raise ConfigError(str(error)) from None
