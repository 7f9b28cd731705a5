"""Dice by region over the test patients who have it: a model that never finds a region scores 1 where it is absent."""

import json
from pathlib import Path
from statistics import fmean

import torch

from gliofed.client.reference.scoring import measure, open_site
from gliofed.shared.data.cache import open_entry
from gliofed.shared.data.dataset import Patient
from gliofed.shared.files import write_json
from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.settings import read_run
from gliofed.simulation.sites import make_sites

FILE = "where_present.json"


def where_present(out: Path) -> dict[str, float]:
    """dice_et_present and so on of the last model of a run in `out`, over test patients of all sites; kept there.

    A region that no test patient has is left out.
    """
    kept = out / FILE
    if not kept.exists():
        write_json(kept, _measured(out))
    found: dict[str, float] = json.loads(kept.read_text())
    return found


def _measured(out: Path) -> dict[str, float]:
    saved, run, settings = read_run(out, "run")
    sites = make_sites(saved["simulation"]["data"], run, settings, out, lambda *_: None)
    opened = [open_site(site, run) for site in sites]
    rows = measure(SimulationFolder(out).model, run, opened, torch.device("cpu"), threads=1)
    there = [_has(patient) for each in opened for patient in each.cohort.test]
    means = {}
    for number, region in enumerate(run.data.regions):
        name = f"dice_{region.lower()}"
        if values := [row[name] for row, has in zip(rows, there, strict=True) if has[number]]:
            means[f"{name}_present"] = fmean(values)
    return means


def _has(patient: Patient) -> list[bool]:
    """Which regions (R) any visit of a patient has."""
    masks = [open_entry(entry).mask for entry in patient.entries]
    return [any(mask[:, number].any() for mask in masks) for number in range(masks[0].shape[1])]
