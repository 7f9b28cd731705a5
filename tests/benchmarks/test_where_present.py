"""The mean over patients who have a region."""

import csv
from pathlib import Path
from statistics import fmean

import nibabel as nib
import numpy as np
import pytest
from small_run import as_given

from gliofed.shared.run_folder import SimulationFolder
from gliofed.simulation.simulate import simulate
from tests.benchmarks.where_present import where_present

WORDS = (
    "model=unet", "data=phantom", "data.patients=4", "data.high_grade=0.2", "data.resolution=8.0", "data.patch=[8,8,8]",
    "data.test=0.6", "sites=2", "rounds=1", "train.steps=1", "baselines=[pooled]", "report.page=false",
    "report.plots=false",
)  # fmt: skip


@pytest.mark.slow
def test_patients_without_a_region_do_not_count_for_it(tmp_path: Path) -> None:
    """Against the patients' own rows, as a run with references writes them, and masks as they are on disk."""
    out = tmp_path / "run"
    simulate(as_given(*WORDS, f"out={out}"))
    with SimulationFolder(out).scores.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "federated"]
    masks = {path.parent.name: np.asarray(nib.load(path).dataobj) for path in out.rglob("*_seg.nii.gz")}
    has = [bool((masks[row["patient"]] == 4).any()) for row in rows]
    assert 0 < sum(has) < len(has), "phantoms of this seed no longer differ in what they have"
    found = where_present(out)
    assert found["dice_wt_present"] == pytest.approx(fmean(float(row["dice_wt"]) for row in rows))
    there = [float(row["dice_et"]) for row, one in zip(rows, has, strict=True) if one]
    assert found["dice_et_present"] == pytest.approx(fmean(there))
    assert where_present(out) == found  # of the file
