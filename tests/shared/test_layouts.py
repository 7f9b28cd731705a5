"""Folders as data sets come -> cases."""

import json

import pytest

from gliofed.shared.data.cases import Case
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.data.volume import DataError, Scan

FOUR = ["t1", "t1ce", "t2", "flair"]


def touch(root, *names):
    """Finding cases opens no scan: empty files will do."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def fault(root):
    with pytest.raises(DataError) as caught:
        find_cases(root, "brats2020")
    return caught.value


def described(cases):
    return [(case.patient, case.visit, case.grade) for case in cases]


def test_brats_2018_has_the_grade_from_the_folder_and_the_institution_from_the_name(tmp_path):
    touch(tmp_path, *(f"HGG/BraTS19_CBICA_AXQ_1/BraTS19_CBICA_AXQ_1_{name}.nii.gz" for name in (*FOUR, "seg")))
    touch(tmp_path, "LGG/Brats18_TCIA09_141_1/Brats18_TCIA09_141_1_t1.nii.gz", "LGG/own/own_t1.nii")
    high, low, own = find_cases(tmp_path, "brats2019")
    folder = tmp_path / "HGG/BraTS19_CBICA_AXQ_1"
    images = {name: Scan(folder / f"BraTS19_CBICA_AXQ_1_{name}.nii.gz") for name in FOUR}
    mask = Scan(folder / "BraTS19_CBICA_AXQ_1_seg.nii.gz")
    assert high == Case("BraTS19_CBICA_AXQ_1", "000", images, mask, "HGG", "brats2019", scanner="CBICA")
    assert (low.grade, low.scanner, low.mask) == ("LGG", "TCIA09", None)
    assert (own.grade, own.scanner) == ("LGG", None)
    touch(tmp_path, "LGG/BraTS19_CBICA_AXQ_1/BraTS19_CBICA_AXQ_1_t1.nii.gz")
    assert fault(tmp_path).code == "duplicate"


def test_brats_2020_with_grades_and_the_case_that_was_misnamed(tmp_path):
    touch(tmp_path, *(f"B_002/B_002_{name}.nii.gz" for name in (*FOUR, "seg")))
    touch(tmp_path, "B_001/B_001_t1.nii", "B_001/W39_1998.09.19_Segm.nii", "notes/readme.txt")
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2017_subject_ID,BraTS_2020_subject_ID\nHGG,NA,B_002\nLGG,NA,B_404\n"
    )
    one, two = find_cases(tmp_path, "brats2020")
    assert (one.patient, one.visit, one.grade, one.labels) == ("B_001", "000", None, "brats2020")
    assert one.images == {"t1": Scan(tmp_path / "B_001/B_001_t1.nii")}
    assert one.mask == Scan(tmp_path / "B_001/W39_1998.09.19_Segm.nii")
    assert two.grade == "HGG" and set(two.images) == set(FOUR)
    assert two.mask == Scan(tmp_path / "B_002/B_002_seg.nii.gz")


def test_a_table_of_grades_that_cannot_be_read_is_no_table_without_grades(tmp_path):
    """A spreadsheet saved with semicolons would leave every patient without a grade, and nobody would know why."""
    touch(tmp_path, "B_001/B_001_t1.nii")
    (tmp_path / "name_mapping.csv").write_text("Grade;BraTS_2020_subject_ID\nHGG;B_001\n")
    assert fault(tmp_path).code == "bad_table" and "name_mapping.csv" in str(fault(tmp_path))


def test_brats_2023_sorts_visits_within_patients_and_names_modalities_canonically(tmp_path):
    touch(tmp_path, "G-2-001/G-2-001-t1n.nii.gz", "G-10-000/G-10-000-t1n.nii.gz")
    touch(tmp_path, *(f"G-2-000/G-2-000-{name}.nii.gz" for name in ("t1n", "t1c", "t2w", "t2f", "seg")))
    touch(tmp_path, ".half-x/.half-x-t1n.nii.gz", ".half-000/.half-000-t1n.nii.gz")
    cases = find_cases(tmp_path, "brats2023")
    assert described(cases) == [("G-10", "000", None), ("G-2", "000", None), ("G-2", "001", None)]
    names = {modality: scan.path.name[len("G-2-000-") :] for modality, scan in cases[1].images.items()}
    assert names == {"t1": "t1n.nii.gz", "t1ce": "t1c.nii.gz", "t2": "t2w.nii.gz", "flair": "t2f.nii.gz"}
    assert cases[2].mask is None


@pytest.mark.parametrize(
    ("own", "other", "ends"),
    [("B_1", "B_1_2", "_t1"), ("B_1", "B_1_2", "_native_t1"), ("UCSF-PDGM-0004_nifti", "UCSF-PDGM-0004_FU016d", "_T1")],
)
def test_no_case_has_the_scans_of_a_folder_beside_it(tmp_path, own, other, ends):
    """B_1_2 begins as B_1 does: with copied files it was two patients with the same scans, or the first visit's."""
    touch(tmp_path, *(f"{folder}/{other}{ends}.nii.gz" for folder in (own, other)))
    [case] = find_cases(tmp_path, "brats2020")
    assert case.images == {"t1": Scan(tmp_path / f"{other}/{other}{ends}.nii.gz")}


@pytest.mark.parametrize("inside", ["", "UCSF-PDGM-v3/"])
def test_ucsf_pdgm_has_who_grades_and_follow_ups_are_visits_of_their_patient(tmp_path, inside):
    """Folders have four digits and the table three; a follow-up that were a patient of its own could leak."""
    for folder in ("UCSF-PDGM-0391", "UCSF-PDGM-0007", "UCSF-PDGM-0100"):
        names = ("FLAIR", "T1", "T1c", "T2", "T1_bias", "SWI", "tumor_segmentation")
        touch(tmp_path, *(f"{inside}{folder}_nifti/{folder}_{name}.nii.gz" for name in names))
    touch(tmp_path, f"{inside}UCSF-PDGM-0391_FU016d_nifti/UCSF-PDGM-0391_FU016d_T1.nii.gz")
    touch(tmp_path, f"{inside}UCSF-PDGM-0007_FU001d_nifti/UCSF-PDGM-0007_T1.nii.gz")
    (tmp_path / "UCSF-PDGM-metadata_v2.csv").write_text(
        "ID,Sex,WHO CNS Grade\nUCSF-PDGM-0391_FU016d,M,4\nUCSF-PDGM-391,M,2\nUCSF-PDGM-007,F,3\nUCSF-PDGM-100,F,\n"
    )
    cases = find_cases(tmp_path, "ucsf_pdgm")
    assert described(cases) == [
        ("UCSF-PDGM-0007", "000", "HGG"),
        ("UCSF-PDGM-0007", "001", "HGG"),
        ("UCSF-PDGM-0100", "000", None),
        ("UCSF-PDGM-0391", "000", "LGG"),
        ("UCSF-PDGM-0391", "016", "HGG"),  # its own line's; a run that grades is told that they differ
    ]
    names = {modality: scan.path.name for modality, scan in cases[0].images.items()}
    assert names == {m: f"UCSF-PDGM-0007_{m.replace('t1ce', 't1c').upper().replace('C', 'c')}.nii.gz" for m in FOUR}
    assert cases[0].mask.path.name == "UCSF-PDGM-0007_tumor_segmentation.nii.gz" and cases[1].mask is None
    with (tmp_path / "UCSF-PDGM-metadata_v2.csv").open("a") as file:
        file.write("UCSF-PDGM-0007,F,2\n")  # the last line counted
    assert "UCSF-PDGM-0007 is both HGG and LGG; leave the right line" in str(fault(tmp_path))


def test_lumiere_is_read_in_order_of_weeks_on_the_grid_of_the_masks(tmp_path):
    """Native scans of a week differ in their grids; week 5 comes before week 10, and 000-1 before 000-2."""
    weeks = ("week-010", "week-000-2", "week-000-1", "week-5", "week-100")
    touch(tmp_path, *(f"Imaging/Patient-001/{week}/{name}.nii.gz" for week in weeks for name in ("T1", "CT1")))
    week = tmp_path / "Imaging/Patient-001/week-000-1"
    touch(
        week / "DeepBraTumIA-segmentation/atlas", "skull_strip/ct1_skull_strip.nii.gz", "segmentation/seg_mask.nii.gz"
    )
    touch(week / "HD-GLIO-AUTO-segmentation/registered", "CT1_r2s_bet_reg.nii.gz", "segmentation.nii.gz")
    touch(tmp_path, "Imaging/notes/week-000/T1.nii.gz", "Imaging/Patient-001/other/T1.nii.gz")
    cases = find_cases(tmp_path, "lumiere")
    assert [case.visit for case in cases] == ["week-000-1", "week-000-2", "week-5", "week-010", "week-100"]
    atlas = week / "DeepBraTumIA-segmentation/atlas"
    assert cases[0].images == {"t1ce": Scan(atlas / "skull_strip/ct1_skull_strip.nii.gz")}
    assert cases[0].mask == Scan(atlas / "segmentation/seg_mask.nii.gz")
    assert cases[1].images["t1ce"].path.name == "CT1.nii.gz" and cases[1].mask is None
    other = find_cases(tmp_path / "Imaging", "hd_glio")[0]
    assert other.images == {"t1ce": Scan(week / "HD-GLIO-AUTO-segmentation/registered/CT1_r2s_bet_reg.nii.gz")}
    assert other.mask == Scan(week / "HD-GLIO-AUTO-segmentation/registered/segmentation.nii.gz")


def listed(root, **listing):
    (root / "dataset.json").write_text(json.dumps(listing))
    return root


MSD = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def entry(name):
    return {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}


def test_msd_has_its_modalities_as_channels_and_no_declared_side(tmp_path):
    """With all of `training` declared training, a site could never validate. `imagesTs` has no masks."""
    touch(tmp_path, *(f"{folder}/BRATS_{n}.nii.gz" for folder in ("imagesTr", "labelsTr") for n in ("002", "001")))
    touch(tmp_path, "imagesTs/BRATS_485.nii.gz")
    listed(
        tmp_path, modality=MSD, training=[entry("BRATS_002"), entry("BRATS_001")], test=["./imagesTs/BRATS_485.nii.gz"]
    )
    cases = find_cases(tmp_path, "msd")
    assert described(cases) == [("BRATS_001", "000", None), ("BRATS_002", "000", None)]
    file = tmp_path / "imagesTr/BRATS_001.nii.gz"
    assert cases[0].images == {"flair": Scan(file, 0), "t1": Scan(file, 1), "t1ce": Scan(file, 2), "t2": Scan(file, 3)}
    assert cases[0].mask == Scan(tmp_path / "labelsTr/BRATS_001.nii.gz") and cases[0].side is None
    (tmp_path / "dataset.json").unlink()
    assert "dataset.json" in str(fault(tmp_path))


def test_a_datalist_of_files_declares_sides_and_keeps_a_patients_visits_together(tmp_path):
    """Names of BraTS tell patient and visit; as two patients they could be on two sides."""
    names = [
        f"{visit}/{visit}-{end}.nii.gz"
        for visit in ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101")
        for end in ("t2f", "t1c", "seg")
    ]
    touch(tmp_path, *names, "other/P7.nii.gz")
    listed(
        tmp_path,
        training=[{"image": names[:2], "label": names[2], "fold": 0}, {"image": names[3:5], "label": names[5]}],
        validation=[{"image": [names[0], names[1]], "patient": "P7", "visit": 3}],
    )
    first, second, third = find_cases(tmp_path, "brats2024")
    assert [(c.patient, c.visit, c.side) for c in (first, second, third)] == [
        ("BraTS-GLI-00005", "100", "training"),
        ("BraTS-GLI-00005", "101", "training"),
        ("P7", "3", "validation"),
    ]
    assert first.images == {"flair": Scan(tmp_path / names[0]), "t1ce": Scan(tmp_path / names[1])}
    assert third.mask is None


def test_a_patient_on_both_sides_of_a_datalist_is_found_on_both(tmp_path):
    """The check names the leak; finding the cases must not hide it."""
    touch(tmp_path, "a_t1.nii", "b_t1.nii")
    listed(tmp_path, training=[{"image": "a_t1.nii"}, {"image": "b_t1.nii"}], validation=[{"image": "a_t1.nii"}])
    cases = find_cases(tmp_path, "mock")
    assert [(case.patient, case.side) for case in cases] == [
        ("a", "training"),
        ("a", "validation"),
        ("b", "training"),
    ]


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ({"modality": MSD, "training": [entry("X")]}, "training[0].image: no file './imagesTr/X.nii.gz'"),
        ({"modality": MSD, "training": ["a.nii"]}, "training[0]: must be"),
        ({"modality": MSD, "training": {"image": "a.nii"}}, "training: must be a list"),
        ({"modality": MSD, "training": [{"image": ["a.nii", "b.nii"]}]}, "2 files, but channel_names has 4"),
        ({"modality": {"0": "T1", "1": "t1n"}, "training": [{"image": "a.nii"}]}, "name a modality twice"),
        ({"modality": 3, "training": [{"image": "a.nii"}]}, "channel_names: must be"),
        ({"training": [{"image": ["a.nii", "b.nii"]}]}, "which modalities"),
        (
            {"training": [{"image": "a.nii", "label": ["b.nii"]}], "modality": ["t1"]},
            "training[0].label: ['b.nii'] is no",
        ),
        ({"training": [{"image": "a.nii"}] * 2, "modality": ["t1"]}, "training[1]: a visit 000 again"),
        ({"channel_names": MSD, "labels": {}}, "names no cases; add entries to its list `training`"),
        ({"test": ["a.nii"], "modality": ["t1"]}, "has only test cases without labels"),
    ],
)
def test_a_faulty_datalist_is_named(tmp_path, listing, words):
    touch(tmp_path, "a.nii", "b.nii", "B_1/B_1_t1.nii")
    error = fault(listed(tmp_path, **listing))
    assert "dataset.json" in str(error) and words in str(error)


def test_a_datalist_that_is_no_json_is_named(tmp_path):
    (tmp_path / "dataset.json").write_bytes(b"\xff\xfe{")
    assert fault(tmp_path).code == "unreadable"


def test_a_root_without_cases_says_what_to_do(tmp_path):
    assert "no such folder" in str(fault(tmp_path / "nowhere"))
    assert "empty" in str(fault(tmp_path))
    touch(tmp_path, "site-1/notes.txt", "site-2/B_001/B_001_t1.nii.gz")
    assert f"give {tmp_path / 'site-2'}" in str(fault(tmp_path))
    assert fault(tmp_path / "site-1").code == "no_cases"
    for known in ("cases.csv, dataset.json", "BraTS 2023-2024", "UCSF-PDGM"):  # as docs/data.md names them
        assert known in str(fault(tmp_path / "site-1"))


def test_two_layouts_in_one_root_are_refused(tmp_path):
    """Their label schemes differ, and a site declares one."""
    touch(tmp_path, "B_001/B_001_t1.nii", "G-2-001/G-2-001-t1n.nii.gz")
    assert fault(tmp_path).code == "mixed_layouts"
    touch(tmp_path, "B_001/B_001_t1.nii")
    (tmp_path / "cases.csv").write_text("patient,t1\nX,B_001/B_001_t1.nii\n")
    assert [case.patient for case in find_cases(tmp_path, "mock")] == ["X"]  # what is written down goes before names


@pytest.mark.parametrize("content", ["null", "[]", "5", '{"channel_names": {"' + "1" * 5000 + '": "T1"}}'])
def test_a_datalist_that_is_none_is_not_passed_over(content, tmp_path):
    """Else the folders beside it would be read, without the sides that it declares."""
    touch(tmp_path, "B_001/B_001_t1.nii.gz")
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path, "msd")
    assert caught.value.code == "bad_table"


def test_half_a_letter_is_no_name(tmp_path):
    (tmp_path / "dataset.json").write_text('{"training": [{"image": "a.nii", "patient": "\\ud800"}]}')
    with pytest.raises(DataError) as caught:
        find_cases(tmp_path, "msd")
    assert caught.value.code == "unreadable"


def test_a_table_that_is_a_folder_is_not_passed_over(tmp_path):
    touch(tmp_path, "B_001/B_001_t1.nii.gz", "cases.csv/x")
    with pytest.raises(DataError, match=r"cases\.csv"):
        find_cases(tmp_path, "brats2020")
