"""Consent withdrawn: a patient leaves the frozen cohort, with all that the work folder has of them.

Each step can be done again, so a command that was killed is completed by the next one. From the first on no request
begins with the patient, and what is being answered meanwhile does not leave the site.
"""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree

from gliofed.client.doctor.consent import (
    Consent,
    add_withdrawn,
    drop_withdrawn,
    hold_patients,
    read_consent,
    withdrawn_by,
)
from gliofed.client.doctor.manifest import Manifest, read_manifest, write_manifest
from gliofed.client.round.audit import note
from gliofed.client.round.outbox import outbox_of
from gliofed.client.round.policy import DeclinedError
from gliofed.client.round.redaction import hiding
from gliofed.client.round.trained import runs_with
from gliofed.shared.audit import audit_file
from gliofed.shared.chain import begun, head_file, read_chain, read_head
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import write_bytes
from gliofed.shared.parse import ConfigError
from gliofed.shared.processes import user_name
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.work_folder import WorkFolder

NO_TEXT = (".npy", ".safetensors", ".gz", ".png")


@dataclass(frozen=True)
class Withdrawal:
    """What became of it."""

    runs: list[str]
    """Ids of the runs that trained with the patient."""
    unknown: list[str]
    """Ids of runs whose list of whom they trained with is damaged, or that noted none, as an earlier version."""
    replies: int
    """Stored replies that were removed."""
    entries: int
    """Entries of the cache that were removed."""
    reports: list[Path]
    """Reports of a check that were removed."""
    same: list[str]
    """Other patients of the cohort who have a scan of the same voxels: the same person, by another name."""
    left: list[Path]
    """Files that still name the patient: those of others in the work folder, and a manifest that cannot be read."""


def withdraw(site: SiteConfig, patient: str) -> Withdrawal:
    """Withdraw a patient of the site; wait until a request that is being answered ends.

    Raises ConfigError where nothing here knows the patient, DataError where it is not known who withdrew, and
    DeclinedError, with all else done, where the audit log cannot be read or written.
    """
    work, consent = Path(site.work), read_consent(Path(site.work))
    everybody, pseudonym = _everybody(site), consent.pseudonym(patient)
    names = {name for name in everybody if consent.pseudonym(name) == pseudonym}
    if not names and not _known(site, consent, patient):
        like = f", where patients are named like {min(everybody)}" if everybody else ""
        raise ConfigError(f"{patient}: {work} has nothing of such a patient{like}; look at the spelling")
    same = _same(work, names)
    add_withdrawn(work, patient)
    names.add(patient)
    hide = hiding(names, everybody - names)
    with hold_patients(work, alone=True):
        replies = outbox_of(site).with_patient(pseudonym)
        entries = [entry for entry, patients in _entries(work) if patients is None or names & patients]
        reports = list(_reports(work, names))
        try:
            runs, unknown = _note(site, pseudonym, {"replies": len(replies) // 2, "cache": len(entries)})
        finally:  # a log that cannot be written keeps nobody here
            _remove(work, names, entries, [*replies, *reports], hide)
        return Withdrawal(runs, unknown, len(replies) // 2, len(entries), reports, same, list(_left(work, hide)))


def readmit(site: SiteConfig, patient: str) -> None:
    """Take back a withdrawal that was a mistake: the cohort that is frozen next has the patient again.

    Raises ConfigError where the patient did not withdraw, and as `withdraw` does.
    """
    work = Path(site.work)
    with hold_patients(work, alone=True):
        consent = read_consent(work)
        if consent.given(patient):
            raise ConfigError(f"{patient}: did not withdraw, as {work} has it; look at the spelling")
        if (pseudonym := consent.pseudonym(patient)) in withdrawn_by(_events(work)):
            note(site, {"event": "readmitted", "user": user_name(), "patient": pseudonym})
        drop_withdrawn(work, patient)


def _everybody(site: SiteConfig) -> set[str]:
    """Names of the patients that the cohort, the cache and the scans tell of, as far as these can be read."""
    manifest = _readable(Path(site.work))
    names = {entry.case.patient for entry in manifest.entries} if manifest else set[str]()
    names.update(*(patients for _, patients in _entries(Path(site.work)) if patients))
    frozen = manifest.settings if manifest else {}
    if root := site.root or frozen.get("root"):
        with suppress(DataError, OSError):
            names.update(case.patient for case in find_cases(Path(root), site.labels or frozen["labels"]))
    return names


def _known(site: SiteConfig, consent: Consent, patient: str) -> bool:
    """Whether the patient is one who withdrew or trained, or of a manifest or of scans that cannot be told apart."""
    texts = (path.read_text(errors="replace") for path in site.folder.manifest.parent.glob("*.json"))
    trained, _ = runs_with(Path(site.work), consent.pseudonym(patient))
    if trained or not consent.given(patient) or any(json.dumps(patient) in text for text in texts):
        return True
    if not site.root:
        return False
    try:
        find_cases(Path(site.root), site.labels)
    except (DataError, OSError):  # a folder may be a patient's
        folders = {path.name for pattern in ("*/", "*/*/") for path in Path(site.root).glob(pattern)}
        return consent.pseudonym(patient) in map(consent.pseudonym, folders)
    return False


def _same(work: Path, names: Collection[str]) -> list[str]:
    manifest = _readable(work)
    scans = (
        [(entry.case.patient, image.digest) for entry in manifest.entries for image in entry.facts.images.values()]
        if manifest
        else []
    )
    own = {digest for name, digest in scans if name in names}
    return sorted({name for name, digest in scans if digest in own and name not in names})


def _readable(work: Path) -> Manifest | None:
    with suppress(DataError):
        return read_manifest(work)
    return None


def _remove(
    work: Path, names: Collection[str], entries: list[Path], files: list[Path], hide: Callable[[str], str]
) -> None:
    if manifest := _readable(work):
        rest = [entry for entry in manifest.entries if entry.case.patient not in names]
        write_manifest(work, replace(manifest, entries=rest))
    for entry in entries:
        rmtree(entry)
    for path in files:
        path.unlink(missing_ok=True)
    _drop_unfinished(work)
    for log in (WorkFolder(work).log, WorkFolder(work).old_log):
        if log.exists() and (without := hide(text := _text(log))) != text:
            write_bytes(log, without.encode(errors="surrogateescape"))


def _note(site: SiteConfig, pseudonym: str, counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """Note the withdrawal, once; return the runs that trained with the patient, and those that may have."""
    runs, noted = runs_with(Path(site.work), pseudonym)
    events = _events(Path(site.work))
    unknown = sorted(_trained(events) - {*noted})
    if pseudonym not in withdrawn_by(events):
        about = {"patient": pseudonym, "runs": runs, "unknown": unknown, **counts}
        note(site, {"event": "withdrawn", "user": user_name(), **about})
    return runs, unknown


def _events(work: Path) -> list[dict[str, object]]:
    file = audit_file(work)
    try:
        return read_chain(file, "", read_head(head_file(file))).events() if begun(file) else []
    except ConfigError as error:
        raise DeclinedError("audit", str(error)) from None


def _trained(events: list[dict[str, object]]) -> set[str]:
    """Runs to which an update left."""
    left = [event for event in events if event["event"] == "receipt" and event["kind"] == "train"]
    return {str(event["run_id"]) for event in left if event["status"] == "ok"}


def _entries(work: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """Entries of the cache, and whose they are; None where one is damaged, and may be anybody's."""
    for entry in filter(Path.is_dir, WorkFolder(work).cache.glob("[!.]*")):
        try:
            visits = json.loads((entry / "entry.json").read_text(encoding="utf-8"))["of"]["visits"]
            yield entry, {str(visit["patient"]) for visit in visits}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            yield entry, None


def _drop_unfinished(work: Path) -> None:
    """Remove what killed processes left half: nobody else is here."""
    for entry in WorkFolder(work).cache.glob(".half-*"):
        rmtree(entry)
    half = [path for folder in (WorkFolder(work).cohort, WorkFolder(work).outbox) for path in folder.glob(".*.tmp")]
    updates = WorkFolder(work).outbox.glob("*.safetensors")
    for path in (*half, *(update for update in updates if not update.with_suffix(".json").exists())):
        path.unlink()


def _reports(work: Path, names: Collection[str]) -> Iterator[Path]:
    """Pages of a check that name the patient, wherever somebody had them written in the work folder."""
    for found in sorted(work.rglob("check.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # no report of a check
            if any(case["patient"] in names for case in json.loads(found.read_text())["cases"]):
                yield found.with_name("check.html")
                yield found  # last, for the other is found by it


def _left(work: Path, hide: Callable[[str], str]) -> Iterator[Path]:
    """Files that name the patient, in their path or in their text, and that are not the site's own."""
    files = WorkFolder(work)
    own = {audit_file(work).parent, files.cache, files.ledger, files.outbox, files.trained, files.log, files.old_log}
    own |= {files.cohort} if _readable(work) else set()  # taken care of above, or never with a name
    for path in sorted(work.rglob("*")):
        place = path.relative_to(work)
        if work / place.parts[0] not in own and path.is_file():
            text = str(place) if path.suffix in NO_TEXT else f"{place}\n{_text(path)}"
            if hide(text) != text:
                yield path


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")
