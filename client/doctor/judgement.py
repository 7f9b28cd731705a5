"""What was read of the cases, judged for a run: which of them it may use. No file is opened for that."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gliofed.client.doctor.anatomy import brain_findings
from gliofed.client.doctor.comparison import cohort_findings, sides_of
from gliofed.client.doctor.findings import MASK, Facts, Finding, Grid, Seen
from gliofed.client.doctor.inspection import Inspection, scans_of
from gliofed.shared.data.cases import Case
from gliofed.shared.data.prepare import same_grid, two_files
from gliofed.shared.data.volume import DataError, Scan
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import Task

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class CaseReport:
    """What is found in one visit of one patient."""

    patient: str
    visit: str
    status: Status
    """The gravest of the findings."""
    findings: list[Finding]
    unchecked: dict[str, str] = field(default_factory=dict)
    """Code of a warning -> why it, or some of it, could not be looked for; nothing where an error comes first."""
    lacks: list[str] = field(default_factory=list)
    """Modalities of the run that the visit has no file for."""


def judge(
    cases: Sequence[Case],
    inspected: Sequence[Inspection],
    rules: CheckConfig,
    modalities: Sequence[str],
    task: Task | None,
    validation: float = 0.0,
    split_seed: int = 0,
    test: float | None = None,
    some: bool | None = None,
) -> list[CaseReport]:
    """Judge inspected cases, in their order, for a run's modalities, task and split; no task: to be predicted.

    What is wrong with another modality, or with a mask that the task does not learn, is not reported. The split tells
    which duplicates would leak from training into validation or test. `some`: whether a case that lacks some of the
    modalities is used; None: only for a label.
    """
    label, masks = task.label if task else None, task is not None and task.label is None
    some = label is not None if some is None else some
    seen = [_seen(case, each, rules, modalities, some, masks) for case, each in zip(cases, inspected, strict=True)]
    compared = cohort_findings(cases, seen, rules, label, sides_of(cases, validation, split_seed, test))
    return [
        _report(case, _lacks(case, modalities), [*one.findings, *more], each, masks)
        for case, each, one, more in zip(cases, inspected, seen, compared, strict=True)
    ]


def _report(case: Case, lacks: list[str], findings: list[Finding], inspected: Inspection, masks: bool) -> CaseReport:
    severities = {finding.severity for finding in findings}
    status: Status = "error" if "error" in severities else "warning" if severities else "ok"
    unchecked = {
        code: why
        for code, why in inspected.unchecked.items()
        if status != "error" and (masks or code == "modalities_swapped")
    }
    return CaseReport(case.patient, case.visit, status, findings, unchecked, lacks)


def _seen(
    case: Case, inspected: Inspection, rules: CheckConfig, modalities: Sequence[str], some: bool, masks: bool
) -> Seen:
    facts, there = inspected.facts, scans_of(case)
    names = [name for name in [MASK] * masks + [*modalities] if name in there]
    scans = {name: there[name] for name in names}
    images = {name: facts.images[name] for name in names if name in facts.images}
    grids = {name: facts.grids[name] for name in names if name in facts.grids}
    seen = Seen(_missing(case, modalities, some, masks), images, inspected.pictures)
    seen.findings.extend(_faults(facts, names, seen))
    seen.findings.extend(_apart(scans, grids, seen))
    seen.findings.extend(_twice(scans, seen))
    for code, of, what, shown in [*brain_findings(images, grids, rules, case.labels), *inspected.odd]:
        name = next((each for each in of if each in names), None)
        if name is None:  # of scans that the run does not read
            continue
        seen_in = next(iter(images), MASK) if name == MASK else name  # an image shows what the mask is on
        file, shown = str(scans[name].path), shown or seen.pictures.get(seen_in, b"")
        what = f"{file}: {what}"
        seen.findings.append(Finding(code=code, message=what, file=file, severity="warning", picture=shown))
    return seen


def _lacks(case: Case, modalities: Sequence[str]) -> list[str]:
    return [each for each in modalities if each not in case.images and each not in case.twice]


def _missing(case: Case, modalities: Sequence[str], some: bool, masks: bool) -> list[Finding]:
    """Name scans that are not there. Where `some` suffice, the model knows which are missing."""
    twice = [each for each in [*modalities, *[MASK] * masks] if each in case.twice]
    found = [Finding(code="two_files", message=two_files(case, each), file=str(case.twice[each][0])) for each in twice]
    name = f"{case.patient} visit {case.visit}"
    if missing := _lacks(case, modalities):
        has, lenient = ", ".join(case.images) or "no image", some and len(missing) < len(modalities)
        cure = "add the file, or leave the case out" + "; or train with data.missing=mask" * (not some)
        cure = "it is used without" if lenient else cure
        message = f"{name}: no {', '.join(missing)}; has {has}; {cure}"
        found.append(Finding(code="missing_modality", message=message, severity="warning" if lenient else "error"))
    if masks and case.mask is None and MASK not in case.twice:
        message = f"{name}: no mask; add the segmentation's file, or leave the case out"
        found.append(Finding(code="missing_mask", message=message))
    return found


def _faults(facts: Facts, names: Sequence[str], seen: Seen) -> list[Finding]:
    """The faults of these scans, in the order of `names`; what is wrong with a file comes after its last scan."""
    found: list[tuple[int, Finding]] = []
    for fault in facts.faults:
        places = [place for place, name in enumerate(names) if name in fault.scans]
        if places or not fault.scans:
            shown = next((seen.pictures[names[place]] for place in places if names[place] in seen.pictures), b"")
            finding = Finding(code=fault.code, message=fault.message, file=fault.file, picture=shown)
            found.append((max(places, default=-1), finding))
    return [finding for _, finding in sorted(found, key=lambda each: each[0])]


def _apart(scans: Mapping[str, Scan], grids: Mapping[str, Grid], seen: Seen) -> list[Finding]:
    """Name the scans that do not share the grid that most of them have."""
    if len(set(grids.values())) <= 1:
        return []
    return [
        Finding(code=error.code, message=str(error), file=str(scans[name].path), picture=seen.pictures.get(name, b""))
        for name, error in min((_unlike(first, scans, grids) for first in grids), key=len).items()
    ]


def _unlike(first: str, scans: Mapping[str, Scan], grids: Mapping[str, Grid]) -> dict[str, DataError]:
    """The scans whose grid is not that of the `first`."""
    faults = {}
    for name, grid in grids.items():
        try:
            same_grid((scans[first], grids[first].volume), scans[name], grid.volume)
        except DataError as error:
            faults[name] = error
    return faults


def _twice(scans: Mapping[str, Scan], seen: Seen) -> list[Finding]:
    """Name modalities that are one image."""
    found: list[Finding] = []
    first: dict[str, str] = {}
    for name, facts in seen.images.items():
        other = first.setdefault(facts.digest, name)
        if other != name:
            message = (
                f"{scans[name]}: the same voxels as {scans[other]}, so {other} and {name} are one image; "
                "export the right series"
            )
            shown = seen.pictures.get(name, b"")
            found.append(Finding(code="same_image_twice", message=message, file=str(scans[name].path), picture=shown))
    return found
