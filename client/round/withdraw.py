"""Consent withdrawn: a patient leaves the frozen cohort, with all that the work folder has of them.

Each step can be done again, so a command that was killed is completed by the next one. From the first on no request
begins with the patient, and what is being answered meanwhile does not leave the site.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

from client.doctor.consent import add_withdrawn, hold_patients, read_consent
from client.doctor.manifest import read_manifest, write_manifest
from client.round.audit import note
from client.round.outbox import outbox_of
from client.round.trained import runs_with
from shared.audit import audit_file
from shared.chain import begun, read_chain, read_head
from shared.files import write_bytes
from shared.parse import ConfigError
from shared.site_config import SiteConfig
from shared.terminal import plain

OWN = ("audit", "cache", "cohort", "ledger", "outbox", "trained", "site.log", "site.old.log")
"""Parts of a work folder that this file takes care of, or that never name a patient."""
NO_TEXT = (".npy", ".safetensors", ".gz", ".png")
INSTEAD = "(withdrawn)"


@dataclass(frozen=True)
class Withdrawal:
    """What became of it."""

    runs: list[str]
    """Ids of the runs that trained with the patient."""
    unknown: list[str]
    """Ids of runs of an earlier version, which did not note whom they trained with."""
    replies: int
    """Stored replies that were removed."""
    entries: int
    """Entries of the cache that were removed."""
    reports: list[Path]
    """Reports of a check that were removed."""
    left: list[Path]
    """Files of others in the work folder that still name the patient."""


def withdraw(site: SiteConfig, patient: str) -> Withdrawal:
    """Withdraw a patient of the site; wait until a request that is being answered ends.

    Raises ConfigError where nothing here knows the patient, DataError where a file of the site cannot be read, and
    DeclinedError where the audit log cannot be written.
    """
    work = Path(site.work)
    _check_known(work, patient)
    add_withdrawn(work, patient)
    with hold_patients(work, alone=True):
        pseudonym = read_consent(work).pseudonym(patient)
        replies = outbox_of(site).with_patient(pseudonym)
        entries = [entry for entry, patients in _entries(work) if patients is None or patient in patients]
        runs, unknown = _note(site, pseudonym, {"replies": len(replies) // 2, "cache": len(entries)})
        if manifest := read_manifest(work):
            rest = [entry for entry in manifest.entries if entry.case.patient != patient]
            write_manifest(work, replace(manifest, entries=rest))
        for entry in entries:
            rmtree(entry)
        reports = list(_reports(work, patient))
        for path in (*replies, *reports):
            path.unlink(missing_ok=True)
        _drop_unfinished(work)
        for log in (work / "site.log", work / "site.old.log"):
            _rewrite(log, patient)
        return Withdrawal(runs, unknown, len(replies) // 2, len(entries), reports, list(_left(work, patient)))


def _check_known(work: Path, patient: str) -> None:
    """Refuse a name that nothing here knows: it is mistyped, and the patient would stay."""
    manifest, consent = read_manifest(work), read_consent(work)
    known = {entry.case.patient for entry in manifest.entries} if manifest else set[str]()
    known.update(*(patients for _, patients in _entries(work) if patients))
    if patient in known or not consent.given(patient) or runs_with(work, consent.pseudonym(patient))[0]:
        return
    like = f", where patients are named like {min(known)}" if known else ""
    raise ConfigError(f"{patient}: {work} has nothing of such a patient{like}; look at the spelling")


def _note(site: SiteConfig, pseudonym: str, counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """Note the withdrawal, once; return the runs that trained with the patient, and those that may have."""
    runs, noted = runs_with(Path(site.work), pseudonym)
    events = _events(Path(site.work))
    unknown = sorted(_trained(events) - {*noted})
    if not any(event["event"] == "withdrawn" and event["patient"] == pseudonym for event in events):
        note(site, {"event": "withdrawn", "patient": pseudonym, "runs": runs, "unknown": unknown, **counts})
    return runs, unknown


def _events(work: Path) -> list[dict[str, object]]:
    file = audit_file(work)
    return read_chain(file, "", read_head(file.parent / "head.json")).events() if begun(file) else []


def _trained(events: list[dict[str, object]]) -> set[str]:
    """Runs to which an update left."""
    left = [event for event in events if event["event"] == "receipt" and event["kind"] == "train"]
    return {str(event["run_id"]) for event in left if event["status"] == "ok"}


def _entries(work: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """Entries of the cache, and whose they are; None where one is damaged, and may be anybody's."""
    for entry in filter(Path.is_dir, (work / "cache").glob("[!.]*")):
        try:
            visits = json.loads((entry / "entry.json").read_text(encoding="utf-8"))["of"]["visits"]
            yield entry, {str(visit["patient"]) for visit in visits}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            yield entry, None


def _drop_unfinished(work: Path) -> None:
    """Remove what killed processes left half: nobody else is here."""
    for entry in (work / "cache").glob(".half-*"):
        rmtree(entry)
    half = [path for folder in ("cohort", "outbox") for path in (work / folder).glob(".*.tmp")]
    updates = (work / "outbox").glob("*.safetensors")
    for path in (*half, *(update for update in updates if not update.with_suffix(".json").exists())):
        path.unlink()


def _named(patient: str) -> "re.Pattern[bytes]":
    """The patient's id as a word of its own, as it stands in file names, logs and JSON: P1 is not in P10."""
    forms = {patient.encode(errors="surrogateescape"), plain(patient).encode(), json.dumps(patient)[1:-1].encode()}
    letter = rb"[A-Za-z0-9\x80-\xff]"  # bytes from 0x80 are of letters beyond ASCII
    return re.compile(rb"(?<!" + letter + rb")(" + b"|".join(map(re.escape, sorted(forms))) + rb")(?!" + letter + rb")")


def _rewrite(log: Path, patient: str) -> None:
    if log.exists():
        text = log.read_bytes()
        if (without := _named(patient).sub(INSTEAD.encode(), text)) != text:
            write_bytes(log, without)


def _reports(work: Path, patient: str) -> Iterator[Path]:
    """Pages of a check that name the patient, wherever somebody had them written in the work folder."""
    for found in sorted(work.rglob("check.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # no report of a check
            if any(case["patient"] == patient for case in json.loads(found.read_text())["cases"]):
                yield found.with_name("check.html")
                yield found  # last, for the other is found by it


def _left(work: Path, patient: str) -> Iterator[Path]:
    """Files that are none of the site's own, and that name the patient, in their path or in their text."""
    named = _named(patient)
    for path in sorted(work.rglob("*")):
        place = path.relative_to(work)
        if place.parts[0] not in OWN and path.is_file():
            inside = path.suffix not in NO_TEXT and named.search(path.read_bytes())
            if inside or named.search(str(place).encode(errors="surrogateescape")):
                yield path
