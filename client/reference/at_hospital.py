"""A hospital's own reference: a model of its data alone, and the federated model against it. Nothing leaves."""

import hashlib
import logging
from contextlib import closing
from typing import Any

from gliofed.client.doctor.consent import hold_patients
from gliofed.client.reference.question import Question
from gliofed.client.reference.scoring import Opened, measure, open_site, subjects, write_scores
from gliofed.client.reference.training import Baseline, Trainer, read_training, train_all
from gliofed.client.round.memory import ran_out
from gliofed.client.round.training import pick_device, pick_workers
from gliofed.shared.codec import travelling
from gliofed.shared.comparison import FEDERATED, OWN, compare
from gliofed.shared.files import json_bytes, make_writable, write_json
from gliofed.shared.locks import lock_file
from gliofed.shared.parse import ConfigError
from gliofed.shared.progress import Bar
from gliofed.shared.weights import initial_model
from gliofed.shared.work_folder import CompareFolder

EVERY = 30.0
"""Seconds between two lines of progress where no terminal shows a bar."""


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
        workers = pick_workers(site.workers, device)
        baseline = Baseline(own, dict.fromkeys(range(1, asked.rounds + 1), (site.name,)))
        with _alone(files, _digest(asked, opened)):
            folders = {FEDERATED: asked.model, own: baseline.folder(files.root).root}
            try:  # the federated model first: one that cannot be used is known before hours of training
                measured = {FEDERATED: measure(asked.model, run, [opened], device, site.threads)}
                first = {name: tensor.clone() for name, tensor in travelling(initial_model(run)).items()}
                cohorts = {site.name: opened.cohort.train}
                trainer = Trainer(run, asked.exported.run_id, cohorts, first, device, site.threads, workers)
                with Bar("reference", EVERY) as bar:
                    train_all(trainer, [baseline], files.root, 1, bar.report)
                measured[own] = measure(folders[own], run, [opened], device, site.threads)
            except (MemoryError, RuntimeError) as error:
                if not ran_out(error):
                    raise
                cure = "free some, or take another --device, and give the same command again"
                raise ConfigError(f"out of memory on {device}; {cure}") from None
            tested = subjects(opened)
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
    make_writable(files.root, str(files.root))
    if not files.of.exists() and {*files.root.iterdir()} - {files.lock}:
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
