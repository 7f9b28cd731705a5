"""The private step of every model beside the step without privacy, on the same samples: time and memory."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from gliofed.client.round.privacy import Plan, train_privately
from gliofed.client.round.training import train_one_round
from gliofed.shared.config import RunConfig
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.samples import Batch
from gliofed.shared.tasks import TASKS
from gliofed.simulation.settings import parse_settings
from tests.benchmarks.measure import Figures, take_turns
from tests.benchmarks.models import print_table
from tests.benchmarks.subjects import Sizes, Subject, of_preset
from tests.small_run import as_given

PATIENTS, PATCHES = 4, 2
"""Of a private step; the step without privacy has the same samples as one batch."""
STEPS = 2
"""Of a measurement: from the second on the optimiser's state is held, as in all steps of a round but the first."""
SUBJECTS = ("unet", "lstm_unet", "clstm_unet3d", "cnn_lstm cnn1", "cnn_lstm cnn2", "cnn_lstm cnn3")
ASKED = {"time": 1.25, "memory": 1.0}
"""At most these, of the step without privacy."""


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print a table for each preset, and return the rows."""
    torch.set_num_threads(arguments.threads)
    sizes = Sizes(arguments.volume, arguments.series, PATIENTS * PATCHES)
    asked = ", ".join(f"{name} at most {limit}" for name, limit in ASKED.items())
    rows = []
    for preset in arguments.presets:
        found = []
        for subject in of_preset(preset, sizes):
            wanted = arguments.models is None or any(subject.name.startswith(model) for model in arguments.models)
            if subject.name in SUBJECTS and wanted:
                steps = both_steps(subject, arguments.device)
                figures = take_turns(steps, arguments.repeats, arguments.device)
                found += [_row(name, figures, subject.name) for name in steps]
        print_table(f"A private step at {preset}, {PATIENTS} patients of {PATCHES} patches (asked: {asked})", found)
        rows += [{"preset": preset, **row} for row in found]
    return {"threads": arguments.threads, "asked": ASKED, "steps": rows}


def both_steps(subject: Subject, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return the product's own two loops, each of STEPS steps with an optimiser of its own."""
    run = _run()
    task = TASKS["grading" if subject.name.startswith("cnn_lstm") else "segmentation"]
    torch.manual_seed(0)
    models = [subject.build().to(device) for _ in range(2)]
    for model in models:
        if hasattr(model, "iterations"):
            model.iterations = 1  # else the private step would draw how many it makes for each patient
    image, target = torch.randn(subject.image, device=device), (torch.rand(subject.target, device=device) < 0.1).float()
    there = torch.ones(image.shape[:2], dtype=torch.bool, device=device) if task is TASKS["grading"] else None
    every = Batch(image, target, there)
    patients = [Patient(str(index), (), ()) for index in range(PATIENTS)]
    plan = Plan(sigma=1.0, rate=1.0, steps=STEPS, lr=0.8)

    def patches(patient: Patient, rng: np.random.Generator) -> Batch:
        own = slice(int(patient.name) * PATCHES, (int(patient.name) + 1) * PATCHES)
        return Batch(image[own], target[own], None if there is None else there[own])

    return {
        subject.name: lambda: train_one_round(models[0], [every] * STEPS, task, run.train, STEPS, device),
        f"{subject.name}, private": lambda: train_privately(
            models[1], patients, patches, task, run, plan, device, secret=0
        ),
    }


def _run() -> RunConfig:
    """Both steps clip, and on a GPU both have the precision that it computes in."""
    run, *_ = parse_settings(as_given())
    return replace(run, train=replace(run.train, precision="auto", clip=1.0))


def _row(name: str, figures: dict[str, Figures], against: str) -> dict[str, Any]:
    own, other = figures[name], figures[against]
    private = name != against
    return {
        "name": name,
        "seconds": own.time and own.time / STEPS,
        "megabytes": own.memory,
        "gflop": None,
        "gflop_per_second": None,
        "against": against if private else None,
        "time_ratio": own.time / other.time if private and own.time and other.time else None,
        "memory_ratio": own.memory / other.memory if private and own.memory and other.memory else None,
        "failed": own.failed,
        "repeats": own.seconds,
    }
