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
    metrics = [name for measures in measured.values() for name in measures[0]]
    columns = ["model", "site", "patient", "scanner", "grade", "tumour_cm3", *dict.fromkeys(metrics)]
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for model, measures in measured.items():
        for one, values in zip(tested, measures, strict=True):
            about = {"site": one.site, "patient": one.patient, "scanner": one.scanner, "grade": one.grade}
            table.writerow({"model": model, **about, "tumour_cm3": one.volume, **values})
    write_bytes(path, text.getvalue().encode(errors="backslashreplace"))
