"""Train the references of a run that has ended, score all models on the test patients, and say how they compare."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gliofed.client.reference.scoring import Opened, measure, measure_all, open_site, subjects, write_scores
from gliofed.client.reference.training import Baseline, Trainer, read_training, train_all
from gliofed.client.round.memory import ran_out
from gliofed.client.round.training import pick_device, pick_workers
from gliofed.server.report.comparison import print_comparison
from gliofed.server.round.closing import final_test
from gliofed.server.round.history import Event, History
from gliofed.server.round.model import first_model
from gliofed.shared.codec import travelling
from gliofed.shared.comparison import FEDERATED, compare
from gliofed.shared.config import RunConfig
from gliofed.shared.files import write_json
from gliofed.shared.progress import Bar
from gliofed.shared.run_folder import SimulationFolder
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.wording import quantity
from gliofed.simulation.baselines import BASELINES
from gliofed.simulation.ending import resume_command
from gliofed.simulation.settings import Settings
from gliofed.simulation.simulate import FailedError, sites_at_once
from gliofed.simulation.sites import scanners_written

EVERY = 30.0
"""Seconds between two lines of progress where no terminal shows a bar."""


def compare_run(
    run: RunConfig, settings: Settings, sites: Sequence[SiteConfig], data: Mapping[str, Any], out: Path, run_id: str
) -> None:
    """Make comparison.json of a run in `out` that has ended, or go on with it, and print it.

    `data` is the composed data choice. Raises FailedError where no site that counted has test patients, or memory does
    not suffice; DataError where a file was changed.
    """
    files, at_once = SimulationFolder(out), settings.at_once or sites_at_once(settings.device, settings.threads)
    history = History(files.history)
    # What the check says of each case left out is in the site's own log since the run; not again on the screen.
    logging.getLogger("gliofed.site").addHandler(logging.NullHandler())
    counted = {each["round"]: _counted(each) for each in history.rounds()}
    members = sorted({site for each in counted.values() for site in each})
    opened = [open_site(site, run) for site in sorted(sites, key=lambda site: site.name) if site.name in members]
    if not any(each.cohort.test for each in opened):
        why = "no site that counted has a test patient, so no model can be compared; the history says why"
        raise FailedError(f"baselines: {why}")
    baselines = baselines_of(settings.baselines, counted)
    cohorts = {each.site.name: each.cohort.train for each in opened}
    device, threads = pick_device(settings.device), settings.threads
    first = {name: tensor.clone() for name, tensor in travelling(first_model(run, files)).items()}
    trainer = Trainer(run, run_id, cohorts, first, device, threads, pick_workers(settings.workers, device))
    try:
        with Bar("references", EVERY) as bar:
            train_all(trainer, baselines, files.baselines, at_once, bar.report)
        folders = _models(history, files) | {each.name: each.folder(files.baselines).root for each in baselines}
        with Bar("scores", EVERY) as bar:
            score = partial(measure, run=run, opened=opened, device=device, threads=threads)
            measured = measure_all(folders, score, at_once, bar.report)
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        models, cure = quantity(at_once, "model"), f"free some, then go on with {resume_command(out)}"
        raise FailedError(f"baselines: out of memory on {device} with {models} at once; {cure}") from None
    scanners = scanners_written(str(data["source"]), [site.name for site in sites])
    tested = [one for each in opened for one in subjects(each, scanners.get(each.site.name))]
    write_scores(files.scores, tested, measured)
    found = compare(run.task, run.data, tested, measured)
    took = _took(run, history, opened, folders)
    took |= {each.name: {**read_training(each.folder(files.baselines)), "private": False} for each in baselines}
    found |= {"models": took, "untested": [each.site.name for each in opened if not each.cohort.test]}
    found["given_weights"] = run.init is not None
    write_json(files.comparison, found)
    print_comparison(found)


def baselines_of(names: Sequence[str], counted: Mapping[int, Sequence[str]]) -> list[Baseline]:
    """The models to train, where `counted` has the sites that counted in each round."""
    members = sorted({site for each in counted.values() for site in each})
    made = {}
    for name in BASELINES:  # in this order, whatever order they were asked for in
        for model, its in BASELINES[name](members).items() if name in names else ():
            rounds = {round: tuple(site for site in sites if site in its) for round, sites in counted.items()}
            made[model] = Baseline(model, {round: sites for round, sites in rounds.items() if sites})
    return [*made.values()]


def _counted(event: Mapping[str, Any]) -> list[str]:
    return sorted(site for site, line in event["sites"].items() if line["status"] == "counted")


def _step_samples(run: RunConfig, patients: int) -> int:
    """Samples of one local step of a site with so many patients; with dp_sgd, which draws by chance, the expected."""
    if run.privacy.mechanism == "dp_sgd":
        return round(min(patients, run.privacy.batch) * run.privacy.patches)
    return run.train.batch


def _models(history: History, files: SimulationFolder) -> dict[str, Path]:
    """The run's own models: of the last round, and of the best where that is another."""
    return {FEDERATED: files.model} | ({"best": files.best} if "best" in _test(history)["models"] else {})


def _test(history: History) -> Event:
    event = final_test(history)
    assert event, "references need data.test, and a run that has ended has tested"
    return event


def _took(
    run: RunConfig, history: History, opened: Sequence[Opened], folders: Mapping[str, Path]
) -> dict[str, dict[str, Any]]:
    """Samples, steps and seconds behind each of the run's own models, over all sites whose updates counted."""
    test = _test(history)
    patients = {each.site.name: len(each.cohort.train) for each in opened}
    last = {FEDERATED: test["round"], "best": test["best_round"]}
    took = {}
    for model in [name for name in folders if name in last]:
        rounds = [event for event in history.rounds() if event["round"] <= last[model]]
        counted = [patients[site] for event in rounds for site in _counted(event)]
        took[model] = {
            "samples": sum(run.train.local_steps(number) * _step_samples(run, number) for number in counted),
            "steps": sum(map(run.train.local_steps, counted)),
            "seconds": round(sum(event["seconds"] for event in rounds), 3),
            "round": last[model],
            "private": run.privacy.mechanism != "none",
        }
    return took
