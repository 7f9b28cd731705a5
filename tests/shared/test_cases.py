"""Layouts -> cases, and the split by patient."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.data.cases import find_cases, split
from shared.data.volume import DataError, Scan


def touch(root, *names):
    """Finding cases opens no scan: empty files will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def fault(root):
    with pytest.raises(DataError) as caught:
        find_cases(root, "brats2020")
    return caught.value


def test_brats_2020_with_grades_and_the_case_that_was_misnamed(tmp_path):
    touch(tmp_path, *(f"B_002/B_002_{name}.nii.gz" for name in ("flair", "t1", "t1ce", "t2", "seg")))
    touch(tmp_path, "B_001/B_001_t1.nii", "B_001/W39_1998.09.19_Segm.nii", "notes/readme.txt")
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2020_subject_ID\nHGG,NA,B_002\nLGG,NA,B_404\n"
    )
    one, two = find_cases(tmp_path, "brats2020")
    assert (one.patient, one.visit, one.grade, one.labels) == ("B_001", "000", None, "brats2020")
    assert one.images == {"t1": Scan(tmp_path / "B_001/B_001_t1.nii")}
    assert one.mask == Scan(tmp_path / "B_001/W39_1998.09.19_Segm.nii")
    assert two.grade == "HGG" and set(two.images) == {"t1", "t1ce", "t2", "flair"}
    assert two.mask == Scan(tmp_path / "B_002/B_002_seg.nii.gz")


def test_brats_2023_sorts_visits_within_patients_and_names_modalities_canonically(tmp_path):
    touch(tmp_path, "G-2-001/G-2-001-t1n.nii.gz", "G-10-000/G-10-000-t1n.nii.gz")
    touch(tmp_path, *(f"G-2-000/G-2-000-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg")))
    touch(tmp_path, ".half-x/.half-x-t1n.nii.gz", ".half-000/.half-000-t1n.nii.gz")
    cases = find_cases(tmp_path, "brats2023")
    assert [(case.patient, case.visit) for case in cases] == [("G-10", "000"), ("G-2", "000"), ("G-2", "001")]
    names = {modality: scan.path.name[len("G-2-000-") :] for modality, scan in cases[1].images.items()}
    assert names == {"t1": "t1n.nii.gz", "t1ce": "t1c.nii.gz", "t2": "t2w.nii.gz", "flair": "t2f.nii.gz"}
    assert cases[2].mask is None


def test_a_root_without_cases_says_what_to_do(tmp_path):
    assert "no such folder" in str(fault(tmp_path / "nowhere"))
    assert "empty" in str(fault(tmp_path))
    touch(tmp_path, "site-1/notes.txt", "site-2/B_001/B_001_t1.nii.gz")
    assert f"set root={tmp_path / 'site-2'}" in str(fault(tmp_path))
    assert fault(tmp_path / "site-1").code == "no_cases"
    assert "brats2023" in str(fault(tmp_path / "site-1"))


def test_two_layouts_in_one_root_are_refused(tmp_path):
    """Their label schemes differ, and a site declares one."""
    touch(tmp_path, "B_001/B_001_t1.nii", "G-2-001/G-2-001-t1n.nii.gz")
    assert fault(tmp_path).code == "mixed_layouts"


names = st.lists(st.text(min_size=1, max_size=4), min_size=1, max_size=20, unique=True)


@settings(deadline=None, max_examples=50)
@given(names, names, st.floats(0, 0.99), st.integers(0, 9))
def test_patients_stay_on_their_side_when_others_come(some, more, validation, seed):
    """Else a validation patient of one round would train in the next. Only who trains for want of others may move."""
    train, kept = split(some, validation, seed)
    later_train, later_kept = split(some + more, validation, seed)
    assert train and sorted(train + kept) == sorted(some)
    assert set(kept) <= set(later_kept)
    if len(train) > 1:
        assert set(train) <= set(later_train)


def test_the_split_is_fixed_and_near_its_fraction():
    """Written out once: if these names move, every running study would mix its sides."""
    patients = [f"P{number:03d}" for number in range(1000)]
    train, kept = split(patients, 0.2, seed=0)
    assert kept[:4] == ["P000", "P001", "P003", "P008"]
    assert 160 < len(kept) < 240
    assert split(patients[::-1] + patients, 0.2, seed=0) == (train, kept)
    assert split(patients, 0.2, seed=1)[1] != kept
    assert split(patients, 0.0, seed=0) == (patients, [])
