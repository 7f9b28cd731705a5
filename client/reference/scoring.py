"""Models on the test patients of sites, patient by patient."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from gliofed.client.doctor.manifest import admit
from gliofed.client.prediction.predict import load
from gliofed.client.reference.training import workers
from gliofed.shared.comparison import Measures, Subject
from gliofed.shared.config import RunConfig
from gliofed.shared.data.cases import Case
from gliofed.shared.data.dataset import Cohort, open_cohort
from gliofed.shared.data.measuring import measure_each
from gliofed.shared.data.volume import tumour_volume
from gliofed.shared.exported import read_export
from gliofed.shared.files import write_bytes
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, reading_of


@dataclass(frozen=True)
class Opened:
    """A site's data, as its hospital opens them."""

    site: SiteConfig
    cases: Sequence[Case]
    cohort: Cohort


def open_site(site: SiteConfig, run: RunConfig) -> Opened:
    """Open the frozen cohort of a site. Raises DataError where a file was changed."""
    cases = admit(site, run.data, run.task).cases
    return Opened(site, cases, open_cohort(site, run.data, reading_of(run), cases))


def subjects(opened: Opened, scanner: str | None = None) -> list[Subject]:
    """The test patients of a site; `scanner` is of those whose files do not tell."""
    last_first = opened.cases[::-1]  # so that the first visit of a patient stays
    scanners = {case.patient: case.scanner for case in last_first if case.scanner is not None}
    grades = {case.patient: case.grade for case in last_first if case.grade is not None}
    masks = {case.patient: case.mask for case in last_first if case.mask is not None}
    found = []
    for name in (patient.name for patient in opened.cohort.test):
        volume = tumour_volume(masks[name]) if name in masks else None
        cubic_cm = None if volume is None else volume / 1000
        found.append(Subject(opened.site.name, name, scanners.get(name, scanner), grades.get(name), cubic_cm))
    return found


@torch.no_grad()
def measure(folder: Path, run: RunConfig, opened: Sequence[Opened], device: torch.device, threads: int) -> Measures:
    """One model, in `folder` as a run leaves it, on the test patients of all sites, as `evaluate` measures them.

    Where sites have tensors of their own it is each site's model. Raises ConfigError where a file is damaged.
    """
    torch.set_num_threads(threads)  # holds for this thread
    exported, task, measures = read_export(folder), TASKS[run.task], Measures()
    network = None
    for each in opened:
        if network is None or exported.at_home:
            network = load(folder, exported, device, Path(each.site.work)).network
        measures += measure_each(task, network, each.cohort.test, run.data, reading_of(run), device)
    return measures


def measure_all(
    folders: Mapping[str, Path], one: Callable[[Path], Measures], at_once: int, report: Callable[[int, int], None]
) -> dict[str, Measures]:
    """`one` of each model by name, `at_once` at the same time."""
    found: dict[str, Measures] = {}
    with workers(at_once) as pool:
        for done, (name, measures) in enumerate(zip(folders, pool.map(one, folders.values()), strict=True), start=1):
            found[name] = measures
            report(done, len(folders))
    return found


def write_scores(path: Path, tested: Sequence[Subject], measured: Mapping[str, Measures]) -> None:
    """Write each model on each patient as a table. It names patients: it is for whoever has their scans."""
    metrics = [name for measures in measured.values() for values in measures for name in values]
    columns = dict.fromkeys(["model", "site", "patient", "scanner", "grade", "tumour_cm3", *metrics])
    text = io.StringIO()
    table = csv.DictWriter(text, [*columns], lineterminator="\n")
    table.writeheader()
    for model, measures in measured.items():
        for one, values in zip(tested, measures, strict=True):
            about = {"site": one.site, "patient": one.patient, "scanner": one.scanner, "grade": one.grade}
            # What is known of the patient last: grading measures a grade too, as a number.
            table.writerow({**values, "model": model, **about, "tumour_cm3": one.volume})
    write_bytes(path, text.getvalue().encode(errors="backslashreplace"))
