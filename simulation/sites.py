"""Data into hospitals: written for each site, or one folder dealt to all, always by patient."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import IO, Any

from gliofed.client.doctor.examine import examine
from gliofed.client.doctor.manifest import freeze, read_manifest
from gliofed.shared.config import DataConfig, RunConfig
from gliofed.shared.data.cases import Case, split, used
from gliofed.shared.data.dataset import site_inventory
from gliofed.shared.data.labels import LABELS, region_values
from gliofed.shared.data.layouts import find_cases, take_inventory
from gliofed.shared.data.leftovers import counted
from gliofed.shared.data.tables import MANIFEST
from gliofed.shared.data.volume import DataError
from gliofed.shared.files import absolute, write_json
from gliofed.shared.locks import BusyError, lock_file
from gliofed.shared.parse import ConfigError, parse
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks import TASKS, reading_of, some_suffice
from gliofed.shared.wording import quantity
from gliofed.simulation.mock import MockConfig, write_mock
from gliofed.simulation.partition import UNKNOWN, classes, deal, site_names
from gliofed.simulation.phantom import PhantomConfig, scanner_of, write_phantoms
from gliofed.simulation.profiles import Profile, Report, profile
from gliofed.simulation.settings import Settings
from gliofed.simulation.sites_picture import draw_sites

MARKER, LOCK = "source.json", ".writing.lock"
"""In a folder of cases that were written: with which settings, and held by the run that writes."""
SOURCES: dict[str, tuple[type[Any], Callable[..., None], set[str], set[str]]] = {
    "mock": (MockConfig, write_mock, {"t1"}, set()),
    "phantom": (PhantomConfig, write_phantoms, {"flair", "t1", "t1ce", "t2"}, {"grade"}),
}
"""Data that a simulation writes itself: its settings, the function that writes one site, its modalities and labels."""


def make_sites(
    data: Mapping[str, Any], run: RunConfig, settings: Settings, out: Path, report: Report
) -> list[SiteConfig]:
    """Make the hospitals of `settings`; `data` is the composed data choice, with the run's part and the source's.

    Where a folder is dealt, who holds what is drawn in `out`. `report` gets the cases written so far and all there
    will be.
    """
    shared = {field.name for field in fields(DataConfig)} | {"source", "root", "labels"}
    rest = {key: value for key, value in data.items() if key not in shared}
    names = site_names(settings.sites)
    if data["source"] not in (*SOURCES, "folder"):
        raise ConfigError(f"data.source={data['source']}: unknown; known are {', '.join(SOURCES)}, folder")
    if data["source"] == "folder":
        roots, labels = [str(absolute(str(data["root"])))] * len(names), str(data["labels"])
        cohorts: list[tuple[str, ...] | None] = [*_deal(Path(roots[0]), labels, run, settings, out, report)]
        if TASKS[run.task].label is None:
            region_values(labels, run.data.regions)
    else:
        root = absolute(str(data["root"] or SimulationFolder(out).data))
        labels = _write(str(data["source"]), data["labels"], rest, run, names, root, report)
        roots, cohorts = [str(root / name) for name in names], [None] * len(names)
    made = [
        SiteConfig(
            name=name,
            root=root,
            labels=labels,
            patients=cohort,
            work=str((SimulationFolder(out).sites / name).resolve()),
            device=settings.device,
            threads=settings.threads,
            workers=settings.workers,
            policy=settings.policies.get(name, settings.policy),
        )
        for name, root, cohort in zip(names, roots, cohorts, strict=True)
    ]
    for site in made:
        _freeze(site, settings.lacking.get(site.name, ()), written=data["source"] != "folder")
    return made


def _freeze(site: SiteConfig, lacking: Sequence[str], written: bool) -> None:
    """Freeze the cases of a site that is to lack modalities, and those that were `written` in a run's folder that was
    moved since, as a hospital would: no request does it.
    """
    manifest = read_manifest(Path(site.work))
    moved = written and manifest is not None and manifest.settings["root"] != site.root
    if moved or (lacking and manifest is None):
        cases = [_without(case, lacking) for case in site_inventory(site).cases]
        freeze(site, cases, examine(cases, site.check, workers=1, draw=False))


def _without(case: Case, modalities: Sequence[str]) -> Case:
    images = {name: scan for name, scan in case.images.items() if name not in modalities}
    return replace(case, images=images, twice={name: case.twice[name] for name in case.twice if name not in modalities})


def _write(
    source: str,
    labels: str | None,
    settings: Mapping[str, Any],
    run: RunConfig,
    names: list[str],
    root: Path,
    report: Report,
) -> str:
    """Write every site's cases under `root`, unless they are there; return their label scheme."""
    kind, write, modalities, labelled = SOURCES[source]
    if unknown := sorted(settings.keys() - {field.name for field in fields(kind)}):
        raise ConfigError(f"data.{unknown[0]}: data={source} has no such setting; leave it, or the experiment, out")
    series, label = reading_of(run) == "series", TASKS[run.task].label
    if label and (what := label.column) not in labelled:
        use = " or ".join([*(name for name, each in SOURCES.items() if what in each[3]), "folder"])
        raise ConfigError(f"data={source}: has no {what}s, which task={run.task} learns; use data={use}")
    visits = settings["visits"] or (run.data.window if series else 1)
    if series and visits < run.data.window:
        raise ConfigError(f"data.visits={visits}: fewer than data.window={run.data.window}, which the model reads")
    if odd := set(run.data.modalities) - modalities:
        known = ", ".join(sorted(modalities))
        raise ConfigError(f"data.modalities: {', '.join(sorted(odd))} is not of data={source}, which has {known}")
    written = "mock" if source == "mock" else "brats2023" if visits > 1 else "brats2020"
    if labels not in (None, written):
        raise ConfigError(f"data.labels={labels}: data={source} writes {written}; leave data.labels out")
    if label is None:
        region_values(written, run.data.regions)
    common = dict(settings) | {"visits": visits, "seed": run.seed}
    numbers = patients_written(settings, len(names))
    configs = [parse(kind, common | {"patients": number}, "data") for number in numbers]
    done, total = count(1), sum(config.patients for config in configs) * visits
    with _alone(root):
        _claim(root, {"source": source, "seed": run.seed, **_of_old(settings, visits), "visits": visits})
        for number, (name, config) in enumerate(zip(names, configs, strict=True)):
            write(config, root / name, number, lambda: report(next(done), total))
    return written


def patients_written(data: Mapping[str, Any], sites: int) -> list[Any]:
    """How many patients are written for each site, from the composed data choice, in which one number is of all.

    >>> patients_written({"patients": 4}, sites=2), patients_written({"patients": [160, 12]}, sites=2)
    ([4, 4], [160, 12])
    """
    number = data["patients"]
    return list(number) if isinstance(number, list | tuple) else [number] * sites


def check_test_patients(sites: Sequence[SiteConfig], run: RunConfig) -> None:
    """Raise ConfigError where no site has a test patient, by their names alone: nothing could be compared."""
    for site in sites:
        cases = find_cases(Path(site.root), site.labels)
        sides = {case.patient: case.side for case in cases if case.side is not None}
        names = {case.patient for case in cases}.intersection(site.patients or {case.patient for case in cases})
        if split([*names], run.data.validation, run.data.split_seed, sides, run.data.test).test:
            return
    raise ConfigError(
        f"data.test={run.data.test:g}: no site has a test patient, on whom baselines are compared; give a larger one"
    )


def scanners_written(source: str, names: Sequence[str]) -> dict[str, str]:
    """The scanners of sites whose cases are written by `source`, where it has any."""
    return {name: scanner_of(number) for number, name in enumerate(names)} if source == "phantom" else {}


def _of_old(settings: Mapping[str, Any], visits: int) -> dict[str, Any]:
    """The settings without later ones that change nothing, so that a folder of before them is still known.

    >>> _of_old({"patients": 4, "course": "own", "lost": 0.0}, visits=1)
    {'patients': 4}
    """
    idle = {"course": settings.get("course") if visits == 1 else "same", "lost": 0.0}
    return {key: value for key, value in settings.items() if key not in idle or value != idle[key]}


def _alone(root: Path) -> IO[str]:
    """The right to write under `root`; where another run has it, wait until its cases are there.

    Raises ConfigError for a folder with somebody's files.
    """
    there = {file.name for file in root.iterdir()} if root.exists() else set()
    begun = {LOCK, *(name for name in there if name.startswith(f".{MARKER}."))}  # of a run that was killed
    if MARKER not in there and not there <= begun:
        raise ConfigError(f"data.root={root}: not empty; cases are written here, so give a new folder (or data=folder)")
    try:
        return lock_file(root / LOCK, "")
    except BusyError:
        print(f"data.root={root}: another run writes its cases there; waiting for them", flush=True)
        return lock_file(root / LOCK, "", wait=None)


def _claim(root: Path, settings: Mapping[str, Any]) -> None:
    """Mark a folder as written with these settings; refuse one with others."""
    marker, settings = root / MARKER, json.loads(json.dumps(dict(settings)))
    if not marker.exists():
        write_json(marker, settings)
    elif json.loads(marker.read_text()) != settings:
        raise ConfigError(f"data.root={root}: holds cases of other settings; give another folder, or remove it")


def _deal(
    root: Path, labels: str, run: RunConfig, settings: Settings, out: Path, report: Report
) -> list[tuple[str, ...]]:
    """Deal a folder's patients to the sites, and write and draw who holds what; a resumed run keeps its deal."""
    if labels not in LABELS:
        raise ConfigError(f"data.labels={labels}: unknown scheme; known are {', '.join(LABELS)}")
    kept = SimulationFolder(out).cohorts  # names patients, so it is no part of sites.json
    dealing: dict[str, str | float] = {"partition": settings.partition, "alpha": settings.partition_alpha}
    what = {"root": str(root), "labels": labels, "run": run.hash, "sites": settings.sites, **dealing}
    if kept.exists() and (saved := json.loads(kept.read_text()))["of"] == what:
        return [tuple(cohort) for cohort in saved["cohorts"]]
    inventory = take_inventory(root, labels)
    there = used(inventory.cases, run.data.test)
    usable = _usable(there, run, root)
    if strays := inventory.not_understood:
        print(f"{root}: not understood: {counted(strays)}, in no case; gliofed-client check names them", flush=True)
    if lacking := len(there) - len(usable):
        lack = quantity(lacking, "lacks what this run reads, and is", "lack what this run reads, and are")
        print(f"{root}: of {quantity(len(there), 'case')} {lack} not dealt", flush=True)
    visits = Counter(case.patient for case in usable)
    needed = run.data.window if reading_of(run) == "series" else 1
    dealt = [case for case in usable if visits[case.patient] >= needed]
    if not dealt:
        raise DataError(
            "no_series",
            f"data.root={root}: no patient has {needed} visits, and model={run.model.name} reads series of "
            f"data.window={needed}; use model=unet or a smaller data.window",
        )
    profiles = profile(dealt, settings.partition, root, SimulationFolder(out).profiles, report)
    cohorts = deal(settings.partition, settings.partition_alpha, profiles, settings.sites, run.seed)
    _show(dict(zip(site_names(settings.sites), cohorts, strict=True)), profiles, dealing, run, out)
    write_json(kept, {"of": what, "cohorts": cohorts})
    return cohorts


def _show(
    cohorts: Mapping[str, Sequence[str]],
    profiles: Sequence[Profile],
    dealing: Mapping[str, str | float],
    run: RunConfig,
    out: Path,
) -> None:
    """Write who holds what as sites.json and sites.png, in numbers only: by grade, tumour size, or use in the run."""
    class_of, tests = classes(profiles), run.data.test is not None
    declared = {patient.name: patient.side for patient in profiles if patient.side is not None}
    used, held = {}, {}
    for name, cohort in cohorts.items():
        parts = split(cohort, run.data.validation, run.data.split_seed, declared, run.data.test)
        used[name] = {side: len(names) for side, names in parts._asdict().items() if side != "test" or tests}
        held[name] = dict(sorted(Counter(class_of[patient] for patient in cohort).items()))
    sites = {name: {"patients": len(cohorts[name]), "used": used[name], "classes": held[name]} for name in cohorts}
    write_json(SimulationFolder(out).shares, {**dealing, "seed": run.seed, "patients": len(profiles), "sites": sites})
    title = (
        f"partition={dealing['partition']}: {quantity(len(profiles), 'patient')} at {quantity(len(cohorts), 'site')}"
    )
    draw_sites(used if set(class_of.values()) == {UNKNOWN} else held, SimulationFolder(out).shares_picture, title)


def _usable(cases: list[Case], run: RunConfig, root: Path) -> list[Case]:
    """The cases with what the task learns, and with the modalities that it needs."""
    wanted, label, some = set(run.data.modalities), TASKS[run.task].label, some_suffice(run.data, run.task)
    if label:
        labelled = [case for case in cases if case.value(label)]
        manifest = f"the column {label.column} of {MANIFEST}"
        source = manifest if (root / MANIFEST).exists() else label.source or manifest
        missing = label.missing, f"no patient has a {label.column}; it comes from {source}"
    else:
        labelled = [case for case in cases if case.mask is not None]
        missing = ("missing_mask", "no case has a mask (…_seg.nii.gz), so nothing can be learned")
    if not labelled:
        raise DataError(missing[0], f"data.root={root}: {missing[1]}")
    found = [case for case in labelled if (wanted & case.images.keys() if some else wanted <= case.images.keys())]
    there = sorted({name for case in labelled for name in case.images})
    if odd := wanted - set(there) if some and found else set():
        raise DataError(
            "missing_modality",
            f"data.modalities: no case of {root} has {', '.join(sorted(odd))}; there are {', '.join(there)}",
        )
    if not found:
        how = "any" if some else "all"
        raise DataError(
            "missing_modality",
            f"data.root={root}: no case has {how} of {', '.join(run.data.modalities)}; there are {', '.join(there)}: "
            "set data.modalities",
        )
    return found
