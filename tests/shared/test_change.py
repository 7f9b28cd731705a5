"""Dice on change, from files to the figure, of models that read one visit and of those that read a series."""

import pytest
import torch
from small_patches import CPU

from gliofed.shared.config import DataConfig
from gliofed.shared.data.dataset import open_cohort, site_inventory
from gliofed.shared.data.measuring import measure_each
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks.segmentation import Segmentation
from gliofed.simulation.phantom import PhantomConfig, write_phantoms

MODALITIES = ("flair", "t1", "t1ce", "t2")


def marks_bright(image: torch.Tensor) -> torch.Tensor:
    """A model of each voxel alone, of a visit or of a series: bright FLAIR is tumour, bright T1ce enhances."""
    flair, t1ce = image.narrow(-4, 0, 1), image.narrow(-4, 2, 1)
    return torch.cat([t1ce - 1.5, flair - 1], dim=-4)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [None, 10.0])
def test_a_model_of_single_visits_and_one_of_series_are_measured_on_the_same_voxels(tmp_path, spacing):
    """Single visits are cropped one by one, a series as one: only the affine tells where both lie."""
    write_phantoms(PhantomConfig(patients=3, visits=3, resolution=8.0, course="own"), tmp_path / "data", site=0)
    site = SiteConfig(name="a", root=str(tmp_path / "data"), labels="brats2023", work=str(tmp_path / "work"))
    data = DataConfig(
        modalities=MODALITIES, regions=("et", "wt"), window=2, spacing=spacing, patch=(32, 32, 32),
        validation=0, split_seed=0,
    )  # fmt: skip
    cases, found = site_inventory(site).cases, {}
    for reading in ("visits", "series"):
        patients = open_cohort(site, data, reading, cases).train
        found[reading] = measure_each(Segmentation(), marks_bright, patients, data, reading, CPU)
    assert [each["dice_change"] for each in found["visits"]] == [each["dice_change"] for each in found["series"]]
    assert {name for each in found["visits"] for name in each} >= {"dice_change", "dice_change_et", "dice_change_wt"}
    assert 0.05 < Segmentation().summarise(found["visits"])["dice_change"] < 0.95  # there is something to see
