"""Shadow models: the run done again by the same federation, each time on a random half of every site's patients."""

import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from shutil import copytree, rmtree
from uuid import uuid4

from gliofed.client.doctor.manifest import read_manifest, write_manifest
from gliofed.server.round.history import History
from gliofed.server.round.sites import Federation
from gliofed.shared.config import RunConfig
from gliofed.shared.parse import ConfigError
from gliofed.shared.progress import Bar
from gliofed.shared.run_folder import ModelFolder, SimulationFolder
from gliofed.shared.seeding import generator, seed_of
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.work_folder import WorkFolder
from gliofed.simulation.attacks.settings import AttackConfig
from gliofed.simulation.attacks.target import Target
from gliofed.simulation.local_engine import run_here
from gliofed.simulation.simulate import FailedError, sites_at_once


@dataclass(frozen=True)
class Shadow:
    """One shadow model."""

    inside: list[bool]
    """Whether it was trained on the patient, for each of `target.patients`."""
    model: Target
    """The target, with the shadow's weights in place of its own."""


def train_shadows(target: Target, settings: AttackConfig, out: Path) -> Iterator[Shadow]:
    """Train `settings.shadows` models, one after the other, in a folder under `out` that is removed.

    They come in pairs: what one has of a site, the other has not, so each patient is in half of them. The same
    mechanism of privacy is at work in each, with noise of its own. Raises ConfigError for a site of one patient, and
    FailedError where a site did not count.
    """
    everybody = [[patient.name for patient in cohort.train + cohort.validation] for cohort in target.cohorts]
    for site, names in zip(target.sites, everybody, strict=True):
        if len(names) < 2:
            sentence = f"{site.name} has one patient, and shadow models halve each site's; give attacks.shadows=0"
            raise ConfigError(f"run={target.folder}: {sentence}")
    with Bar(f"{target.label}: shadow models") as bar:
        for number in range(settings.shadows):
            started = time.monotonic()
            halves = [
                _half(target, site, names, number, settings.seed)
                for site, names in zip(target.sites, everybody, strict=True)
            ]
            weights = _train(target, halves, seed_of(settings.seed, target.run.hash, number) % 2**32, settings, out)
            inside = [name in half for names, half in zip(everybody, halves, strict=True) for name in names]
            bar.report(number + 1, settings.shadows)
            seconds = time.monotonic() - started
            bar.line(f"{target.label}: shadow model {number + 1}/{settings.shadows}, {seconds:.1f} s")
            yield Shadow(inside, replace(target, weights=weights))


def _half(target: Target, site: SiteConfig, names: list[str], number: int, seed: int) -> set[str]:
    """A random half of a site's patients, by name; in every second model the others."""
    order = generator(seed, target.run.hash, site.name, number // 2).permutation(len(names))
    first = {names[index] for index in order[: len(names) // 2]}
    return set(names) - first if number % 2 else first


def _train(target: Target, halves: list[set[str]], seed: int, settings: AttackConfig, out: Path) -> bytes:
    """Train one model on these patients and return its weights."""
    folder = out / "shadows"
    rmtree(folder, ignore_errors=True)  # of an attack that was killed
    try:
        sites = [_admitted(target, site, half, folder) for site, half in zip(target.sites, halves, strict=True)]
        run = shadow_run(target.run, [site.name for site in sites], seed)
        if run.init is not None:
            copytree(SimulationFolder(target.folder).init, SimulationFolder(folder).init)
        with redirect_stderr(StringIO()):  # the rounds of so many runs are no news
            return _federate(run, sites, folder, settings)
    finally:
        rmtree(folder, ignore_errors=True)


def shadow_run(run: RunConfig, sites: Sequence[str], seed: int) -> RunConfig:
    """The run with another seed, everybody trained on and nothing evaluated; private noise follows from the seed too.

    So the attack can be repeated. Who attacks knows the noise of models that they train, and not the target's.
    """
    privacy = run.privacy if run.privacy.mechanism == "none" else replace(run.privacy, test_seed=seed)
    asked = replace(run.round, evaluate_every=0, expected=tuple(sites), quorum=run.round.training(len(sites)))
    return replace(run, seed=seed, data=replace(run.data, validation=0.0, test=None), round=asked, privacy=privacy)


def _admitted(target: Target, site: SiteConfig, half: set[str], folder: Path) -> SiteConfig:
    """The site with half of its patients, who were checked and prepared for the run and are not again.

    It accepts what the site in the run accepted, over any budget: these models stay here.
    """
    work = SimulationFolder(folder).sites / site.name
    free = replace(site.policy, hours=None, max_rounds_a_day=None)
    policy = replace(free, min_patients=1, max_epsilon=None, min_noise=None, test_mode=True)
    shadow = replace(site, patients=tuple(sorted(half)), work=str(work), policy=policy)
    if (manifest := read_manifest(Path(site.work))) is None:
        raise ConfigError(f"{site.folder.manifest}: is gone, and it names the patients; put it back")
    chosen = [
        replace(entry, case=replace(entry.case, side=None))  # who validated in the run trains here
        for entry in manifest.entries
        if entry.case.patient in half
    ]
    write_manifest(work, replace(manifest, everybody=False, entries=chosen))
    WorkFolder(work).cache.symlink_to(site.folder.cache)
    return shadow


def _federate(run: RunConfig, sites: Sequence[SiteConfig], folder: Path, settings: AttackConfig) -> bytes:
    """Run a federation in this process and return its final weights."""
    at_once = sites_at_once(settings.device, settings.threads)
    run_here(Federation(config=run, out=folder, run_id=uuid4().hex), sites, at_once)
    events = History(SimulationFolder(folder).history).events()
    if events[-1]["status"] != "done":
        lines = [line for event in events for line in event.get("sites", {}).items() if line[1]["status"] != "counted"]
        why = "; ".join(sorted({f"{name} {line['status']}: {line['reason']}" for name, line in lines}))
        raise FailedError(f"a shadow model could not be trained ({why}); give attacks.shadows=0")
    return ModelFolder(SimulationFolder(folder).model).weights.read_bytes()
