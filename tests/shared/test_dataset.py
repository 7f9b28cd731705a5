"""Cohorts and batches, on volumes whose voxels tell where they are."""

import json
import logging
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from found_cohort import found_cohort
from small_patches import CPU, patch
from torch.testing import assert_close

from gliofed.shared.config import DataConfig, TrainConfig
from gliofed.shared.data.cache import open_entry
from gliofed.shared.data.dataset import site_inventory
from gliofed.shared.data.draw import Source, batches
from gliofed.shared.data.samples import whole
from gliofed.shared.data.volume import DataError
from gliofed.shared.site_config import SiteConfig

DATA = DataConfig(
    modalities=("t1",), regions=("object",), window=2, spacing=None, patch=(4, 6, 12), validation=0, split_seed=0
)
TRAIN = TrainConfig(
    steps=1,
    epochs=None,
    batch=3,
    lr=1e-3,
    weight_decay=0,
    clip=None,
    foreground=0.5,
    class_weights="balanced",
    precision="fp32",
)
SHAPE = (8, 7, 9)  # against the patch: larger, larger, smaller


def write_case(root, name, seed=0, mask=True):
    """No zeros, so nothing is cropped; one voxel of foreground near a corner."""
    rng = np.random.default_rng(seed)
    (root / name).mkdir(parents=True)
    arrays = {"t1n": rng.integers(1, 1000, SHAPE).astype(np.int16)}
    if mask:
        arrays["seg"] = np.zeros(SHAPE, np.uint8)
        arrays["seg"][7, 3, 4] = 1
    for kind, array in arrays.items():
        nib.save(nib.Nifti1Image(array, np.eye(4)), root / name / f"{name}-{kind}.nii.gz")


@pytest.fixture
def site(tmp_path):
    """Patients A1 to C1 with 3, 5 and 1 visits."""
    for patient, visits in (("A1", 3), ("B1", 5), ("C1", 1)):
        for visit in range(visits):
            write_case(tmp_path / "scans", f"{patient}-{visit:03d}", seed=ord(patient[0]) + visit)
    return SiteConfig(name="here", root=str(tmp_path / "scans"), labels="mock", work=str(tmp_path / "work"))


def fault(site, data, reading="visits"):
    with pytest.raises(DataError) as caught:
        found_cohort(site, data, reading)
    return caught.value


def slow_patch(array, corner, size):
    """Voxel by voxel; what lies outside is 0."""
    made = torch.zeros(*array.shape[:-3], *size)
    for place in np.ndindex(*size):
        source = tuple(int(low) + step for low, step in zip(corner, place, strict=True))
        if all(index < edge for index, edge in zip(source, array.shape[-3:], strict=True)):
            made[..., *place] = torch.from_numpy(np.array(array[..., *source])).float()
    return made


@pytest.mark.parametrize("foreground", [0.0, 1.0])
def test_a_patch_is_a_slice_of_the_cached_array(site, foreground):
    """Found again by brute force: exactly one corner gives the image, and the same one gives the target."""
    patient = found_cohort(site, DATA, "visits").train[-1]  # C: one visit
    entry = open_entry(patient.entries[0])
    places = [(d, h, 0) for d in range(5) for h in range(2)]
    images = {place: slow_patch(entry.image[0], place, DATA.patch) for place in places}
    corners = set()
    rng = np.random.default_rng(0)
    for _ in range(60):
        image, target = patch(patient, DATA, replace(TRAIN, foreground=foreground), rng, series=False)
        assert image.shape == target.shape == (1, 4, 6, 12) and image.dtype == target.dtype == torch.float32
        (corner,) = [place for place in places if torch.equal(image, images[place])]
        if corner not in corners:
            assert_close(target, slow_patch(entry.mask[0], corner, DATA.patch))
        corners.add(corner)
    # Centred on (7, 3, 4) the patch is pushed back into the volume: 7 - 4//2 > 8 - 4, and 3 - 6//2 = 0.
    assert corners == ({(4, 0, 0)} if foreground else set(places))


def test_smaller_volumes_are_padded_at_their_end_with_zeros(site):
    image, target = patch(found_cohort(site, DATA, "visits").train[0], DATA, TRAIN, np.random.default_rng(0), False)
    assert image[..., :9].abs().min() > 0 and not image[..., 9:].any() and not target[..., 9:].any()


def test_a_series_is_consecutive_visits_in_order_at_one_place(site):
    """All visits share a corner, every window occurs, and time never runs back."""
    data = replace(DATA, window=3, patch=SHAPE)
    cohort = found_cohort(site, data, "series")
    assert [patient.name for patient in cohort.train] == ["A1", "B1"]
    assert cohort.left_out == {"no_series": 1}
    patient = cohort.train[1]
    assert patient.visits == ("000", "001", "002", "003", "004")
    image = torch.from_numpy(np.array(open_entry(patient.entries[0]).image)).float()
    starts = set()
    rng = np.random.default_rng(0)
    for _ in range(20):
        window, target = patch(patient, data, TRAIN, rng, series=True)
        assert window.shape == target.shape == (3, 1, *SHAPE)
        (start,) = [start for start in range(3) if torch.equal(window, image[start : start + 3])]
        starts.add(start)
    assert starts == {0, 1, 2}


def test_every_visit_of_a_patient_is_drawn(site):
    patient = found_cohort(site, DATA, "visits").train[1]
    data = replace(DATA, patch=SHAPE)
    rng = np.random.default_rng(0)
    seen = {patch(patient, data, TRAIN, rng, series=False)[0].sum().item() for _ in range(60)}
    assert len(patient.entries) == len(seen) == 5


@pytest.mark.parametrize("series", [False, True])
def test_batches_have_the_promised_shapes_and_hang_on_their_key_alone(site, series):
    reading = "series" if series else "visits"
    patients = found_cohort(site, DATA, reading).train
    torch.manual_seed(0)
    one, two = (list(batches(Source(patients, DATA, TRAIN, reading, (7, "a", 1)), 4, CPU)) for _ in range(2))
    assert one[0].image.shape == one[0].target.shape == ((3, 2, 1, 4, 6, 12) if series else (3, 1, 4, 6, 12))
    for left, right in zip(one, two, strict=True):
        assert torch.equal(left.image, right.image) and torch.equal(left.target, right.target)
    for key in ((8, "a", 1), (7, "b", 1), (7, "a", 2)):
        (other,) = batches(Source(patients, DATA, TRAIN, reading, key), 1, CPU)
        assert not torch.equal(other.image, one[0].image)


def test_all_patients_are_used_in_every_pass(site, tmp_path):
    """Ten patients in batches of three: each pass of ten samples holds each patient once, whatever the batches."""
    for number in range(7):
        write_case(tmp_path / "scans", f"D{number}-000", seed=number)
    data = replace(DATA, patch=SHAPE)
    patients = [replace(p, entries=p.entries[:1]) for p in found_cohort(site, data, "visits").train]
    names = {next(whole(p, data, "visits")).image.sum().item(): p.name for p in patients}
    assert len(names) == 10
    seen = [
        names[image.sum().item()]
        for batch in batches(Source(patients, data, TRAIN, "visits", (0,)), 10, CPU)
        for image in batch.image
    ]
    passes = [seen[start : start + 10] for start in (0, 10, 20)]
    assert all(set(names.values()) == set(one) for one in passes)
    assert passes[0] != passes[1]


def test_whole_volumes_show_each_visit_once_in_order(site):
    """5 visits in windows of 2 are 2, 2 and 1: no visit counts twice in a metric."""
    single = found_cohort(site, DATA, "visits").train[1]
    series = found_cohort(site, DATA, "series").train[1]
    volumes = list(whole(single, DATA, "visits"))
    windows = list(whole(series, DATA, "series"))
    assert [batch.image.shape for batch in volumes] == [(1, 1, *SHAPE)] * 5
    assert [batch.target.shape for batch in windows] == [(1, length, 1, *SHAPE) for length in (2, 2, 1)]
    for part in ("image", "target"):
        parts = [getattr(batch, part) for batch in volumes], [getattr(batch, part)[0] for batch in windows]
        assert_close(*map(torch.cat, parts))


def test_a_cohort_is_split_by_patient(site):
    """Two visits of one patient on both sides would leak."""
    cohort = found_cohort(site, replace(DATA, validation=0.5), "visits")
    train, kept = ([patient.name for patient in side] for side in (cohort.train, cohort.validation))
    assert train and kept and sorted(train + kept) == ["A1", "B1", "C1"]
    assert found_cohort(site, replace(DATA, validation=0.999), "visits").train


def test_a_site_restricts_its_cohort_and_misspellings_are_named(site):
    cohort = found_cohort(replace(site, patients=("B1",)), DATA, "visits")
    assert [patient.name for patient in cohort.train] == ["B1"]
    error = fault(replace(site, patients=("B1", "Bee")), DATA)
    assert error.code == "unknown_patients" and "patients=Bee:" in str(error)


def test_what_no_case_has_is_named_and_explains_who_is_missing(site, tmp_path):
    """A renamed folder's patient is not trained on; where patients are named, the others are not asked for."""
    (tmp_path / "scans/C1-000").rename(tmp_path / "scans/renamed")
    assert ["renamed" in str(stray) for stray in site_inventory(site).not_understood] == [True]
    assert not site_inventory(replace(site, patients=("B1",))).not_understood
    assert "renamed" in str(fault(replace(site, patients=("B1", "C1")), DATA))


def test_bad_cases_are_left_out_counted_and_logged(site, tmp_path, caplog):
    """The count may leave; the file's name goes to the site's own log."""
    scans = tmp_path / "scans"
    path = scans / "A1-001/A1-001-t1n.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    (scans / "B1-002/B1-002-seg.nii.gz").unlink()
    (scans / "C1-000/C1-000-seg.nii.gz").unlink()
    with caplog.at_level(logging.WARNING, logger="gliofed.site"):
        cohort = found_cohort(site, DATA, "visits")
    assert cohort.left_out == {"unreadable": 1, "missing_mask": 2}
    assert [(patient.name, patient.visits) for patient in cohort.train] == [
        ("A1", ("000", "002")),
        ("B1", ("000", "001", "003", "004")),
    ]
    assert "A1-001-t1n.nii.gz" in caplog.text
    # A series cannot do without a file that is there but broken; without a visit's mask, it can.
    series = found_cohort(site, DATA, "series")
    assert [patient.name for patient in series.train] == ["B1"]
    assert series.left_out == {"unreadable": 1, "missing_mask": 2, "no_series": 1}


def test_nobody_left_is_an_error_with_the_first_reason(site, tmp_path):
    assert fault(site, replace(DATA, window=6), "series").code == "no_series"
    assert fault(replace(site, root=str(tmp_path / "nowhere")), DATA).code == "no_cases"
    assert fault(replace(site, patients=()), DATA).code == "no_cases"
    assert fault(replace(site, labels="brats1999"), DATA).code == "unknown_labels"
    assert fault(site, replace(DATA, regions=("et",))).code == "unknown_regions"
    error = fault(site, replace(DATA, modalities=("t2",)))
    assert error.code == "missing_modality" and "A1 visit 000: no t2" in str(error)


def declared(site, tmp_path, sides):
    """The cases of `site` as a datalist; `sides` puts visits such as A1-000 on a side."""
    scans = tmp_path / "scans"
    lists = {side: [] for side in ("training", "validation", "test")}
    for name, side in sides.items():
        files = {key: f"{name}/{name}-{end}.nii.gz" for key, end in (("image", "t1n"), ("label", "seg"))}
        lists[side].append({**files, "patient": name[:2], "visit": name[3:]})
    (scans / "dataset.json").write_text(json.dumps({"channel_names": ["T1"], **lists}))
    return site


@pytest.mark.parametrize("validation", [0, 0.999])
def test_a_side_that_the_data_declare_is_kept_whatever_the_hash_says(site, tmp_path, validation):
    sides = {"A1-000": "training", "A1-001": "training", "B1-000": "validation", "C1-000": "validation"}
    cohort = found_cohort(declared(site, tmp_path, sides), replace(DATA, validation=validation), "visits")
    assert [patient.name for patient in cohort.train] == ["A1"]
    assert [patient.name for patient in cohort.validation] == ["B1", "C1"]


@pytest.mark.parametrize(("test", "tested"), [(None, []), (0.0, ["C1"]), (0.5, ["C1"])])
def test_declared_test_patients_are_tested_or_left_alone(site, tmp_path, test, tested):
    """Without data.test nothing is measured on them, and nothing is prepared either."""
    sides = {"A1-000": "training", "B1-000": "validation", "C1-000": "test"}
    cohort = found_cohort(declared(site, tmp_path, sides), replace(DATA, test=test), "visits")
    parts = [[patient.name for patient in part] for part in (cohort.train, cohort.validation, cohort.test)]
    assert parts == [["A1"], ["B1"], tested] and not cohort.left_out
    assert len(list(site.folder.cache.iterdir())) == len(cohort.everybody)


def test_a_patient_who_is_declared_on_both_sides_is_on_neither(site, tmp_path, caplog):
    sides = {"A1-000": "training", "B1-000": "training", "B1-001": "validation", "C1-000": "validation"}
    cohort = found_cohort(declared(site, tmp_path, sides), DATA, "visits")
    assert [patient.name for patient in [*cohort.train, *cohort.validation]] == ["A1", "C1"]
    assert cohort.left_out == {"split_leak": 1}
    assert "B1: declared for training (visit 000) and validation (visit 001)" in caplog.text


def test_a_site_whose_patients_are_all_declared_validation_has_none_to_train(site, tmp_path):
    """To train on one of them would spoil what the data set compares with."""
    sides = {"B1-000": "validation", "C1-000": "validation"}
    assert fault(declared(site, tmp_path, sides), DATA).code == "no_training"
    assert fault(declared(site, tmp_path, {"A1-000": "test"}), replace(DATA, test=0.0)).code == "no_training"
    leak = {"A1-000": "training", "A1-001": "validation"}
    assert fault(declared(site, tmp_path, leak), DATA).code == "split_leak"


def test_a_4d_case_of_msd_is_prepared_like_its_modalities_in_files(tmp_path):
    """From the folder to the cache: channels in the order of the config, labels by the scheme of MSD."""
    rng = np.random.default_rng(0)
    arrays, mask = rng.integers(1, 1000, (*SHAPE, 4)).astype(np.int16), rng.integers(0, 4, SHAPE).astype(np.uint8)
    msd, files = tmp_path / "msd", tmp_path / "files"
    for folder in (msd / "imagesTr", msd / "labelsTr", files / "B"):
        folder.mkdir(parents=True)
    nib.save(nib.Nifti1Image(arrays, np.eye(4)), msd / "imagesTr/B.nii.gz")
    nib.save(nib.Nifti1Image(mask, np.eye(4)), msd / "labelsTr/B.nii.gz")
    training = [{"image": "./imagesTr/B.nii.gz", "label": "./labelsTr/B.nii.gz"}]
    channels = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (msd / "dataset.json").write_text(json.dumps({"modality": channels, "training": training, "test": []}))
    for channel, name in enumerate(("flair", "t1", "t1ce", "t2")):
        nib.save(nib.Nifti1Image(arrays[..., channel], np.eye(4)), files / f"B/B_{name}.nii.gz")
    as_2020 = np.array([0, 2, 1, 4], np.uint8)[mask]  # edema, core, enhancing
    nib.save(nib.Nifti1Image(as_2020, np.eye(4)), files / "B/B_seg.nii.gz")
    data = replace(DATA, modalities=("t1ce", "t2", "flair", "t1"), regions=("et", "tc", "wt"))
    entries = []
    for root, labels in ((msd, "msd"), (files, "brats2020")):
        site = SiteConfig(name="here", root=str(root), labels=labels, work=str(tmp_path / "work"))
        entries.append(open_entry(found_cohort(site, data, "visits").train[0].entries[0]))
    assert entries[0].mask.any()
    np.testing.assert_array_equal(entries[0].image, entries[1].image)
    np.testing.assert_array_equal(entries[0].mask, entries[1].mask)
