"""A site's cohort: who is there, prepared, and split into training, validation and test."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Literal

from gliofed.shared.config import DataConfig
from gliofed.shared.data.cases import Case, Side, split, value_of
from gliofed.shared.data.labels import region_values
from gliofed.shared.data.layouts import Inventory, take_inventory
from gliofed.shared.data.prepare import prepare, prepare_block, scans_of
from gliofed.shared.data.volume import DataError
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import Label
from gliofed.shared.wording import quantity

log = logging.getLogger("gliofed.site")

Reading = Literal["visits", "series"] | Label
"""What a sample is: one visit with its mask, a series of visits with theirs, or one visit with the patient's label."""


@dataclass(frozen=True)
class Patient:
    """One prepared patient: names of visits and folders in the cache, no voxels."""

    name: str
    visits: tuple[str, ...]
    """In order of time."""
    entries: tuple[Path, ...]
    """One a visit, or for series one for all."""
    value: str | None = None
    """Of the label that the patient was read for."""


@dataclass(frozen=True)
class Cohort:
    """Who is at a site."""

    train: list[Patient]
    """Never empty."""
    validation: list[Patient]
    test: list[Patient]
    """Measured once, when a run ends; empty without `data.test`."""
    left_out: dict[str, int]
    """Code -> how many: visits, but patients for split_leak, no_series, no_grade, two_grades and a series of which a
    file cannot be used."""

    @property
    def everybody(self) -> list[Patient]:
        """All patients of the site that can be used."""
        return [*self.train, *self.validation, *self.test]


def site_inventory(site: SiteConfig) -> Inventory:
    """Find the cases of the site's patients, by patient and in order of time.

    Where `patients` names them, whatever else lies under the root is not asked for.
    Raises DataError: no_cases, unknown_patients, and those of `take_inventory`.
    """
    inventory = take_inventory(Path(site.root), site.labels)
    if site.patients is None:
        return inventory
    if not site.patients:
        raise DataError("no_cases", "patients is an empty list; name some, or null for all under root")
    there, wanted = {case.patient for case in inventory.cases}, set(site.patients)
    if unknown := sorted(wanted - there):
        stray = f"; not understood: {inventory.not_understood[0]}" if inventory.not_understood else ""
        raise DataError(
            "unknown_patients",
            f"patients={', '.join(unknown[:5])}{' and more' * (len(unknown) > 5)}: not under {site.root}, "
            f"which has {quantity(len(there), 'patient')}{stray}",
        )
    return replace(inventory, cases=[case for case in inventory.cases if case.patient in wanted], not_understood=[])


def open_cohort(site: SiteConfig, data: DataConfig, reading: Reading, cases: Sequence[Case]) -> Cohort:
    """Prepare those of the site's `cases` that can be used, and split by patient those whose side is not declared.

    What cannot be used is left out, counted and logged.
    Raises DataError if no patient is left (with the first fault's code and sentence) or none that may train
    (no_training), and those of `region_values`.
    """
    if not isinstance(reading, Label):
        region_values(site.labels, data.regions)  # before every single case fails of it
    faults: list[DataError] = []
    patients: dict[str, Patient] = {}
    sides: dict[str, Side] = {}
    grouped = [(name, list(visits)) for name, visits in groupby(cases, key=lambda case: case.patient)]
    open_one: Callable[[str, list[Case], DataConfig, Path, list[DataError]], Patient | None]
    open_one = _open_series if reading == "series" else _open_visits
    if isinstance(reading, Label):
        open_one = partial(_open_labelled, reading)
    for name, visits in grouped:
        try:
            if side := _declared(name, visits):
                sides[name] = side
            if side == "test" and data.test is None:  # nothing is measured on them
                continue
            if patient := open_one(name, visits, data, site.folder.cache, faults):
                patients[name] = patient
        except DataError as fault:
            faults.append(fault)
    for each in faults:
        log.warning("left out (%s): %s", each.code, each)
    if not patients:
        none = f"none of {quantity(len(grouped), 'patient')} can be used"
        raise DataError(faults[0].code, f"{site.root}: {none}. First: {faults[0]}")
    # After preparing, so that "never zero training patients" holds of those that are left. Sides stay as they were, but
    # for the one who trains where nobody else can.
    parts = split(list(patients), data.validation, data.split_seed, sides, data.test)
    if not parts.training:
        others = "validation or test" if parts.test else "validation"
        raise DataError("no_training", f"{site.root}: every usable patient is declared {others}; let some train")
    train, validation, test = ([patients[name] for name in patients if name in set(part)] for part in parts)
    return Cohort(train, validation, test, left_out=dict(Counter(fault.code for fault in faults)))


def _declared(name: str, cases: list[Case]) -> Side | None:
    """The side that the data set puts a patient on, if any; on both, the patient must be on neither."""
    declared = {case.side: case.visit for case in cases if case.side}
    if len(declared) > 1:
        where = " and ".join(f"{side} (visit {visit})" for side, visit in sorted(declared.items()))
        raise DataError("split_leak", f"{name}: declared for {where}; leave all visits on one side")
    return next(iter(declared), None)


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
    if len(complete) < data.window:
        has = quantity(len(complete), "complete visit")
        raise DataError("no_series", f"{name}: {has}, a window has {data.window}; lower data.window or add visits")
    return Patient(name, tuple(case.visit for case in complete), (prepare(complete, data, cache),))


def _open_labelled(
    label: Label, name: str, cases: list[Case], data: DataConfig, cache: Path, faults: list[DataError]
) -> Patient | None:
    """Prepare the first visit with a value that can be; the others are not used, so that every patient counts the same.

    A visit without a value has not that of another: the tumour may have progressed.
    """
    value, what = value_of(cases, label), label.column
    if value is None:
        cure = "add it to the data's table, or leave the patient out"
        raise DataError(label.missing, f"{name}: no {what}; {cure}")
    for case in (case for case in cases if case.value(label)):
        try:
            return Patient(name, (case.visit,), (prepare_block(case, data, cache),), value)
        except DataError as fault:
            faults.append(fault)
    return None
