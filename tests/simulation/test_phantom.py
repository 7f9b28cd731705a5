import csv
import itertools
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from gliofed.simulation.phantom import (
    PhantomConfig,
    affine,
    case_name,
    growth,
    is_high_grade,
    left_out,
    make_case,
    write_phantoms,
)
from gliofed.simulation.scanner import SCANNERS, spoil

SCAN = PhantomConfig(patients=2, visits=1, resolution=8.0, seed=3)
SERIES = PhantomConfig(patients=1, visits=5, resolution=8.0, seed=3)


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    root = tmp_path_factory.mktemp("scans")
    write_phantoms(SCAN, root, site=1)
    return root


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    root = tmp_path_factory.mktemp("series")
    write_phantoms(SERIES, root, site=2)
    return root


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def grades(root: Path) -> dict[str, str]:
    with (root / "name_mapping.csv").open(newline="") as file:
        return {row["BraTS_2020_subject_ID"]: row["Grade"] for row in csv.DictReader(file)}


def test_one_visit_comes_as_brats_2020(scans):
    """Real BraTS' reader must need nothing else; site 1 has patients 1001 and 1002, so no two sites share a name."""
    expected = {"name_mapping.csv"} | {
        f"{name}/{name}_{file}.nii.gz"
        for name in ("BraTS20_Training_1001", "BraTS20_Training_1002")
        for file in ("flair", "t1", "t1ce", "t2", "seg")
    }
    assert set(files(scans)) == expected
    assert case_name(SCAN, site=0, patient=7) == "BraTS20_Training_007"


def test_a_series_comes_as_brats_2023(series):
    expected = {"name_mapping.csv"} | {
        f"{name}/{name}-{file}.nii.gz"
        for name in (f"BraTS-GLI-02001-{visit:03d}" for visit in range(5))
        for file in ("t2f", "t1n", "t1c", "t2w", "seg")
    }
    assert set(files(series)) == expected
    assert set(grades(series)) == {"BraTS-GLI-02001"}


def test_enhancing_tumour_has_the_number_of_its_release(tmp_path):
    """4 in BraTS 2020, 3 in BraTS 2023: a usual mix-up. A patient without any is legitimate, so take several."""
    many = {"patients": 3, "resolution": 8.0, "seed": 3}
    for visits, known in ((1, {0, 1, 2, 4}), (2, {0, 1, 2, 3})):
        root = tmp_path / str(visits)
        write_phantoms(PhantomConfig(visits=visits, **many), root, site=0)
        assert {int(label) for path in root.rglob("*seg.nii.gz") for label in np.unique(voxels(path))} == known


def test_same_seed_same_bytes_even_after_an_interruption(scans, tmp_path):
    """A run that died with half a patient written ends with the same files; what was whole is not redone."""
    write_phantoms(PhantomConfig(patients=1, visits=1, resolution=8.0, seed=3), tmp_path, site=1)
    (whole,) = tmp_path.rglob("*_seg.nii.gz")
    written = whole.stat().st_mtime_ns
    (tmp_path / ".BraTS20_Training_1002.half.tmp").mkdir()
    calls = []
    write_phantoms(SCAN, tmp_path, site=1, report=lambda: calls.append(1))
    assert files(tmp_path) == files(scans)
    assert whole.stat().st_mtime_ns == written
    assert len(calls) == SCAN.patients


def test_header_is_brats_own():
    """At 1 mm the published affine; at 4 mm the same corner: half a voxel out from the middle of the first one."""
    np.testing.assert_array_equal(affine(1.0), [[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
    for resolution in (1.0, 2.0, 4.0):
        np.testing.assert_allclose(affine(resolution) @ [-0.5, -0.5, -0.5, 1], [0.5, 239.5, -0.5, 1])


def test_files_are_typed_and_placed_as_brats(scans):
    for path in scans.rglob("*.nii.gz"):
        image = nib.load(path)
        assert image.shape == (30, 30, 19), path.name  # 240, 240 and 155 mm by 8
        assert image.get_data_dtype() == (np.uint8 if "seg" in path.name else np.int16)
        assert image.header["sform_code"] > 0 and image.header["qform_code"] > 0
        np.testing.assert_allclose(image.affine, affine(8.0))
        np.testing.assert_allclose(image.get_qform(), affine(8.0), atol=1e-4)


def test_modalities_share_one_brain_and_outside_is_zero(scans):
    """Loaders take 0 for background; a brain is about 1.0 to 1.9 litres, and the tumour lies in it."""
    for folder in scans.glob("BraTS*"):
        brains = [voxels(folder / f"{folder.name}_{name}.nii.gz") > 0 for name in ("flair", "t1", "t1ce", "t2")]
        mask = voxels(folder / f"{folder.name}_seg.nii.gz")
        for brain in brains:
            np.testing.assert_array_equal(brain, brains[0])
        assert 1.0 < brains[0].sum() * 0.512 / 1000 < 1.9  # 8 mm voxels of 0.512 ml
        assert mask.any() and not (mask[~brains[0]]).any()


def test_a_series_is_one_head_with_a_tumour_that_grows_and_shrinks(series):
    """Volumes go up and down with the radius; far from the tumour the visits show the same anatomy."""
    masks = [voxels(path) > 0 for path in sorted(series.rglob("*-seg.nii.gz"))]
    t1 = [voxels(path) for path in sorted(series.rglob("*-t1c.nii.gz"))]
    assert list(np.argsort([mask.sum() for mask in masks])) == list(np.argsort(growth(5))) == [0, 2, 1, 3, 4]
    same = (t1[0] > 0) & (t1[4] > 0) & ~masks[4]
    assert np.corrcoef(t1[0][same], t1[4][same])[0, 1] > 0.7
    other = make_case(SERIES, site=2, patient=2)[0]["t1ce"]  # another head, for comparison
    shared = same & (other > 0)
    between, within = (np.corrcoef(t1[0][shared], image[shared])[0, 1] for image in (other, t1[4]))
    assert between < within


def test_any_number_of_visits_ends_at_full_size():
    np.testing.assert_allclose(growth(5), [0.60, 0.78, 0.66, 0.82, 1.00])
    np.testing.assert_allclose(growth(3), [0.60, 0.66, 1.00])
    np.testing.assert_allclose(growth(1), [1.00])


@pytest.mark.slow
def test_resolutions_show_the_same_patient():
    """Noise is laid out in mm, so that a cheap run studies the patients of an expensive one."""
    volumes = [
        (make_case(PhantomConfig(patients=1, resolution=mm, seed=5), site=0, patient=1)[1] > 0).sum() * mm**3
        for mm in (4.0, 8.0)
    ]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.15)


def test_sites_have_scanners_of_their_own():
    """Sites differ in brightness as their scanners' scales do: a federation must face what hospitals bring."""
    bright = [
        np.median(image[image > 0]) for image in (make_case(SCAN, site, 1)[0]["t1"] for site in range(len(SCANNERS)))
    ]
    assert list(np.argsort(bright)) == list(np.argsort([scanner.scale for scanner in SCANNERS]))


def test_every_small_site_has_both_grades_and_the_table_tells_them(scans):
    """Four patients at 60% hold two or three HGG at any site; one grade alone would leave nothing to learn."""
    for site in range(20):
        assert sum(is_high_grade(SCAN, site, patient) for patient in range(1, 5)) in (2, 3)
    truth = {case_name(SCAN, 1, patient): "HGG" if is_high_grade(SCAN, 1, patient) else "LGG" for patient in (1, 2)}
    assert grades(scans) == truth


@pytest.mark.slow
def test_no_threshold_on_flair_finds_the_tumour():
    """A task that one number solves would show nothing; the best of all numbers stays below a mean Dice of 0.85."""
    dices = []
    for site in range(5):
        for patient in (1, 2, 3):
            images, mask = make_case(SCAN, site, patient)
            flair, brain = images["flair"].astype(float), images["flair"] > 0
            scored = (flair - flair[brain].mean()) / flair[brain].std()
            guesses = [(scored > level) & brain for level in np.arange(0.5, 4, 0.25)]
            dices.append([2 * (guess & (mask > 0)).sum() / (guess.sum() + (mask > 0).sum()) for guess in guesses])
    assert 0.4 < np.mean(dices, axis=0).max() < 0.85  # and above 0.4: FLAIR does show it


OWN = replace(SERIES, visits=3, course="own")


def masks_of(config, patient):
    return [make_case(config, 0, patient, visit)[1] > 0 for visit in range(config.visits)]


def test_a_course_needs_a_series():
    """Single visits are what they were before there were courses."""
    for one, other in zip(make_case(SCAN, 1, 1), make_case(replace(SCAN, course="own"), 1, 1), strict=True):
        np.testing.assert_equal(one, other)


@pytest.mark.slow
def test_courses_differ_grow_respond_and_bring_new_lesions():
    """The rates are of many patients: one sees growth in some intervals, a response in others, and lesions apart."""
    ratios, parts = [], []
    for patient in range(1, 7):
        masks = masks_of(OWN, patient)
        ratios += [after.sum() / before.sum() for before, after in itertools.pairwise(masks)]
        parts.append([ndimage.label(mask)[1] for mask in masks])
    assert 0.2 < np.mean(np.array(ratios) < 1) < 0.8
    assert all(first == 1 for first, *_ in parts)  # _around_the_largest: nobody begins with two
    assert 0.2 < np.mean([last > 1 for *_, last in parts]) < 1


def test_a_visit_is_the_same_whichever_was_made_before():
    """Scans are written one by one, and an interrupted run goes on with any."""
    last_first = [make_case(OWN, 0, 2, visit) for visit in (2, 1, 0)]
    for visit, made in enumerate(reversed(last_first)):
        np.testing.assert_equal(made, make_case(OWN, 0, 2, visit))


def test_lesions_have_the_numbers_of_compartments_and_lie_in_the_brain():
    for patient in (1, 2, 3):
        images, mask = make_case(OWN, 0, patient, 2)
        assert set(np.unique(mask)) <= {0, 1, 2, 3}
        assert not mask[images["t1"] == 0].any()


def test_some_visits_lack_a_modality_and_by_default_none(tmp_path):
    """At the stated rate; the other files are those of the visit with all."""
    config = replace(SCAN, lost=0.3)
    lacking = [left_out(config, 0, patient, 0) for patient in range(1, 401)]
    assert 0.22 < np.mean([name is not None for name in lacking]) < 0.38
    assert set(lacking) == {None, "flair", "t1", "t1ce", "t2"}
    assert not any(left_out(SCAN, 0, patient, 0) for patient in range(1, 401))
    write_phantoms(replace(config, patients=1, lost=1.0), tmp_path / "less", site=0)
    write_phantoms(replace(config, patients=1, lost=0.0), tmp_path / "all", site=0)
    less, everything = files(tmp_path / "less"), files(tmp_path / "all")
    assert len(everything) - len(less) == 1 and less.items() <= everything.items()


def test_a_moved_scan_keeps_its_place_and_is_worse():
    """Ghosts and blur, by turns of chance: the shape stays, the values change."""
    seen = np.random.default_rng(0).random((12, 14, 10)).astype(np.float32)
    kinds = [spoil(np.random.default_rng(seed), seen) for seed in range(8)]
    assert all(each.shape == seen.shape and each.dtype == np.float32 for each in kinds)
    assert {bool(each.std() < 0.9 * seen.std()) for each in kinds} == {True, False}


@pytest.mark.parametrize(
    "wrong", [{"lost": 2.0}, {"patients": 0}, {"visits": 0}, {"resolution": 0.1}, {"resolution": float("nan")}]
)
def test_a_wrong_config_names_key_and_value(wrong):
    ((key, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"data.{key}={value}"):
        PhantomConfig(**({"patients": 1} | wrong))
