"""A hospital's own reference: a model of its data alone, and the federated model against it. Nothing leaves."""

import hashlib
import logging
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gliofed.client.doctor.consent import hold_patients
from gliofed.client.reference.scoring import Opened, measure, open_site, write_scores
from gliofed.client.reference.training import Baseline, Trainer, read_training, train_all
from gliofed.client.round.memory import known_patch, ran_out
from gliofed.client.round.training import pick_device
from gliofed.shared.codec import travelling
from gliofed.shared.comparison import FEDERATED, OWN, Subject, compare
from gliofed.shared.config import RunConfig
from gliofed.shared.exported import Exported
from gliofed.shared.files import json_bytes, make_writable, write_json
from gliofed.shared.locks import lock_file
from gliofed.shared.parse import ConfigError
from gliofed.shared.progress import Bar
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.weights import initial_model
from gliofed.shared.work_folder import CompareFolder

EVERY = 30.0
"""Seconds between two lines of progress where no terminal shows a bar."""


@dataclass(frozen=True)
class Question:
    """What is compared."""

    site: SiteConfig
    """Whose `device` both models are trained or measured on."""
    model: Path
    """Folder of the federated model."""
    exported: Exported
    run: RunConfig
    """Of the federation that made it; `data.patch` is the smaller one where the site came down to that."""
    rounds: int
    """That the reference takes."""


def compare_here(asked: Question, files: CompareFolder) -> dict[str, Any]:
    """Train the reference, or go on with it, score both models, and write all of it into a folder; return what is in
    compare.json, which names no patient.

    A withdrawal waits meanwhile. Raises ConfigError: a folder that holds something else, no test patients, a damaged
    model, or too little memory; DataError where a scan was changed.
    """
    site, run, own = asked.site, asked.run, OWN + asked.site.name
    # What the check says of each case left out is in the site's own log since the run; not again on the screen.
    logging.getLogger("gliofed.site").addHandler(logging.NullHandler())
    with hold_patients(site.folder.root):
        opened = open_site(site, run)
        if not opened.cohort.test:
            why = "none of the patients who can be used is for testing, so no model can be compared"
            raise ConfigError(f"{site.root}: {why}; declare some in the data, or have more patients")
        device = pick_device(site.device)
        baseline = Baseline(own, dict.fromkeys(range(1, asked.rounds + 1), (site.name,)))
        with _alone(files, _digest(asked, opened)):
            folders = {FEDERATED: asked.model, own: baseline.folder(files.root).root}
            try:  # the federated model first: one that cannot be used is known before hours of training
                measured = {FEDERATED: measure(asked.model, run, [opened], device, site.threads)}
                first = {name: tensor.clone() for name, tensor in travelling(initial_model(run)).items()}
                cohorts = {site.name: opened.cohort.train}
                trainer = Trainer(run, asked.exported.run_id, cohorts, first, device, site.threads)
                with Bar("reference", EVERY) as bar:
                    train_all(trainer, [baseline], files.root, 1, bar.report)
                measured[own] = measure(folders[own], run, [opened], device, site.threads)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                cure = "free some, or take another --device, and give the same command again"
                raise ConfigError(f"out of memory on {device}; {cure}") from None
            tested = _subjects(opened)
            write_scores(files.scores, tested, measured)
            private = run.privacy.mechanism != "none"
            models = {
                FEDERATED: {"round": asked.exported.round, "private": private},
                own: {**read_training(baseline.folder(files.root)), "private": False},
            }
            about = {"run_id": asked.exported.run_id, "site": site.name, "given_weights": run.init is not None}
            about["smaller_patch"] = run.data.patch != asked.exported.data.patch
            found = about | compare(run.task, run.data, tested, measured) | {"models": models}
            write_json(files.comparison, found)
            return found


def _alone(files: CompareFolder, digest: str) -> closing[Any]:
    """Hold the folder, which holds this very comparison or nothing. Raises ConfigError."""
    make_writable(files.root, "--out")
    if any(files.root.iterdir()) and not files.of.exists() and not files.lock.exists():
        raise ConfigError(f"--out {files.root}: is there and not empty; give a new folder")
    held = lock_file(files.lock, f"{files.root}: another gliofed-client compare is at work there; wait until it ends")
    if not files.of.exists():
        write_json(files.of, {"sha256": digest})
    elif files.of.read_bytes() != json_bytes({"sha256": digest}):
        held.close()
        what = "holds a comparison of other data, rounds or settings"
        raise ConfigError(f"{files.root}: {what}; remove the folder, or give a new one with --out")
    return closing(held)


def _digest(asked: Question, opened: Opened) -> str:
    """Of all that the reference follows from; patients by what was prepared of them."""
    training = [[patient.name, *(entry.name for entry in patient.entries)] for patient in opened.cohort.train]
    of = [asked.run.hash, asked.exported.run_id, asked.site.name, asked.rounds, training]
    return hashlib.sha256(json_bytes(of)).hexdigest()


def _subjects(opened: Opened) -> list[Subject]:
    """The test patients; tumours are not measured for it."""
    last_first = opened.cases[::-1]  # so that the first visit of a patient stays
    scanners = {case.patient: case.scanner for case in last_first if case.scanner is not None}
    grades = {case.patient: case.grade for case in last_first if case.grade is not None}
    return [
        Subject(opened.site.name, patient.name, scanners.get(patient.name), grades.get(patient.name), None)
        for patient in opened.cohort.test
    ]


def question(site: SiteConfig, model: Path, exported: Exported, rounds: int | None, device: str | None) -> Question:
    """Check what is asked before any scan is read. Raises ConfigError."""
    run = exported.run
    if run is None:
        cure = "ask the aggregator for the model folder of a run of this version"
        raise ConfigError(f"{model}: its model.json lacks the run's settings, which a reference needs; {cure}")
    if run.data.test is None:
        cure = "ask the aggregator for a run with data.test=0.2, say"
        raise ConfigError(f"{model}: its run set no test patients aside, so no model can be compared; {cure}")
    if rounds is not None and not 1 <= rounds <= run.rounds:
        raise ConfigError(f"--rounds {rounds}: must be from 1 to {run.rounds}, the rounds of the run")
    if not site.folder.manifest.exists():
        cure = "compare after it took part in a run, or freeze its cohort with gliofed-client check"
        raise ConfigError(f"{site.work}: this hospital has no frozen cohort yet; {cure}")
    site = replace(site, device=device or site.device)
    if smaller := known_patch(site, exported.run_id):
        run = replace(run, data=replace(run.data, patch=smaller))
    return Question(site, model, exported, run, rounds or exported.round)
