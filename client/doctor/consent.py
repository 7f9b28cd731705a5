"""Who withdrew consent: kept by pseudonym, so that the name is gone from the work folder and the patient stays out.

A pseudonym is a keyed hash (HMAC-SHA256) of the patient's id. The key is made at the site, in `WORK/consent.json`, and
never leaves it: who has a copy of the audit log cannot try names.
"""

import hmac
import json
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from gliofed.shared.audit import audit_file
from gliofed.shared.chain import lock
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import write_json
from gliofed.shared.locks import BusyError, lock_file
from gliofed.shared.work_folder import WorkFolder

WAIT = 10.0
"""Seconds for another process that writes the file."""
ACTS = ("withdrawn", "readmitted")
"""Events of the audit log."""


@dataclass(frozen=True)
class Consent:
    """The key of a site's pseudonyms, and who withdrew."""

    key: str
    withdrawn: frozenset[str]
    """Pseudonyms."""

    def pseudonym(self, patient: str) -> str:
        """Name a patient without the name, in hex; the same for each way in which a disk may spell an umlaut."""
        name = normalize("NFC", patient).encode(errors="surrogateescape")
        return hmac.new(self.key.encode(), name, "sha256").hexdigest()

    def given(self, patient: str) -> bool:
        """Whether the patient did not withdraw."""
        return not self.withdrawn or self.pseudonym(patient) not in self.withdrawn


def read_consent(work: Path) -> Consent:
    """Read a site's file, and make it with a new key where there is none.

    Whoever withdrew by the audit log did so, also where an older copy of the file was put back. Raises DataError,
    unreadable: nobody may be trained on while it is not known who withdrew.
    """
    path = WorkFolder(work).consent
    logged = _logged(work)
    if not path.exists():
        if logged or WorkFolder(work).trained.exists():  # both have pseudonyms by its key
            raise DataError("unreadable", f"{path}: is gone, so it is not known who withdrew; restore a copy")
        with lock(work, WAIT):
            if not path.exists():
                write_json(path, {"key": secrets.token_hex(32), "withdrawn": []})
    try:
        values = json.loads(path.read_text())
        return Consent(str(values["key"]), logged.union(map(str, values["withdrawn"])))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sentence = "cannot be read, so it is not known who withdrew; restore a copy"
        raise DataError("unreadable", f"{path}: {sentence}") from None


def withdrawn_by(events: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The pseudonyms of those whom an audit log has withdrawn, and not admitted again since."""
    last = {event["patient"]: event["event"] for event in events if event["event"] in ACTS}
    return frozenset(patient for patient, act in last.items() if act == "withdrawn")


def _logged(work: Path) -> frozenset[str]:
    file = audit_file(work)
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []  # what follows the last is half a line
    try:
        return withdrawn_by(json.loads(line) for line in lines if any(f'"{act}"'.encode() in line for act in ACTS))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError("unreadable", f"{file}: a line is damaged; put it and head.json back from a copy") from None


def add_withdrawn(work: Path, patient: str, undo: bool = False) -> None:
    """Put a patient on the list; `undo` takes one off, of whom the audit log says so already. On disk on return."""
    read_consent(work)  # makes the file where there is none
    with lock(work, WAIT):
        consent = read_consent(work)
        name = {consent.pseudonym(patient)}
        withdrawn = consent.withdrawn - name if undo else consent.withdrawn | name
        write_json(WorkFolder(work).consent, {"key": consent.key, "withdrawn": sorted(withdrawn)})


@contextmanager
def hold_patients(work: Path, alone: bool = False) -> Iterator[None]:
    """Hold what the work folder has of patients, its log too: requests and a check side by side, and alone what takes
    some of it away.

    Waits for who holds it, and says so where a command is meant to be alone. A killed process gives it back.
    """
    file = WorkFolder(work).patients_lock
    busy = f"{work}: in use by a request or another command; waiting until it ends"
    try:
        held = lock_file(file, busy, shared=not alone)
    except BusyError:
        if alone:
            print(busy, file=sys.stderr, flush=True)
        held = lock_file(file, busy, shared=not alone, wait=None)
    with held:
        yield
