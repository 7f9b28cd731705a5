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

from gliofed.client.doctor.consent import Consent, add_withdrawn, hold_patients, read_consent, withdrawn_by
from gliofed.client.doctor.manifest import Manifest, read_manifest, write_manifest
from gliofed.client.round.audit import hold_log
from gliofed.client.round.outbox import Outbox
from gliofed.client.round.redaction import hiding
from gliofed.client.round.states import forget
from gliofed.client.round.trained import runs_with
from gliofed.shared.audit import audit_file
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
    states: list[str]
    """Ids of runs of which what the site kept was removed: of those that trained with the patient, or may have."""
    entries: int
    """Entries of the cache that were removed."""
    reports: list[Path]
    """Reports of a check and of the site, and the folder of comparisons, that were removed."""
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
    manifest, pseudonym = _readable(work), consent.pseudonym(patient)
    in_scans = _in_scans(site, manifest)
    everybody = {entry.case.patient for entry in manifest.entries} if manifest else set[str]()
    everybody.update(in_scans or (), *(patients for _, patients in _entries(work) if patients))
    names = {name for name in everybody if consent.pseudonym(name) == pseudonym}
    if not names and not _known(site, consent, patient, in_scans):
        like = f", where patients are named like {min(everybody)}" if everybody else ""
        raise ConfigError(f"{patient}: {work} has nothing of such a patient{like}; look at the spelling")
    same = _same(manifest, names)
    add_withdrawn(work, patient)
    names.add(patient)
    hide = hiding(names, everybody - names)
    with hold_patients(work, alone=True):
        manifest = _readable(work)  # again, for a check may have frozen another one
        replies = Outbox(site.folder.outbox).with_patient(pseudonym)
        entries = [entry for entry, patients in _entries(work) if patients is None or names & patients]
        reports = list(_reports(work, names))
        trained, listed = runs_with(work, pseudonym)
        without = {*listed} - {*trained}
        try:
            runs, unknown = _record(site, pseudonym, {"replies": len(replies) // 2, "cache": len(entries)})
        finally:  # a log that cannot be written keeps nobody here
            if manifest:
                rest = [entry for entry in manifest.entries if entry.case.patient not in names]
                write_manifest(work, replace(manifest, entries=rest))
            _remove(site.folder, entries, [*replies, *reports], hide)
            states = forget(site.folder.state, without)
        left = list(_left(work, hide, manifest))
        return Withdrawal(runs, unknown, len(replies) // 2, states, len(entries), reports, same, left)


def readmit(site: SiteConfig, patient: str) -> None:
    """Take back a withdrawal that was a mistake: the cohort that is frozen next has the patient again.

    Raises ConfigError where the patient did not withdraw, and as `withdraw` does.
    """
    work = Path(site.work)
    with hold_patients(work, alone=True):
        consent = read_consent(work)
        if consent.given(patient):
            raise ConfigError(f"{patient}: did not withdraw, as {work} has it; look at the spelling")
        pseudonym = consent.pseudonym(patient)
        with hold_log(site) as log:
            if pseudonym in withdrawn_by(log.events()):
                log.append({"event": "readmitted", "user": user_name(), "patient": pseudonym})
        add_withdrawn(work, patient, undo=True)


def _in_scans(site: SiteConfig, manifest: Manifest | None) -> set[str] | None:
    """Names of the patients who have scans; None where these cannot be told apart."""
    frozen = manifest.settings if manifest else {}
    root = site.root or frozen.get("root")
    try:
        return {case.patient for case in find_cases(Path(root), site.labels or frozen["labels"])} if root else set()
    except (DataError, OSError):
        return None


def _known(site: SiteConfig, consent: Consent, patient: str, in_scans: set[str] | None) -> bool:
    """Whether the patient is one who withdrew or trained, or of a manifest or of scans that cannot be told apart."""
    texts = (path.read_text(errors="replace") for path in site.folder.cohort.glob("*.json"))
    trained, _ = runs_with(Path(site.work), consent.pseudonym(patient))
    if trained or not consent.given(patient) or any(json.dumps(patient) in text for text in texts):
        return True
    if not site.root or in_scans is not None:
        return False
    folders = {path.name for pattern in ("*/", "*/*/") for path in Path(site.root).glob(pattern)}
    return consent.pseudonym(patient) in map(consent.pseudonym, folders)  # a folder may be a patient's


def _same(manifest: Manifest | None, names: Collection[str]) -> list[str]:
    entries = manifest.entries if manifest else []
    scans = [(entry.case.patient, image.digest) for entry in entries for image in entry.facts.images.values()]
    own = {digest for name, digest in scans if name in names}
    return sorted({name for name, digest in scans if digest in own and name not in names})


def _readable(work: Path) -> Manifest | None:
    with suppress(DataError):
        return read_manifest(work)
    return None


def _remove(folder: WorkFolder, entries: list[Path], files: list[Path], hide: Callable[[str], str]) -> None:
    for entry in entries:
        rmtree(entry)
    for path in files:
        if path.is_dir():
            rmtree(path)
        else:
            path.unlink(missing_ok=True)
    # What killed processes left half: nobody else is here.
    for entry in folder.cache.glob(".half-*"):
        rmtree(entry)
    updates = [path for path in folder.outbox.glob("*.safetensors") if not path.with_suffix(".json").exists()]
    for path in (*updates, *folder.cohort.glob(".*.tmp"), *folder.outbox.glob(".*.tmp")):
        path.unlink()
    for log in (folder.log, folder.old_log):
        if log.exists() and (without := hide(text := _text(log))) != text:
            write_bytes(log, without.encode(errors="surrogateescape"))


def _record(site: SiteConfig, pseudonym: str, counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """Record the withdrawal, once; return the runs that trained with the patient, and those that may have."""
    runs, listed = runs_with(Path(site.work), pseudonym)
    with hold_log(site) as log:
        events = log.events()
        receipts = [event for event in events if event["event"] == "receipt" and event["kind"] == "train"]
        trained = {str(event["run_id"]) for event in receipts if event["status"] == "ok"}  # an update left to them
        unknown = sorted(trained - {*listed})
        if pseudonym not in withdrawn_by(events):
            about = {"patient": pseudonym, "runs": runs, "unknown": unknown, **counts}
            log.append({"event": "withdrawn", "user": user_name(), **about})
    return runs, unknown


def _entries(work: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """Entries of the cache, and whose they are; None where one is damaged, and may be anybody's."""
    for entry in filter(Path.is_dir, WorkFolder(work).cache.glob("[!.]*")):
        try:
            visits = json.loads((entry / "entry.json").read_text(encoding="utf-8"))["of"]["visits"]
            yield entry, {str(visit["patient"]) for visit in visits}
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            yield entry, None


def _reports(work: Path, names: Collection[str]) -> Iterator[Path]:
    """Pages of a check that name the patient, wherever somebody had them written in the work folder."""
    for found in sorted(work.rglob("check.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):  # no report of a check
            if any(case["patient"] in names for case in json.loads(found.read_text())["cases"]):
                yield found.with_name("check.html")
                yield found  # last, for the other is found by it
    files = WorkFolder(work)
    # A page may show slices of anybody; a comparison's model may have been trained with anybody.
    yield from (path for path in (files.page, files.compare) if path.exists())


def _left(work: Path, hide: Callable[[str], str], manifest: Manifest | None) -> Iterator[Path]:
    """Files that name the patient, in their path or in their text, and that are not the site's own."""
    files = WorkFolder(work)
    own = {audit_file(work).parent, files.cache, files.ledger, files.outbox, files.trained, files.log, files.old_log}
    own |= {files.cohort} if manifest else set()  # taken care of above, or never with a name
    for path in sorted(work.rglob("*")):
        place = path.relative_to(work)
        if work / place.parts[0] not in own and path.is_file():
            text = str(place) if path.suffix in NO_TEXT else f"{place}\n{_text(path)}"
            if hide(text) != text:
                yield path


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="surrogateescape")
