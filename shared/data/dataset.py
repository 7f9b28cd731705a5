"""A site's cohort, and the batches that training and evaluation read from it."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shared.config import DataConfig, SiteConfig, TrainConfig
from shared.data.cache import Entry, open_entry, prepare, scan_files
from shared.data.cases import Case, find_cases, split
from shared.data.labels import region_values
from shared.data.volume import DataError

log = logging.getLogger("gliofed.site")


@dataclass(frozen=True)
class Batch:
    """Patches, float32, z-scored, RAS."""

    image: Tensor
    """(B, C, D, H, W), or (B, T, C, D, H, W) for series."""
    target: Tensor
    """The same with R regions for C, 0 or 1."""


@dataclass(frozen=True)
class Patient:
    """One prepared patient: names of visits and folders in the cache, no voxels."""

    name: str
    visits: tuple[str, ...]
    """In order of time."""
    entries: tuple[Path, ...]
    """One a visit, or for series one for all."""


@dataclass(frozen=True)
class Cohort:
    """Who is at a site."""

    train: list[Patient]
    """Never empty."""
    validation: list[Patient]
    left_out: dict[str, int]
    """Code -> how many: visits, but patients for no_series and for a series of which a file cannot be used."""


def open_cohort(
    site: SiteConfig, data: DataConfig, *, series: bool, report: Callable[[int, int], None] | None = None
) -> Cohort:
    """Find the site's cases, prepare those that can be used, and split them by patient.

    What cannot be used is left out, counted and logged; `report` hears (patients done, of all).
    Raises DataError if no patient is left (with the first fault's code and sentence), and those of `find_cases`,
    `region_values`, and unknown_patients.
    """
    region_values(site.labels, data.regions)  # before every single case fails of it
    cases = _admitted(find_cases(Path(site.root), site.labels), site)
    faults: list[DataError] = []
    patients: list[Patient] = []
    grouped = [(name, list(visits)) for name, visits in groupby(cases, key=lambda case: case.patient)]
    open_one = _open_series if series else _open_visits
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


def batches(
    patients: Sequence[Patient], data: DataConfig, train: TrainConfig, rng: np.random.Generator, series: bool
) -> Iterator[Batch]:
    """Yield batches without end: patients in shuffled passes, a batch may span two; of each patient one patch."""
    assert patients, "a cohort has one training patient or more"
    order: list[int] = []
    while True:
        while len(order) < train.batch:
            order.extend(rng.permutation(len(patients)).tolist())
        chosen, order = order[: train.batch], order[train.batch :]
        patches = [patch(patients[index], data, train, rng, series) for index in chosen]
        yield Batch(torch.stack([image for image, _ in patches]), torch.stack([target for _, target in patches]))


def patch(
    patient: Patient, data: DataConfig, train: TrainConfig, rng: np.random.Generator, series: bool
) -> tuple[Tensor, Tensor]:
    """Cut image (C, *data.patch) and target (R, *data.patch) of a random visit; series: (T, ...) of a random window.

    With probability `train.foreground` centred on a random foreground voxel of those visits, as far as the volume
    reaches; else, or where they have none, anywhere. A smaller volume is padded with zeros at its end.
    """
    entry = open_entry(patient.entries[rng.integers(len(patient.entries))])
    length = data.window if series else 1
    start = int(rng.integers(len(entry.image) - length + 1))
    corner = _corner(entry, start, length, data.patch, rng.random() < train.foreground, rng)
    image, target = (_cut(array[start : start + length], corner, data.patch) for array in (entry.image, entry.mask))
    return (image, target) if series else (image[0], target[0])


def whole(patient: Patient, data: DataConfig, series: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield whole volumes, float32: (1, C, D, H, W) and (1, R, D, H, W) a visit.

    Series: (1, T, C, D, H, W) in windows of `data.window` visits, each visit once, so that the last window may be
    shorter; the visit at place k of any window has k visits before it, there as well.
    """
    length = data.window if series else 1
    for path in patient.entries:
        entry = open_entry(path)
        for start in range(0, len(entry.image), length):
            parts = (np.array(array[start : start + length]) for array in (entry.image, entry.mask))
            image, target = (torch.from_numpy(part).float() for part in parts)
            yield (image[None], target[None]) if series else (image, target)


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
    return Patient(name, *zip(*done, strict=True)) if done else None


def _open_series(
    name: str, cases: list[Case], data: DataConfig, cache: Path, faults: list[DataError]
) -> Patient | None:
    """Prepare all visits on one grid. A visit that lacks a file is left out; one that fails takes the patient along."""
    complete = []
    for case in cases:
        try:
            scan_files(case, data)
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


def _corner(
    entry: Entry, start: int, length: int, size: tuple[int, int, int], centred: bool, rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Lowest voxel (d, h, w) of a patch that lies in the volume, or 0 where the volume is smaller."""
    room = np.maximum(np.array(entry.image.shape[2:]) - size, 0)
    first, last = np.searchsorted(entry.foreground[:, 0], [start, start + length])
    corner: npt.NDArray[np.int64]
    if centred and last > first:
        centre = entry.foreground[rng.integers(first, last), 1:].astype(np.int64)
        corner = np.clip(centre - np.array(size) // 2, 0, room)
    else:
        corner = rng.integers(0, room + 1)
    return corner


def _cut(array: npt.NDArray[Any], corner: npt.NDArray[np.int64], size: tuple[int, int, int]) -> Tensor:
    """Copy (V, C, *size) from the corner on, float32."""
    part = array[:, :, *(slice(low, low + edge) for low, edge in zip(corner, size, strict=True))]
    padded = np.zeros((*array.shape[:2], *size), array.dtype)
    padded[:, :, *(slice(edge) for edge in part.shape[2:])] = part
    return torch.from_numpy(padded).float()  # PyTorch reads fp16 faster than numpy
