"""Which patients each run trained with, by pseudonym, so that it can be said when one withdraws consent.

`WORK/trained/RUN.json` has them all. The audit log has the SHA-256 of that file each time that it grows: the number of
patients, which a private run does not tell, cannot be read off a copy of the log.
"""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from gliofed.client.doctor.consent import read_consent
from gliofed.client.round.audit import note
from gliofed.client.round.policy import DeclinedError
from gliofed.shared.data.dataset import Patient
from gliofed.shared.files import write_bytes
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.work_folder import WorkFolder


def pseudonyms(site: SiteConfig, patients: Sequence[Patient]) -> list[str]:
    """The patients without their names, sorted."""
    consent = read_consent(Path(site.work))
    return sorted(consent.pseudonym(patient.name) for patient in patients)


def note_trained(site: SiteConfig, run_id: str, round: int, patients: Sequence[Patient]) -> None:
    """Note that a run trains with these patients, before it does."""
    names = pseudonyms(site, patients)
    path = site.folder.trained / f"{run_id}.json"
    known = _patients(path) if path.exists() else set[str]()
    if not known.issuperset(names):
        text = json.dumps({"patients": sorted(known.union(names))}, indent=0).encode()
        digest = hashlib.sha256(text).hexdigest()
        note(site, {"event": "trained_on", "run_id": run_id, "round": round, "patients_sha256": digest})
        write_bytes(path, text)


def runs_with(work: Path, pseudonym: str) -> tuple[list[str], list[str]]:
    """The runs that trained with a patient, and all that this folder tells of, with a list that can be read."""
    patients = dict[str, set[str]]()
    for path in sorted(WorkFolder(work).trained.glob("*.json")):
        with suppress(DeclinedError):
            patients[path.stem] = _patients(path)
    return [run for run in patients if pseudonym in patients[run]], [*patients]


def _patients(path: Path) -> set[str]:
    try:
        return set(map(str, json.loads(path.read_text())["patients"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        sentence = "cannot be read; restore a copy, since it says whom a run trained with"
        raise DeclinedError("data", f"{path}: {sentence}") from None
