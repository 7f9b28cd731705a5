"""What only the comparison of cases shows: duplicates, leaks between training, validation and test, outliers."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from gliofed.client.doctor.findings import Finding, Seen
from gliofed.shared.data.cases import Case, split, value_of
from gliofed.shared.data.volume import DataError
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import Label

ENOUGH = 8
"""Cases with which a deviation from the cohort means something."""
FIGURES = {"spread": ("range of the middle 90%", 0.3, 3), "brain": ("volume that is not zero", 0.1, math.inf)}
"""What is compared -> its words; the least standard deviation of its logarithm; and how many cases within three of
these may differ from the others, since units are a scanner's own.
"""


def cohort_findings(
    cases: Sequence[Case], seen: Sequence[Seen], rules: CheckConfig, label: Label | None, sides: Mapping[str, set[str]]
) -> list[list[Finding]]:
    """What each case has to be told, in the order of `cases`; `sides` as `sides_of` gives them."""
    found: list[list[Finding]] = [[] for _ in cases]
    for index, case in enumerate(cases):
        if len(sides[case.patient]) > 1:
            both = " and for ".join(sorted(sides[case.patient]))
            message = f"{case.patient}: is declared for {both}; leave all visits on one side"
            found[index].append(Finding(code="split_leak", message=message))
    if label is not None:
        _values(cases, label, found)
    _duplicates(cases, seen, sides, found)
    _outliers(cases, seen, rules, found)
    return found


def _values(cases: Sequence[Case], label: Label, found: list[list[Finding]]) -> None:
    """Name visits without a value, and patients with two: which of them a visit has is not ours to say."""
    what = label.column
    visits = defaultdict[str, list[Case]](list)
    for case in cases:
        visits[case.patient].append(case)
    for index, case in enumerate(cases):
        try:
            value = value_of(visits[case.patient], label)
        except DataError as error:
            found[index].append(Finding(code=error.code, message=str(error)))
            continue
        if case.value(label) is None:
            message = f"{case.patient}: no {what}; add the patient to the table of {what}s, or leave the patient out"
            if value:
                name = f"{case.patient} visit {case.visit}"
                message = f"{name}: no {what}, another visit has {value}; add the visit's own, or leave the visit out"
            found[index].append(Finding(code=label.missing, message=message))


def sides_of(
    cases: Sequence[Case], validation: float, split_seed: int, test: float | None = None
) -> dict[str, set[str]]:
    """Where each patient's visits would go: declared, or by the hash of the name."""
    declared = {case.patient: case.side for case in cases if case.side is not None}
    parts = split([case.patient for case in cases], validation, split_seed, declared, test)
    sides = {name: {side} for side, names in parts._asdict().items() for name in names}
    for case in cases:
        if case.side is not None:  # another visit may be declared for the other side
            sides[case.patient].add(case.side)
    return sides


def _duplicates(
    cases: Sequence[Case], seen: Sequence[Seen], sides: Mapping[str, set[str]], found: list[list[Finding]]
) -> None:
    """Name the later of two cases that share an image; the first without an error of its own is kept."""
    owner: dict[str, int] = {}
    faulty = [any(each.severity == "error" for each in (*seen[i].findings, *found[i])) for i in range(len(cases))]
    whole_first = sorted(range(len(cases)), key=faulty.__getitem__)
    for index in whole_first:
        case, shared = cases[index], defaultdict[int, list[str]](list)
        for name, facts in seen[index].images.items():
            other = owner.setdefault(facts.digest, index)
            if other != index:
                shared[other].append(name)
        for other, names in shared.items():
            first, shown = cases[other], seen[index].pictures.get(names[0], b"")
            file = str(case.images[names[0]].path)
            message = (
                f"{case.patient} visit {case.visit}: {', '.join(names)} hold the same voxels as {first.patient} visit "
                f"{first.visit}; keep one of the two"
            )
            found[index].append(Finding(code="duplicate", message=message, file=file, picture=shown))
            if len(sides[case.patient] | sides[first.patient]) > 1:
                message = (
                    f"{case.patient}: would be on another side of training, validation and test than {first.patient}, "
                    "though they share scans; keep one of the two"
                )
                found[index].append(Finding(code="split_leak", message=message, file=file, picture=shown))


def _outliers(cases: Sequence[Case], seen: Sequence[Seen], rules: CheckConfig, found: list[list[Finding]]) -> None:
    """Name the figure in which a case is farthest from the others, where that is too far.

    A case with an error or a skull is neither compared nor told: its figures are another's.
    """
    odd = [any(each.severity == "error" or each.code == "not_skull_stripped" for each in one.findings) for one in seen]
    worst: dict[int, tuple[float, str, str]] = {}
    for modality in sorted({name for one in seen for name in one.images}):
        there = [index for index, one in enumerate(seen) if modality in one.images and not odd[index]]
        if len(there) < ENOUGH:
            continue
        for figure, (label, floor, group) in FIGURES.items():
            values = np.array([max(getattr(seen[index].images[modality], figure), 1e-12) for index in there])
            logs, middle = np.log(values), float(np.median(values))
            distances = np.abs(logs - np.median(logs))
            distances /= max(1.4826 * float(np.median(distances)), floor)
            alike = (np.abs(logs[:, None] - logs) <= 3 * floor).sum(1)
            for index, value, distance in zip(there, values, np.where(alike < group, distances, 0), strict=True):
                if distance > max(rules.outlier, worst.get(index, (0.0, "", ""))[0]):
                    worst[index] = (float(distance), modality, f"{label} {value:.4g}, of the cohort {middle:.4g}")
    for index, (distance, modality, label) in worst.items():
        case, path = cases[index], str(cases[index].images[modality].path)
        message = (
            f"{path}: {modality} has a {label}: {distance:.1f} deviations of {case.patient} from the others, above "
            f"check.outlier={rules.outlier:g}; is it the right series, and of a brain?"
        )
        shown, code = seen[index].pictures.get(modality, b""), "intensity_outlier"
        found[index].append(Finding(code=code, message=message, file=path, severity="warning", picture=shown))
