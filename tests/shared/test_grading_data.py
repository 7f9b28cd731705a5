"""What grading reads of a case: never the mask, the central slices, scaled to 0..1, missing modalities noted."""

from dataclasses import replace
from itertools import combinations

import nibabel as nib
import numpy as np
import pytest
import torch
from found_cohort import found_cohort
from numpy.testing import assert_allclose, assert_array_equal
from torch.testing import assert_close

from gliofed.shared.config import DataConfig, TrainConfig
from gliofed.shared.data.cache import open_entry
from gliofed.shared.data.dataset import Patient
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.prepare import prepare_block
from gliofed.shared.data.samples import class_weights, whole
from gliofed.shared.data.transforms import central_block, min_max
from gliofed.shared.data.volume import DataError
from gliofed.shared.site_config import SiteConfig
from gliofed.shared.tasks.grading import GRADE

DATA = DataConfig(
    modalities=("flair", "t1ce"),
    regions=("wt",),
    window=1,
    spacing=None,
    patch=(6, 6, 32),
    validation=0,
    split_seed=0,
)
TRAIN = TrainConfig(
    steps=1,
    epochs=None,
    batch=4,
    lr=1e-3,
    weight_decay=0,
    clip=None,
    foreground=0,
    class_weights="balanced",
    precision="fp32",
)
SHAPE = (6, 7, 41)  # W, the last axis, holds the axial slices


def write(root, name, grade, images=("flair", "t1ce")):
    """A case without a readable mask: whoever opens it fails."""
    rng = np.random.default_rng(int(name[1:]))
    (root / name).mkdir(parents=True)
    for modality in images:
        scan = rng.integers(0, 900, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(scan, np.eye(4)), root / name / f"{name}_{modality}.nii.gz")
    (root / name / f"{name}_seg.nii.gz").write_bytes(b"not a scan")
    with (root / "name_mapping.csv").open("a") as file:
        if not file.tell():
            file.write("Grade,BraTS_2020_subject_ID\n")
        if grade:
            file.write(f"{grade},{name}\n")


@pytest.fixture
def site(tmp_path):
    """Three HGG of which one lacks T1ce, an LGG, one without a grade and one without any image that is read."""
    scans = tmp_path / "scans"
    for number, (grade, images) in enumerate(
        [
            ("HGG", ("flair", "t1ce")),
            ("HGG", ("flair", "t1ce")),
            ("HGG", ("flair",)),
            ("LGG", ("flair", "t1ce")),
            (None, ("flair", "t1ce")),
            ("LGG", ("t2",)),
        ]
    ):
        write(scans, f"P{number}", grade, images)
    return SiteConfig(name="here", root=str(scans), labels="brats2020", work=str(tmp_path / "work"))


def test_min_max_is_the_published_formula():
    scan = np.random.default_rng(0).normal(100, 30, (4, 5, 6)).astype(np.float32)
    assert_allclose(min_max(scan), (scan - scan.min()) / (scan.max() - scan.min() + 1e-8), atol=1e-3)  # fp16
    assert not min_max(np.full((2, 2, 2), 7, np.float32)).any()  # nothing to scale: no NaN


@pytest.mark.parametrize("depth", [155, 33, 32, 31, 5])
def test_central_slices_are_the_published_ones(depth):
    """start = (D - 32) // 2 and 32 from there; fewer are padded on both sides, which the original forgot."""
    scan = np.arange(1, depth + 1, dtype=np.float16) * np.ones((2, 3, 1), np.float16)
    block = central_block(scan, (2, 3, 32))
    assert block.shape == (2, 3, 32)
    if depth >= 32:
        start = (depth - 32) // 2
        assert_array_equal(block, scan[..., start : start + 32])
    else:
        before = (32 - depth) // 2
        expected = [0] * before + list(range(1, depth + 1)) + [0] * (32 - depth - before)
        assert block[0, 0].tolist() == expected


def test_an_entry_holds_scaled_blocks_and_never_the_mask(site, tmp_path):
    case = find_cases(tmp_path / "scans", "brats2020")[0]
    entry = open_entry(prepare_block(case, DATA, tmp_path / "cache"))
    assert entry.image.shape == (1, 2, 6, 6, 32) and entry.mask.shape == (1, 0, 6, 6, 32)
    assert entry.present.tolist() == [[True, True]] and entry.spacing == (1, 1, 1)
    for channel, modality in enumerate(DATA.modalities):
        scan = nib.load(case.images[modality].path).get_fdata()
        expected = (scan - scan.min()) / (scan.max() - scan.min() + 1e-8)
        assert_allclose(entry.image[0, channel], expected[:, 0:6, 4:36], atol=1e-3)  # (7-6)//2 = 0, (41-32)//2 = 4


def test_spacing_may_differ_by_axis(site, tmp_path):
    """The original shrinks 240x240 in plane to 128x128 and leaves the slices as they are."""
    case = find_cases(tmp_path / "scans", "brats2020")[0]
    data = replace(DATA, spacing=(2.0, 2.0, 1.0), patch=(3, 4, 41))
    entry = open_entry(prepare_block(case, data, tmp_path / "cache"))
    scan = min_max(nib.load(case.images["flair"].path).get_fdata().astype(np.float32)).astype(np.float64)
    assert entry.spacing == (2, 2, 1)
    # Halving along X is the mean of pairs; along Y the seventh row has no partner, so only X and Z are compared.
    pairs = scan[:, :6].reshape(3, 2, 3, 2, 41).mean((1, 3))
    assert np.corrcoef(entry.image[0, 0, :, :3].ravel(), pairs.ravel())[0, 1] > 0.8


def test_who_is_in_the_cohort(site):
    cohort = found_cohort(site, DATA, GRADE)
    assert {patient.name: patient.value for patient in cohort.train} == {
        "P0": "HGG",
        "P1": "HGG",
        "P2": "HGG",
        "P3": "LGG",
    }
    assert cohort.left_out == {"no_grade": 1, "missing_modality": 1}


def test_no_visit_has_the_grade_of_another(tmp_path):
    """A patient with two grades is left out, and one is read at the first visit that has a grade."""
    rows = ["patient,visit,flair,t1ce,grade"]
    for name in ("P0", "P1"):
        write(tmp_path / "scans", name, None)
        files = ",".join(f"{name}/{name}_{modality}.nii.gz" for modality in ("flair", "t1ce"))
        grades = ("", "LGG") if name == "P0" else ("LGG", "HGG")
        rows += [f"{name},{visit},{files},{grade}" for visit, grade in enumerate(grades)]
    (tmp_path / "scans" / "cases.csv").write_text("\n".join(rows))
    site = SiteConfig(name="a", root=str(tmp_path / "scans"), labels="brats2020", work=str(tmp_path))
    cohort = found_cohort(site, DATA, GRADE)
    assert [(patient.name, patient.visits, patient.value) for patient in cohort.train] == [("P0", ("1",), "LGG")]
    assert cohort.left_out == {"two_grades": 1}


def test_a_site_without_grades_says_so(site, tmp_path):
    (tmp_path / "scans" / "name_mapping.csv").unlink()
    with pytest.raises(DataError, match="none of 6 patients can be used") as caught:
        found_cohort(site, DATA, GRADE)
    assert caught.value.code == "no_grade"


def test_a_batch_is_patients_with_grades_and_what_is_missing(site):
    patients = found_cohort(site, DATA, GRADE).train
    [batch] = batches(Source(patients, DATA, TRAIN, GRADE, (0,)), 1, torch.device("cpu"))
    assert batch.image.shape == (4, 2, 6, 6, 32) and batch.image.dtype == torch.float32
    by_name = {patient.name: next(whole(patient, DATA, GRADE)) for patient in patients}
    mirrored = [axes for n in range(4) for axes in combinations((1, 2, 3), n)]  # of training alone, along any axes
    order = [
        next(n for n, one in by_name.items() if any(torch.equal(one.image[0].flip(axes), image) for axes in mirrored))
        for image in batch.image
    ]
    assert sorted(order) == ["P0", "P1", "P2", "P3"]
    assert batch.target.tolist() == [[float(name != "P3")] for name in order]
    assert batch.present.tolist() == [[True, name != "P2"] for name in order]
    assert_close(batch.weight, torch.tensor([2.0 if name == "P3" else 2 / 3 for name in order]))
    assert len(batch.inputs) == 2 and batch.inputs[1] is batch.present


def test_class_weights():
    """Balanced weights sum to the same for both grades; one grade alone has nothing to balance."""
    patients = [Patient("a", (), (), "HGG")] * 6 + [Patient("b", (), (), "LGG")] * 2
    weights = class_weights(patients, "balanced", GRADE)
    assert 6 * weights["HGG"] == 2 * weights["LGG"] == 4
    assert class_weights(patients[:6], "balanced", GRADE) == {"LGG": 1, "HGG": 1}
    assert class_weights(patients, None, GRADE) == {"LGG": 1, "HGG": 1}
    assert class_weights(patients, (3.0, 0.5), GRADE) == {"LGG": 3, "HGG": 0.5}


@pytest.mark.parametrize("change", [{"patch": (5, 6, 32)}, {"spacing": 2.0}, {"modalities": ("t1ce", "flair")}])
def test_other_settings_are_another_entry(site, tmp_path, change):
    """The cache must not hand out blocks of another size, spacing or order."""
    case = find_cases(tmp_path / "scans", "brats2020")[0]
    first = prepare_block(case, DATA, tmp_path / "cache")
    assert prepare_block(case, DATA, tmp_path / "cache") == first
    assert prepare_block(case, replace(DATA, **change), tmp_path / "cache") != first


def test_grades_are_read_as_people_write_them(tmp_path):
    for name, grade in (("P0", " hgg"), ("P1", "Lgg"), ("P2", "II")):
        write(tmp_path / "scans", name, grade)
    assert [case.grade for case in find_cases(tmp_path / "scans", "brats2020")] == ["HGG", "LGG", None]
    with (tmp_path / "scans" / "name_mapping.csv").open("a") as file:
        file.write("LGG,P0\n")
    with pytest.raises(DataError, match="P0 is both HGG and LGG"):
        find_cases(tmp_path / "scans", "brats2020")
