"""The cohort of a study at this site: checked once, frozen by a manifest, and watched for changes.

The manifest is one file in the site's work folder, whatever runs ask: every case with the facts that it is judged by,
and the size, time of change and SHA-256 of every file. What a run may use of it is judged for each request, without
reading a scan again. It names patients, so it stays at the site. Cases that come later do not belong to the cohort.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from gliofed.client.doctor.consent import Consent, read_consent
from gliofed.client.doctor.examine import examine
from gliofed.client.doctor.findings import Facts, FileState
from gliofed.client.doctor.inspection import Inspection
from gliofed.client.doctor.judgement import judge
from gliofed.shared.config import DataConfig
from gliofed.shared.data.cases import Case, used
from gliofed.shared.data.dataset import site_inventory
from gliofed.shared.data.layouts import TABLES, Inventory
from gliofed.shared.data.prepare import prepared_shape
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import write_json
from gliofed.shared.site_config import CheckConfig, SiteConfig
from gliofed.shared.tasks import TASKS, some_suffice
from gliofed.shared.terminal import command_line
from gliofed.shared.wording import quantity
from gliofed.shared.work_folder import WorkFolder

log = logging.getLogger("gliofed.site")

VERSION = 2
"""Of what a manifest holds. Version 1 had one for each task, split and set of modalities."""
ANEW = "freeze the cohort anew: gliofed-client check with the site's work folder"
CURE = f"put the old one back, or {ANEW}"


@dataclass(frozen=True)
class Entry:
    """One visit of one patient."""

    case: Case
    facts: Facts


@dataclass(frozen=True)
class Manifest:
    """What was frozen."""

    version: int
    settings: dict[str, Any]
    """Those of site.yaml by which files are found and read."""
    everybody: bool
    """Whether it has every patient under the root, and not only those that site.yaml named."""
    tables: list[FileState]
    """Files that tell grades and sides."""
    entries: list[Entry]
    """By patient, and in order of time."""


MANIFEST = TypeAdapter(Manifest)
"""A manifest as JSON, and back."""


@dataclass(frozen=True)
class Admitted:
    """Who may be trained and evaluated on."""

    cases: list[Case]
    """By patient, and in order of time."""
    left_out: dict[str, int]
    """Code -> visits that the check refused, each by its first error."""


class NonePassedError(DataError):
    """No case of the site passed; how many fell to which code may leave the site."""

    def __init__(self, code: str, sentence: str, left_out: dict[str, int]) -> None:
        """Keep the counts as well."""
        super().__init__(code, sentence)
        self.left_out = left_out


def admit(site: SiteConfig, data: DataConfig, task: str) -> Admitted:
    """Give the cases of the frozen cohort that a run may use; freeze it first, on one core, where that was not done.

    Raises DataError: changed_file if a file is not what was frozen, whether the run reads it or not, or site.yaml asks
    for something else; the first case's code if none passed; too_fine where data.spacing makes a scan too large; and
    those of `site_inventory`.
    """
    consent = read_consent(Path(site.work))
    entries = [entry for entry in _frozen(site, consent).entries if belongs(site, consent, entry.case.patient)]
    names = {case.patient for case in used([entry.case for entry in entries], data.test)}
    entries = [entry for entry in entries if entry.case.patient in names]
    reports = judge(
        [entry.case for entry in entries],
        [Inspection(entry.facts) for entry in entries],
        site.check,
        data.modalities,
        TASKS[task],
        data.validation,
        data.split_seed,
        data.test,
        some_suffice(data, task) and not site.policy.complete,
    )
    errors = [[each for each in report.findings if each.severity == "error"] for report in reports]
    for error in chain.from_iterable(errors):
        log.warning("left out (%s): %s", error.code, error.message)
    refused = [found[0] for found in errors if found]
    left_out = dict(Counter(error.code for error in refused))
    usable = [entry for entry, found in zip(entries, errors, strict=True) if not found]
    if not entries:
        raise DataError("no_cases", f"{site.root}: every patient of the cohort withdrew, or is declared to be tested")
    if not usable:
        sentence = f"{site.root}: none of {quantity(len(refused), 'case')} passed. First: {refused[0].message}"
        raise NonePassedError(refused[0].code, sentence, left_out)
    _check_spacing(site, data, usable)
    return Admitted([entry.case for entry in usable], left_out)


def read_manifest(work: Path) -> Manifest | None:
    """Read what was frozen; None where nothing was. Raises DataError, unreadable, where it cannot be relied on."""
    path = WorkFolder(work).manifest
    if not path.exists():
        if any(_of_version_1(work)):
            raise DataError("unreadable", f"{path.parent}: was frozen by an earlier version of gliofed; {ANEW}")
        if WorkFolder(work).trained.exists():  # or a request could freeze anew, once the manifest is lost
            raise DataError("unreadable", f"{path}: is gone since the site trained; {CURE}")
        return None
    try:
        manifest = MANIFEST.validate_python(json.loads(path.read_bytes()))  # pydantic's JSON knows no half letters
        if manifest.version != VERSION:
            raise ValueError(f"version {manifest.version}")
    except (OSError, ValueError, RecursionError) as error:
        raise DataError("unreadable", f"{path}: no manifest ({str(error).splitlines()[0]}); {ANEW}") from None
    return manifest


def write_manifest(work: Path, manifest: Manifest) -> None:
    """Write what is frozen from now on; one of an earlier version goes."""
    write_json(WorkFolder(work).manifest, MANIFEST.dump_python(manifest, mode="json"))
    for old in _of_version_1(work):
        old.unlink()


def freeze(site: SiteConfig, cases: Sequence[Case], inspected: Sequence[Inspection]) -> Manifest:
    """Freeze inspected cases of the site, but for those of patients who withdrew; an older manifest is replaced."""
    consent, root = read_consent(Path(site.work)), Path(site.root)
    checked = zip(cases, inspected, strict=True)
    entries = [Entry(case, each.facts) for case, each in checked if consent.given(case.patient)]
    tables = [_state(table) for pattern in TABLES for table in sorted(root.glob(pattern))]
    manifest = Manifest(VERSION, _settings(site), site.patients is None, tables, entries)
    write_manifest(Path(site.work), manifest)
    return manifest


def freeze_command(site: SiteConfig) -> str:
    """The hospital's command that freezes the cohort as site.yaml has it."""
    own = {"spacing": site.check.spacing, "size": site.check.size}
    limits = [f"check.{key}={list(own[key])}" for key in own if own[key] != getattr(CheckConfig, key)]
    arguments = [f"data.root={site.root}", f"data.labels={site.labels}", f"work={site.work}", *limits]
    return command_line("gliofed-client", "check", *arguments)


def misfit(site: SiteConfig, manifest: Manifest) -> str | None:
    """Say what site.yaml asks for that was not frozen; None where the manifest fits."""
    known, now = manifest.settings, _settings(site)
    if changed := [key for key in now if now[key] != known.get(key)]:
        why = ", ".join(f"{key}={now[key]}, and {known.get(key)} was frozen" for key in changed)
    elif site.patients is None:
        why = "" if manifest.everybody else "all patients under root, and some were frozen"
    else:
        consent, frozen = read_consent(Path(site.work)), {entry.case.patient for entry in manifest.entries}
        missing = {name for name in site.patients if consent.given(name)} - frozen
        why = f"patients names {min(missing)}, who was not frozen" if missing else ""
    cure = f"put that back, or freeze the cohort anew: {freeze_command(site)}"
    return f"{site.folder.manifest}: site.yaml has {why}; {cure}" if why else None


def _settings(site: SiteConfig) -> dict[str, Any]:
    """What decides which files are found, and what is seen in them."""
    spacing, size = list(site.check.spacing), list(site.check.size)
    return {"root": str(Path(site.root).resolve()), "labels": site.labels, "spacing": spacing, "size": size}


def _check_spacing(site: SiteConfig, data: DataConfig, entries: Sequence[Entry]) -> None:
    """Decline, before a scan is read, a spacing that would take more memory and disk than the hospital allows."""
    for entry in entries if data.spacing else ():
        for grid in entry.facts.grids.values():
            shape = prepared_shape(grid.volume, data)
            if prod(shape) > (most := site.policy.max_scan_voxels):
                made = f"{entry.case.patient} visit {entry.case.visit} would have {'x'.join(map(str, shape))} voxels"
                sentence = f"data.spacing={data.spacing}: {made}, policy.max_scan_voxels allows {most}"
                raise DataError("too_fine", sentence)


def belongs(site: SiteConfig, consent: Consent, patient: str) -> bool:
    """Whether a patient is of those that site.yaml names, and did not withdraw."""
    return (site.patients is None or patient in site.patients) and consent.given(patient)


def _frozen(site: SiteConfig, consent: Consent) -> Manifest:
    """What is frozen, with no file changed; frozen now where nothing was. A request never freezes anew."""
    if manifest := read_manifest(Path(site.work)):
        if sentence := misfit(site, manifest):
            raise DataError("changed_file", sentence)
        return _unchanged(site, consent, manifest)
    inventory = consenting_inventory(site, consent)
    for stray in inventory.not_understood:
        log.warning("not understood: %s", stray)
    cases = inventory.cases
    return freeze(site, cases, examine(cases, site.check, workers=1, draw=False))


def consenting_inventory(site: SiteConfig, consent: Consent) -> Inventory:
    """Find the cases of the site's patients but those who withdrew. Raises DataError as `site_inventory` does."""
    if site.patients is not None:  # else those whose scans are gone would be missed, and named
        site = replace(site, patients=tuple(filter(consent.given, site.patients)))
    inventory = site_inventory(site)
    return replace(inventory, cases=[case for case in inventory.cases if consent.given(case.patient)])


def _unchanged(site: SiteConfig, consent: Consent, manifest: Manifest) -> Manifest:
    """Raise DataError where a file of the cohort holds something else; note the new times of those only touched."""
    tables = [_same(known) for known in manifest.tables]
    entries = [
        replace(entry, facts=replace(entry.facts, files=[_same(known) for known in entry.facts.files]))
        if belongs(site, consent, entry.case.patient)
        else entry
        for entry in manifest.entries
    ]
    now = replace(manifest, tables=tables, entries=entries)
    if now != manifest:
        write_manifest(Path(site.work), now)
    return now


def _same(known: FileState) -> FileState:
    """The state of a file that was at most touched. Raises DataError where it holds something else."""
    try:
        state = known.path.stat()
        if (state.st_size, state.st_mtime_ns) == (known.size, known.mtime_ns):
            return known
        now = _state(known.path)
    except FileNotFoundError:
        raise DataError("changed_file", f"{known.path}: is gone since the cohort was frozen; {CURE}") from None
    except OSError as error:
        raise DataError("unreadable", f"{known.path}: {error.strerror}; look at the file and its rights") from error
    if now.sha256 != known.sha256:
        raise DataError("changed_file", f"{known.path}: changed since the cohort was frozen; {CURE}")
    return now


def _state(path: Path) -> FileState:
    state = path.stat()
    with path.open("rb") as file:
        return FileState(path, state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())


def _of_version_1(work: Path) -> list[Path]:
    return [path for path in WorkFolder(work).cohort.glob("*.json") if path != WorkFolder(work).manifest]
