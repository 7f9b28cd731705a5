"""The cohort of a study at this site: checked once, frozen by a manifest, and watched for changes.

A manifest is a file in the site's work folder, one for each way of reading the scans: every case with what the check
said of it, and the size, time of change and SHA-256 of every file. It names patients, so it stays at the site. Cases
that come later do not belong to the cohort.
"""

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from client.doctor.examine import CaseReport, examine
from client.doctor.inspection import Task
from shared.config import DataConfig
from shared.data.cases import Case
from shared.data.dataset import site_cases
from shared.data.layouts import TABLES
from shared.data.volume import DataError
from shared.files import write_json
from shared.site_config import SiteConfig

log = logging.getLogger("gliofed.site")

VERSION = 1
"""Of what a manifest holds."""
CASE = TypeAdapter(Case)
"""Cases as JSON, and back."""
ANEW = "freeze the cohort anew: gliofed-client check with the site's work folder"
CURE = f"put the old one back, or {ANEW}"


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


def admit(site: SiteConfig, data: DataConfig, task: Task) -> Admitted:
    """Give the cases of the frozen cohort; check the folder and freeze it first, on one core, where that was not done.

    Raises DataError: changed_file if a file is not what was frozen, the first case's code if none passed, and those of
    `site_cases`.
    """
    path = manifest_path(site, data, task)
    if not path.exists():
        cases = site_cases(site)
        reports = examine(
            cases,
            site.check,
            data.modalities,
            task,
            workers=1,
            validation=data.validation,
            split_seed=data.split_seed,
            draw=False,
        )
        freeze(path, Path(site.root), cases, reports)
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["version"] != VERSION:
            raise ValueError(f"version {manifest['version']}")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError("unreadable", f"{path}: no manifest ({error}); remove it, or {ANEW}") from None
    passed = [entry for entry in manifest["cases"] if not entry["errors"]]
    if any([_same_files(files) for files in (manifest["tables"], *(entry["files"] for entry in passed))]):
        write_json(path, manifest)
    refused = [entry["errors"] for entry in manifest["cases"] if entry["errors"]]
    for fault in (fault for faults in refused for fault in faults):
        log.warning("left out (%s): %s", fault["code"], fault["message"])
    left_out = dict(Counter(faults[0]["code"] for faults in refused))
    if not passed:
        first = refused[0][0]
        sentence = f"{site.root}: none of {len(refused)} cases passed. First: {first['message']}"
        raise NonePassedError(first["code"], sentence, left_out)
    cases = [CASE.validate_python(entry["case"]) for entry in passed]
    return Admitted(cases, left_out)


def manifest_path(site: SiteConfig, data: DataConfig, task: Task) -> Path:
    """Where the manifest of this way of reading the scans lies."""
    what = {
        "root": site.root,
        "labels": site.labels,
        "patients": site.patients,
        "check": asdict(site.check),
        "modalities": data.modalities,
        "split": [data.validation, data.split_seed],
        "task": task,
    }
    return Path(site.work) / "cohort" / f"{_hash(what)[:16]}.json"


def freeze(path: Path, root: Path, cases: Sequence[Case], reports: Sequence[CaseReport]) -> None:
    """Write the manifest of checked cases under `root`; an older one is replaced."""
    entries = []
    for case, report in zip(cases, reports, strict=True):
        errors = [finding for finding in report.findings if finding.severity == "error"]
        entries.append(
            {
                "case": CASE.dump_python(case, mode="json"),
                "errors": [{"code": error.code, "message": error.message} for error in errors],
                "files": {str(file.path): [file.size, file.mtime_ns, file.sha256] for file in report.files},
            }
        )
    tables = {str(table): _state(table) for pattern in TABLES for table in sorted(root.glob(pattern))}
    write_json(path, {"version": VERSION, "tables": tables, "cases": entries})


def _same_files(files: dict[str, list[Any]]) -> bool:
    """Raise DataError if a file holds something else; return whether one was only touched, and note its new state."""
    touched = False
    for name, known in files.items():
        try:
            state = Path(name).stat()
            if [state.st_size, state.st_mtime_ns] == known[:2]:
                continue
            now = _state(Path(name))
        except FileNotFoundError:
            raise DataError("changed_file", f"{name}: is gone since the cohort was frozen; {CURE}") from None
        except OSError as error:
            raise DataError("unreadable", f"{name}: {error.strerror}; look at the file and its rights") from error
        if now[2] != known[2]:
            raise DataError("changed_file", f"{name}: changed since the cohort was frozen; {CURE}")
        files[name], touched = now, True
    return touched


def _state(path: Path) -> list[Any]:
    """Size in bytes, time of change in ns, SHA-256."""
    state = path.stat()
    with path.open("rb") as file:
        return [state.st_size, state.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest()]


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode(errors="surrogateescape")).hexdigest()
