"""A site's cohort: who is there, prepared, and split into training and validation."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

from shared.config import DataConfig, SiteConfig
from shared.data.cases import Case, Grade, find_cases, split
from shared.data.labels import region_values
from shared.data.prepare import prepare, prepare_graded, scans_of
from shared.data.volume import DataError

log = logging.getLogger("gliofed.site")

Reading = Literal["visits", "series", "graded"]
"""What a sample is: one visit with its mask, a series of visits with theirs, or one visit with the patient's grade."""


@dataclass(frozen=True)
class Patient:
    """One prepared patient: names of visits and folders in the cache, no voxels."""

    name: str
    visits: tuple[str, ...]
    """In order of time."""
    entries: tuple[Path, ...]
    """One a visit, or for series one for all."""
    grade: Grade | None = None
    """Known when the patient was read for grading."""


@dataclass(frozen=True)
class Cohort:
    """Who is at a site."""

    train: list[Patient]
    """Never empty."""
    validation: list[Patient]
    left_out: dict[str, int]
    """Code -> how many: visits, but patients for no_series, no_grade and a series of which a file cannot be used."""


def open_cohort(
    site: SiteConfig, data: DataConfig, reading: Reading, report: Callable[[int, int], None] | None = None
) -> Cohort:
    """Find the site's cases, prepare those that can be used, and split them by patient.

    What cannot be used is left out, counted and logged; `report` hears (patients done, of all).
    Raises DataError if no patient is left (with the first fault's code and sentence), and those of `find_cases`,
    `region_values`, and unknown_patients.
    """
    if reading != "graded":
        region_values(site.labels, data.regions)  # before every single case fails of it
    cases = _admitted(find_cases(Path(site.root), site.labels), site)
    faults: list[DataError] = []
    patients: list[Patient] = []
    grouped = [(name, list(visits)) for name, visits in groupby(cases, key=lambda case: case.patient)]
    open_one = {"visits": _open_visits, "series": _open_series, "graded": _open_graded}[reading]
    for done, (name, visits) in enumerate(grouped, start=1):
        if patient := open_one(name, visits, data, Path(site.work) / "cache", faults):
            patients.append(patient)
        if report:
            report(done, len(grouped))
    for fault in faults:
        log.warning("left out (%s): %s", fault.code, fault)
    if not patients:
        raise DataError(faults[0].code, f"{site.root}: none of {len(grouped)} patients can be used. First: {faults[0]}")
    # After preparing, so that "never zero training patients" holds of those that are left. Sides stay as they were, but
    # for the one who trains where nobody else can.
    train, _ = split([patient.name for patient in patients], data.validation, data.split_seed)
    return Cohort(
        train=[patient for patient in patients if patient.name in set(train)],
        validation=[patient for patient in patients if patient.name not in set(train)],
        left_out=dict(Counter(fault.code for fault in faults)),
    )


def _admitted(cases: list[Case], site: SiteConfig) -> list[Case]:
    """The cases of the site's cohort."""
    if site.patients is None:
        return cases
    if not site.patients:
        raise DataError("no_cases", "patients is an empty list; name some, or null for all under root")
    there = {case.patient for case in cases}
    unknown = sorted(set(site.patients) - there)
    if unknown:
        raise DataError(
            "unknown_patients",
            f"patients={', '.join(unknown[:5])}{' and more' * (len(unknown) > 5)}: not under {site.root}, "
            f"where patients are named like {min(there)}",
        )
    return [case for case in cases if case.patient in set(site.patients)]


def _open_visits(
    name: str, cases: list[Case], data: DataConfig, cache: Path, faults: list[DataError]
) -> Patient | None:
    """Prepare each visit by itself; those that fail are left out."""
    done: list[tuple[str, Path]] = []
    for case in cases:
        try:
            done.append((case.visit, prepare([case], data, cache)))
        except DataError as fault:
            faults.append(fault)
    return Patient(name, tuple(visit for visit, _ in done), tuple(entry for _, entry in done)) if done else None


def _open_series(
    name: str, cases: list[Case], data: DataConfig, cache: Path, faults: list[DataError]
) -> Patient | None:
    """Prepare all visits on one grid. A visit that lacks a file is left out; one that fails takes the patient along."""
    complete = []
    for case in cases:
        try:
            scans_of(case, data)
            complete.append(case)
        except DataError as fault:
            faults.append(fault)
    try:
        if len(complete) < data.window:
            raise DataError(
                "no_series",
                f"{name}: {len(complete)} complete visits, a window has {data.window}; lower data.window or add visits",
            )
        return Patient(name, tuple(case.visit for case in complete), (prepare(complete, data, cache),))
    except DataError as fault:
        faults.append(fault)
    return None


def _open_graded(
    name: str, cases: list[Case], data: DataConfig, cache: Path, faults: list[DataError]
) -> Patient | None:
    """Prepare the first visit that can be; the others are not used, so that every patient counts the same."""
    grade = next((case.grade for case in cases if case.grade), None)
    if grade is None:
        faults.append(DataError("no_grade", f"{name}: no grade; add the patient to name_mapping.csv, or leave it out"))
        return None
    for case in cases:
        try:
            return Patient(name, (case.visit,), (prepare_graded(case, data, cache),), grade)
        except DataError as fault:
            faults.append(fault)
    return None
