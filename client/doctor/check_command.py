"""gliofed-client check: settings, progress, table, files and status."""

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from gliofed.client.doctor.consent import hold_patients, read_consent
from gliofed.client.doctor.examine import do_each, examine
from gliofed.client.doctor.findings import MASK, Finding, Severity
from gliofed.client.doctor.inspection import Inspection
from gliofed.client.doctor.judgement import CaseReport, judge
from gliofed.client.doctor.manifest import admit, freeze
from gliofed.client.doctor.page import by_patient, lacking, summary, write_reports
from gliofed.shared.config import DataConfig
from gliofed.shared.data.cases import Case, used
from gliofed.shared.data.dataset import Reading, open_cohort
from gliofed.shared.data.labels import LABELS
from gliofed.shared.data.layouts import Inventory, take_inventory
from gliofed.shared.data.leftovers import counted
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import absolute, make_writable
from gliofed.shared.left_out import in_words
from gliofed.shared.parse import ConfigError, Positive, Strict, parse
from gliofed.shared.processes import cores
from gliofed.shared.progress import Bar
from gliofed.shared.site_config import CheckConfig, SiteConfig
from gliofed.shared.tasks import TASKS, Task, TaskName, some_suffice
from gliofed.shared.terminal import cell, plain
from gliofed.shared.wording import quantity
from gliofed.shared.work_folder import WorkFolder

LONG = 40
"""Most patients of whom the table names also those without findings."""
SENTENCES = 100
"""Most findings that are printed; all of them are in the files."""
PATTERNS = 20
"""Most kinds of files not used that are printed; all of them are in the files."""
EVERY = 10.0
"""Seconds between two lines of progress in a pipe."""


@dataclass(frozen=True, kw_only=True)
class Settings(Strict):
    """The settings of configs/check.yaml."""

    root: str
    """Folder of the scans."""
    labels: str
    """Label scheme of the masks."""
    masks: Literal["needed", "none"]
    """none: the cases are to be predicted."""
    data: DataConfig
    """The run's; only its modalities and its split matter where nothing is prepared."""
    task: TaskName
    series: bool
    """Whether the run's model reads series of visits."""
    check: CheckConfig
    workers: Positive | None
    """Processes; None: one for each core."""
    work: str | None
    """The site's work folder, to freeze the cohort and prepare its scans; None: neither."""
    out: str | None
    """Folder of check.json and check.html; None: outputs/DATE/TIME, or checks/DATE/TIME in the work folder."""


def check(values: Mapping[str, Any]) -> int:
    """Check the folder, print and write what was found; 0, or 1 where there is an error.

    Raises ConfigError or DataError over wrong use: settings, no cases, no place for the results.
    """
    settings = _settings(values)
    if settings.labels not in LABELS:
        raise ConfigError(f"data.labels={settings.labels}: unknown scheme; known are {', '.join(LABELS)}")
    root = absolute(settings.root)
    inventory = take_inventory(root, settings.labels)
    cases = inventory.cases
    task: Task | None = TASKS[settings.task]
    if settings.masks == "none":
        masked = [name for name, each in TASKS.items() if each.label is None]
        if settings.work or settings.task not in masked:
            goes = f"goes with task={' or '.join(masked)} and without work=, which is for training"
            raise ConfigError(f"data.masks=none: {goes}")
        task, cases = None, [_without_mask(case) for case in cases]
    now = datetime.now().astimezone()
    # In the work folder a withdrawal finds it, and removes it.
    reports_folder = WorkFolder(Path(settings.work)).checks if settings.work else "outputs"
    out = _folder("out", settings.out or f"{reports_folder}/{now:%Y-%m-%d/%H-%M-%S}")
    work = str(_folder("work", settings.work)) if settings.work else None
    workers = settings.workers or cores()
    severity: Severity = "warning" if inventory.listed else "error"
    strays = [
        Finding(code="not_understood", message=str(stray), file=str(stray.folder), severity=severity)
        for stray in inventory.not_understood
    ]
    with hold_patients(Path(work)) if work else nullcontext():  # who withdraws meanwhile is not in a report that stays
        if work:
            cases = _with_consent(cases, Path(work))
        with Bar("reading", EVERY) as progress:
            inspected = examine(cases, settings.check, workers, progress.report)
        reports = _judged(cases, inspected, settings, task)
        of = {"root": str(root), "labels": settings.labels, "task": settings.task if task else "prediction"}
        write_reports(reports, strays, inventory.not_used, of, out)
    findings = [*strays, *(finding for report in reports for finding in report.findings)]
    _print(reports, strays, findings, inventory)
    if tested := len({case.patient for case in cases} - {report.patient for report in reports}):
        who = quantity(tested, "patient is", "patients are")
        print(f"{who} declared to be tested, and not judged without data.test")
    print(f"{out}: check.html has pictures, check.json all of it")
    if work:
        site = SiteConfig(name="check", root=str(root), labels=settings.labels, work=work, check=settings.check)
        with hold_patients(Path(work), alone=True):
            freeze(site, cases, inspected)
        if any(report.status != "error" for report in reports):
            _prepare(site, settings, workers)
        else:
            print(f"{work}: the cohort is frozen, and no case of it can be used for this task and these modalities")
    return 1 if any(each.severity == "error" for each in findings) else 0


def _judged(
    cases: Sequence[Case], inspected: Sequence[Inspection], settings: Settings, task: Task | None
) -> list[CaseReport]:
    """Judge the cases that a run of this task could use; without one, all of them."""
    data = settings.data
    names = {case.patient for case in (used(cases, data.test) if task else cases)}
    there = [number for number, case in enumerate(cases) if case.patient in names]
    return judge(
        [cases[number] for number in there],
        [inspected[number] for number in there],
        settings.check,
        data.modalities,
        task,
        data.validation,
        data.split_seed,
        data.test,
        some_suffice(data, settings.task),
    )


def _with_consent(cases: Sequence[Case], work: Path) -> list[Case]:
    """The cases but those of patients who withdrew, who are named here and nowhere else."""
    consent = read_consent(work)
    if withdrawn := sorted({case.patient for case in cases if not consent.given(case.patient)}):
        print(plain(f"not read, because consent was withdrawn: {', '.join(withdrawn)}"))
    return [case for case in cases if consent.given(case.patient)]


def _without_mask(case: Case) -> Case:
    return replace(case, mask=None, twice={name: paths for name, paths in case.twice.items() if name != MASK})


def _settings(values: Mapping[str, Any]) -> Settings:
    """Sort what Hydra composed: root and labels are the site's, the rest of data the run's."""
    if not isinstance(values["data"], Mapping):
        raise ConfigError(f"data={values['data']}: must be a group of settings, as in data.root=DIR")
    data = {key: value for key, value in values["data"].items() if key not in ("source", "root", "labels", "masks")}
    own = {key: values["data"][key] for key in ("root", "labels", "masks")}
    return parse(Settings, {**values, **own, "data": data})


def _prepare(site: SiteConfig, settings: Settings, workers: int) -> None:
    """Fill the site's cache with the cohort that was frozen, a patient a job."""
    data = settings.data
    reading: Reading = TASKS[settings.task].label or ("series" if settings.series else "visits")
    with hold_patients(Path(site.work)):
        admitted = admit(site, data, settings.task).cases
        patients = [list(visits) for _, visits in groupby(admitted, key=lambda case: case.patient)]
        prepare = partial(_prepare_patient, site=site, data=data, reading=reading)
        # Closed here: whatever stops this, no process still writes when the lock is given back.
        with Bar("preparing", EVERY) as progress, closing(do_each(prepare, patients, workers)) as prepared:
            for done, _ in enumerate(prepared, start=1):
                progress.report(done, len(patients))
        cohort = open_cohort(site, data, reading, admitted)
    left_out = f"; left out: {in_words(cohort.left_out)}" if cohort.left_out else ""
    tested = "" if data.test is None else f", {len(cohort.test)} to test"
    print(
        f"{site.work}: the cohort is frozen and prepared: {quantity(len(cohort.train), 'patient')} to train, "
        f"{len(cohort.validation)} to validate{tested}{left_out}"
    )


def _prepare_patient(cases: Sequence[Case], site: SiteConfig, data: DataConfig, reading: Reading) -> None:
    with suppress(DataError):  # named when the whole cohort is opened
        open_cohort(site, data, reading, cases)


def _folder(key: str, given: str) -> Path:
    """Make the folder before anything is read."""
    return make_writable(folder := absolute(given), f"{key}={folder}")


def _print(
    reports: Sequence[CaseReport], strays: Sequence[Finding], findings: Sequence[Finding], inventory: Inventory
) -> None:
    """A table by patient, a sentence for each finding, and the counts."""
    rows = by_patient(reports)
    shown = rows if len(rows) <= LONG else [row for row in rows if row[3]]
    lines = [(patient, str(len(visits)), status, codes) for patient, visits, status, codes in shown]
    lines += [(Path(each.file or "").name, "", each.severity, [each.code]) for each in strays]
    table = Table(Column("patient", overflow="fold"), "visits", "findings")
    for name, visits, status, codes in lines:
        style = {"ok": "green", "warning": "yellow", "error": "red"}[status]
        table.add_row(cell(name), visits, Text(" ".join(codes) or "ok", style))
    if lines:
        Console().print(table)
    if len(shown) < len(rows):
        print(f"and {quantity(len(rows) - len(shown), 'patient')} without findings")
    for each in findings[:SENTENCES]:
        print(plain(f"{each.severity}: {each.code}: {each.message}"))
    if len(findings) > SENTENCES:
        print(f"and {quantity(len(findings) - SENTENCES, 'more finding')}")
    patterns = sorted(inventory.not_used.items(), key=lambda each: -each[1])
    for pattern, count in patterns[:PATTERNS]:
        print(plain(f"not used: {pattern}: {quantity(count, 'file')}"))
    if len(patterns) > PATTERNS:
        more = quantity(len(patterns) - PATTERNS, "more kind of files that is", "more kinds of files that are")
        print(f"and {more} not used")
    counts = summary(reports, strays)
    for line in lacking(counts):
        print(plain(line))
    for line in counts["not_checked"]:
        print(f"not checked: {line}")
    rest = f"; not understood: {counted(inventory.not_understood)}" if strays else ""
    cases = quantity(counts["cases"], "case")
    print(f"{cases}, {counts['error']} with errors, {counts['warning']} with warnings only{rest}")
