"""Nobody vanishes: every folder and image under a root is in a case, or is named with what would make it fit."""

import os

import pytest

from gliofed.shared.data.folders import DEEPEST
from gliofed.shared.data.layouts import find_cases, take_inventory
from gliofed.shared.data.leftovers import counted
from gliofed.shared.data.tables import MANIFEST
from gliofed.shared.data.volume import DataError

FOUR = ["t1", "t1ce", "t2", "flair", "seg"]
ALL = {"t1", "t1ce", "t2", "flair"}


def touch(root, *names):
    """Finding cases opens no scan: empty files will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.fixture
def root(tmp_path):
    """One patient as BraTS 2021 comes."""
    touch(tmp_path, *(f"B_1/B_1_{name}.nii.gz" for name in FOUR))
    return tmp_path


@pytest.mark.parametrize(
    "names",
    [
        [f"B_9_{name.upper()}.NII.GZ" for name in FOUR],
        ["B_9_T1.nii", "B_9_t1gd.nii", "B_9_t2W.nii", "B_9_Flair.nii", "B_9_Segmentation.nii"],
        ["B_9_t1w.nii.gz", "B_9_t1c.nii.gz", "B_9_t2.nii.gz", "B_9_T2_FLAIR.nii.gz", "B_9_seg.nii.gz"],
        [f"B_9_{name} (1).nii.gz" for name in FOUR],  # the only copy there is
        [f"B_9_{name}.nii (1).gz" for name in FOUR],  # as a browser names it
        [f"B_9_native_{name}.nii.gz" for name in ("t1", "t1c", "t2", "fla", "seg")],
        [f"b_9_{name}.nii.gz" for name in FOUR],
    ],
)
def test_names_that_real_files_have_are_read(root, names):
    touch(root, *(f"B_9/{name}" for name in names))
    inventory = take_inventory(root, "brats2021")
    assert [(case.patient, set(case.images)) for case in inventory.cases] == [("B_1", ALL), ("B_9", ALL)]
    assert all(case.mask for case in inventory.cases)
    assert not inventory.not_understood and not inventory.not_used


@pytest.mark.parametrize(
    ("names", "folder", "cure"),
    [
        ([f"P7/B_9_{name}.nii.gz" for name in FOUR], "P7", "files are those of B_9"),
        ([f"B_1 (1)/B_1_{name}.nii.gz" for name in FOUR], "B_1 (1)", "is it a copy?"),
        ([f"B_9/anat/B_9_{name}.nii.gz" for name in FOUR], "B_9", "move them up into B_9"),
        ([f"B_9/B_9/B_9_{name}.nii.gz" for name in FOUR], "B_9", "a folder too deep; move them into"),
        ([f"more/B_{n}/B_{n}_{name}.nii.gz" for n in (8, 9) for name in FOUR], "more", "holds 2 cases"),
        ([f"B_9/{name}.nii.gz" for name in FOUR], "B_9", "name them B_9_t1.nii.gz"),
        (["B_9/B_9_axial.nii.gz"], "B_9", "no name ends in a modality"),
        (["B_9/X_t1.nii.gz", "B_9/Y_t1.nii.gz"], "B_9", "holds files of X and Y"),
        ([f"B_9/B_9_{name}.mha" for name in FOUR], "B_9", "3D Slicer"),
        ([f"B_9/B_9_{name}.nrrd" for name in FOUR], "B_9", "3D Slicer"),
        ([f"B_9/series/IM{n:04d}" for n in range(20)], "B_9", "dcm2niix"),
        ([f"B_9/{n}.dcm" for n in range(20)], "B_9", "dcm2niix"),
        (["B_9/B_9_t1.hdr", "B_9/B_9_t1.img"], "B_9", "does not tell left from right"),
        (["B_9/B_9_t1.mgz"], "B_9", "nib-convert"),
        (["B_9_t1.nii.gz", "B_9_t2.nii.gz"], "", "a folder of its own"),
        (["B_8.tar.gz", "B_9.zip"], "", "unpack the archive"),
        (["B_9/B_9.7z"], "B_9", "unpack the archive"),
        (["B_9/B_9_t1+orig.BRIK.gz", "B_9/B_9_t1+orig.HEAD"], "B_9", "3dAFNItoNIFTI"),
        (["notes2024"], "", "if it is no scan, give its name an ending"),  # as DICOM often has none
    ],
)
def test_what_is_no_case_is_named_with_its_files_the_nearest_layout_and_the_cure(root, names, folder, cure):
    """Before, a patient whose folder had another name vanished as soon as one folder fitted."""
    touch(root, *names)
    inventory = take_inventory(root, "brats2021")
    assert [case.patient for case in inventory.cases] == ["B_1"]
    [stray] = inventory.not_understood
    assert stray.folder == root / folder and stray.files == sorted(root / name for name in names)
    shown = str(stray)
    assert cure in shown and str(stray.folder) in shown
    assert stray.files[0].name in shown and "BraTS 2020-2021: ID/ID_{t1," in shown
    assert f"1 folder with {len(names)} image file" in counted([stray])


@pytest.mark.parametrize(
    ("place", "names"),
    [
        ("B_1", [f"B_9_{name}.nii.gz" for name in FOUR]),
        ("B_1/B_9", [f"B_9_{name}.nii.gz" for name in FOUR]),
        ("B_1/B_9", [f"{name}.nii.gz" for name in FOUR]),
        ("B_1/B_9", ["anat/B_9_t1.nii.gz", "seg/B_9_seg.nii.gz"]),
        ("B_1/more/B_10", ["B_10_t1.nii.gz"]),  # not B_1 with an addition
        ("B_1/B_1_2", ["B_1_2_t1.nii.gz"]),
        ("B_1", ["B_9_t1.mha"]),
    ],
)
def test_a_patient_in_the_folder_of_another_is_named(root, place, names):
    """They were counted as further images of B_1."""
    touch(root, *(f"{place}/{name}" for name in names), "B_1/B_1_adc.nii.gz", "B_1/raw/B_1_t1.nii.gz")
    inventory = take_inventory(root, "brats2021")
    [stray] = inventory.not_understood
    assert stray.folder == root / place and stray.files == sorted(root / place / name for name in names)
    assert "in the folder of B_1; move them into a folder B_" in str(stray)
    assert inventory.not_used == {"*_adc.nii.gz": 1, "raw/*_t1.nii.gz": 1}


def test_what_lies_in_many_cases_is_a_kind_of_image_and_nobodys(root):
    """Else a folder of hundreds had a finding in each case."""
    for number in (2, 3):
        touch(root, f"B_{number}/B_{number}_t1.nii.gz")
    for number in (1, 2, 3):
        own = f"B_{number}_raw"
        touch(root, *(f"B_{number}/{name}_t1.nii.gz" for name in ("native/native", "MNI152/x", f"{own}/{own}")))
        touch(root, f"B_{number}/wm_seg.nii.gz")  # a mask alone is no patient
    inventory = take_inventory(root, "brats2021")
    assert not inventory.not_understood and inventory.not_used.total() == 12


@pytest.mark.parametrize("listed", [True, False])
def test_no_folder_that_could_not_be_listed_is_passed_over(root, listed):
    """In the folder of a case, and with a table. Those far deeper met Python's limit of recursion."""
    touch(root, "B_1/" + "d/" * DEEPEST + "B_9_t1.nii.gz")
    if listed:
        (root / MANIFEST).write_text("patient,t1\nB_1,B_1/B_1_t1.nii.gz\n")
    inventory = take_inventory(root, "brats2021")
    assert not inventory.not_used
    assert str(inventory.not_understood[-1]) == (
        f"{root / 'B_1'}{'/d' * DEEPEST}: lies more than {DEEPEST} folders deep; move what is in it up, or out"
    )


@pytest.mark.parametrize(
    ("place", "cure"),
    [
        ("more/UCSF-PDGM-v5", "holds 1 case, a folder too deep; move them into {root}, or give data.root={place}"),
        ("UCSF-PDGM-v3/UCSF-PDGM-v3", "move them into {root}/UCSF-PDGM-v3, or give data.root={place}"),
    ],
)
def test_a_second_root_of_a_release_is_no_copy_of_the_first(tmp_path, place, cure):
    """It held two cases for one, or was said to have a patient who was nowhere else."""
    touch(tmp_path, "UCSF-PDGM-v3/UCSF-PDGM-0001_nifti/UCSF-PDGM-0001_T1.nii.gz")
    touch(tmp_path, f"{place}/UCSF-PDGM-0002_nifti/UCSF-PDGM-0002_T1.nii.gz")
    [stray] = take_inventory(tmp_path, "ucsf_pdgm").not_understood
    assert cure.format(root=tmp_path, place=tmp_path / place) in str(stray)


def test_an_empty_folder_is_named_and_one_of_other_files_is_counted(root):
    """A patient's copy may have failed; notes are no patient."""
    (root / "B_9").mkdir()
    (root / "B_1/B_7").mkdir()
    touch(root, "notes/readme.txt", ".hidden/B_8_t1.nii.gz")
    inventory = take_inventory(root, "brats2021")
    [stray] = inventory.not_understood
    assert stray.folder == root / "B_9" and "empty" in str(stray)
    assert inventory.not_used == {"notes/ (no image)": 1, "B_7/ (no image)": 0}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed_is_named(root):
    (root / "B_9").mkdir(mode=0)
    [stray] = take_inventory(root, "brats2021").not_understood
    assert "look at its rights" in str(stray)


def test_two_files_for_one_modality_are_none(root):
    """Which is meant is not ours to say; .nii.gz went before .nii without a word."""
    touch(root, "B_1/B_1_t1 (1).nii.gz", "B_1/B_1_seg.nii", "B_1/B_1_T2w.nii.gz")
    [case] = find_cases(root, "brats2021")
    assert set(case.images) == {"t1ce", "flair"} and case.mask is None
    assert {what: sorted(path.name for path in paths) for what, paths in case.twice.items()} == {
        "t1": ["B_1_t1 (1).nii.gz", "B_1_t1.nii.gz"],
        "mask": ["B_1_seg.nii", "B_1_seg.nii.gz"],
        "t2": ["B_1_T2w.nii.gz", "B_1_t2.nii.gz"],
    }


def test_brats_2023_without_a_visit_is_the_only_one_and_never_a_second_first_one(tmp_path):
    names = ("t1n", "t1c", "t2W", "t2f", "seg")
    folders = ("BraTS-GLI-00001-000", "BraTS-GLI-00001", "BraTS-GLI-00001-001", "BraTS-GLI-00002")
    touch(tmp_path, *(f"{folder}/{folder}-{name}.nii.gz" for folder in folders for name in names))
    touch(tmp_path, *(f"BraTS-GLI-00002-001/BraTS-GLI-00002-001_{name}.nii.gz" for name in names))
    inventory = take_inventory(tmp_path, "brats2023")
    assert [(case.patient, case.visit) for case in inventory.cases] == [
        ("BraTS-GLI-00001", "000"),
        ("BraTS-GLI-00001", "001"),
        ("BraTS-GLI-00002", "000"),
        ("BraTS-GLI-00002", "001"),  # joined with _, still a visit: two patients could be on two sides
    ]
    [stray] = inventory.not_understood
    assert stray.folder == tmp_path / "BraTS-GLI-00001" and "BraTS-GLI-00001 visit 000" in str(stray)


def test_what_public_sets_ship_beside_is_counted_once_a_pattern(tmp_path):
    """UCSF-PDGM has 23 files a case; a finding for each would be thousands."""
    extra = ("ADC", "T1_bias", "brain_segmentation", "DTI_eddy_FA")
    for number in (1, 2, 3):
        folder = f"UCSF-PDGM-000{number}"
        touch(tmp_path, *(f"{folder}_nifti/{folder}_{name}.nii.gz" for name in ("T1", "tumor_segmentation", *extra)))
    inventory = take_inventory(tmp_path, "ucsf_pdgm")
    assert inventory.not_used == {f"*_{name}.nii.gz": 3 for name in extra}
    assert not inventory.not_understood and not any(case.twice for case in inventory.cases)


def test_a_week_of_lumiere_owns_all_below_it(tmp_path):
    for week in ("week-000-1", "week-044"):
        for path in ("T1.nii.gz", "DeepBraTumIA-segmentation/native/segmentation/t1_seg_mask.nii.gz"):
            touch(tmp_path, f"Imaging/Patient-001/{week}/{path}")
    touch(tmp_path, "Imaging/Patient-002/weak-1/T1.nii.gz", "Imaging/Patient-001/week-044/T1.mha")
    inventory = take_inventory(tmp_path, "lumiere")
    assert inventory.not_used == {
        "week-*/DeepBraTumIA-segmentation/native/segmentation/t1_seg_mask.nii.gz": 2,
        "week-*/T1.mha (save MetaImage or NRRD as .nii.gz with 3D Slicer)": 1,
    }
    [stray] = inventory.not_understood
    assert stray.folder.name == "Patient-002" and "nearest is LUMIERE" in str(stray)


def test_files_that_no_row_names_are_one_line(tmp_path):
    """A row may lead there by .. and by a link."""
    touch(tmp_path, *(f"in/{name}.nii.gz" for name in ("a", "b", "test", "c", "d")), "in/scan/e.dcm")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    rows = "patient,t1,split", f"P,{tmp_path}/link/a.nii.gz,", "R,../in/b.nii.gz,", "Q,test.nii.gz,test"
    (tmp_path / "in/cases.csv").write_text("\n".join(rows))
    inventory = take_inventory(tmp_path / "in", "brats2021")
    [stray] = inventory.not_understood
    assert [path.name for path in stray.files] == ["c.nii.gz", "d.nii.gz", "e.dcm"]
    assert "cases.csv names no such file" in str(stray) and "dcm2niix" in str(stray)
    assert not inventory.not_used


def test_the_folder_of_one_case_will_do(root):
    touch(root, "B_1/B_1_t1.mha", "B_2/B_2_t1.nii.gz")
    inventory = take_inventory(root / "B_1", "brats2021")
    assert [case.patient for case in inventory.cases] == ["B_1"]
    assert set(inventory.not_used) == {"*_t1.mha (save MetaImage or NRRD as .nii.gz with 3D Slicer)"}


def test_where_nothing_is_understood_the_first_reason_is_given(tmp_path):
    touch(tmp_path, *(f"P7/B_9_{name}.nii.gz" for name in FOUR))
    for place in (tmp_path, tmp_path / "P7"):
        with pytest.raises(DataError, match="files are those of B_9"):
            take_inventory(place, "brats2021")


def test_a_link_in_a_circle_hides_no_other(root):
    (root / "circle").symlink_to("circle")
    inventory = take_inventory(root, "brats2021")
    assert len(inventory.cases) == 1 and root / "circle" in [stray.folder for stray in inventory.not_understood]


def test_names_that_end_in_a_number_are_patients_and_no_visits(tmp_path):
    """A hospital's own: all of its patients were visits of one."""
    for number in (1, 2):
        name = f"GLIO-00{number}"
        touch(tmp_path, *(f"{name}/{name}-{image}.nii.gz" for image in ("t1n", "t1c", "t2w", "t2f", "seg")))
    assert [case.patient for case in find_cases(tmp_path, "brats2023")] == ["GLIO-001", "GLIO-002"]


def test_a_link_to_a_folder_above_ends(root):
    (root / "B_1/up").symlink_to(root)
    assert len(find_cases(root, "brats2021")) == 1
