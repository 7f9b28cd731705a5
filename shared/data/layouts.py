"""Layouts of data sets -> cases. The layout is found; what the masks' values mean is declared."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from shared.data.cases import Case, Grade
from shared.data.datalist import DATALIST, datalist
from shared.data.tables import MANIFEST, as_grade, manifest, read_table
from shared.data.volume import DataError, Scan

TABLES = (
    MANIFEST,
    DATALIST,
    "name_mapping.csv",
    "UCSF-PDGM-metadata*.csv",
    "UCSF-PDGM-v*/UCSF-PDGM-metadata*.csv",
)
"""Where, below a root, grades, sides and names of files stand that are in no scan; as patterns."""

_NAMES_2020 = {"t1": "t1", "t1ce": "t1ce", "t2": "t2", "flair": "flair"}
_NAMES_2023 = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}
_NAMES_UCSF = {"t1": "T1", "t1ce": "T1c", "t2": "T2", "flair": "FLAIR"}
_NAMES_LUMIERE = {"t1": "T1", "t1ce": "CT1", "t2": "T2", "flair": "FLAIR"}


def brats2018(root: Path, labels: str) -> list[Case]:
    """`HGG/ID/ID_{flair,t1,t1ce,t2,seg}.nii[.gz]` and `LGG/...`, one visit a patient: BraTS 2018 and 2019.

    The folder is the grade; the institution in the id (CBICA, TCIA01, 2013) counts as the scanner.
    Raises DataError, duplicate, where a patient is in both folders.
    """
    cases: dict[str, Case] = {}
    for grade in get_args(Grade):
        for folder in _folders(root / grade):
            institution = re.match(r"brats\d\d_([^_]+)_", folder.name, re.IGNORECASE)
            case = _flat(folder, labels, grade, institution[1] if institution else None)
            if case and cases.setdefault(case.patient, case) is not case:
                raise DataError("duplicate", f"{folder}: {case.patient} is in HGG and LGG; leave the right one")
    return [*cases.values()]


def brats2020(root: Path, labels: str) -> list[Case]:
    """Flat `ID/ID_{flair,t1,t1ce,t2,seg}.nii[.gz]`, one visit a patient, as BraTS 2020 and 2021 come.

    Grades come from `name_mapping.csv`, where there is one.
    """
    grades = _grades_2020(root)
    cases = (_flat(folder, labels, grades.get(folder.name)) for folder in _folders(root))
    return [case for case in cases if case]


def brats2023(root: Path, labels: str) -> list[Case]:
    """`NAME-VVV/NAME-VVV-{t1n,t1c,t2w,t2f,seg}.nii[.gz]`: patient NAME at visit VVV; BraTS 2023 and 2024.

    They tell no grades, which come from a `name_mapping.csv` as BraTS 2020 has it, where somebody put one.
    """
    grades, cases = _grades_2020(root), []
    for folder in _folders(root):
        match = re.fullmatch(r"(.+)-(\d{3})", folder.name)
        images, mask = _images(folder, f"{folder.name}-", _NAMES_2023), _nifti(folder, f"{folder.name}-seg")
        if match and (images or mask):
            cases.append(Case(match[1], match[2], images, mask, grades.get(match[1]), labels))
    return cases


def ucsf_pdgm(root: Path, labels: str) -> list[Case]:
    """`UCSF-PDGM-NNNN[_FUddd]_nifti/*_{FLAIR,T1,T1c,T2,tumor_segmentation}.nii[.gz]`, here or in `UCSF-PDGM-v*/`.

    FUddd is a visit ddd days after the first. The grade is the WHO grade in `UCSF-PDGM-metadata*.csv`.
    """
    cases, places = [], [root, *sorted(root.glob("UCSF-PDGM-v*"))]
    grades = _grades_ucsf(places)
    for folder in (folder for place in places for folder in _folders(place)):
        match = re.fullmatch(r"(UCSF-PDGM-\d+)(?:_FU(\d+)d)?_nifti", folder.name)
        # A follow-up's files may have its whole name or the patient's.
        for name in (folder.name.removesuffix("_nifti"), match[1]) if match else ():
            images, mask = _images(folder, f"{name}_", _NAMES_UCSF), _nifti(folder, f"{name}_tumor_segmentation")
            if match and (images or mask):
                cases.append(Case(match[1], match[2] or "000", images, mask, grades.get(_ucsf_id(match[1])), labels))
                break
    return sorted(cases, key=lambda case: int(case.visit))  # by name, a first visit comes after its follow-ups


def lumiere(root: Path, labels: str) -> list[Case]:
    """`[Imaging/]Patient-NNN/week-WWW[-N]/`, visits in order of weeks, then N.

    With labels=hd_glio images and mask are those in `HD-GLIO-AUTO-segmentation/registered`, else those in
    `DeepBraTumIA-segmentation/atlas`: each tool brought a week's scans to one grid, on which its mask lies. Where the
    tool's images are missing, they are `{T1,CT1,T2,FLAIR}.nii.gz` of the week itself, whose grids may differ.
    """
    base = root / "Imaging" if (root / "Imaging").is_dir() else root
    patients = [folder for folder in _folders(base) if re.fullmatch(r"Patient-\d+", folder.name)]
    return [case for patient in patients for case in _weeks(patient, labels)]


LAYOUTS: dict[str, Callable[[Path, str], list[Case]]] = {
    MANIFEST: manifest,
    DATALIST: datalist,
    "BraTS 2018-2019": brats2018,
    "BraTS 2020-2021": brats2020,
    "BraTS 2023-2024": brats2023,
    "UCSF-PDGM": ucsf_pdgm,
    "LUMIERE": lumiere,
}
"""A new layout is a function here, by the name that users know: (root, labels) -> cases, a patient's in order of time;
none if it is another's."""


def find_cases(root: Path, labels: str) -> list[Case]:
    """All cases under `root`, by patient and time; the layout is found out. A table in `root` goes before names.

    Raises DataError: no_cases, mixed_layouts, duplicate, bad_table and unreadable (a table).
    """
    if not root.is_dir():
        raise DataError("no_cases", f"root={root}: no such folder; give the folder that holds the cases")
    found = _found(root, labels)
    if len(found) > 1:
        raise DataError(
            "mixed_layouts", f"root={root}: holds cases of {' and '.join(found)}; give each its own folder and scheme"
        )
    if not found:
        raise DataError("no_cases", f"root={root}: {_nothing(root, labels)}")
    (cases,) = found.values()
    return sorted(cases, key=lambda case: case.patient)  # stable: a patient's visits stay in order of time


def _found(root: Path, labels: str) -> dict[str, list[Case]]:
    """The layouts that have cases in a folder; only those of tables, where there are any."""
    for group in ((MANIFEST, DATALIST), LAYOUTS):
        if found := {name: cases for name in group if (cases := LAYOUTS[name](root, labels))}:
            return found
    return {}


def _nothing(root: Path, labels: str) -> str:
    """Say why a folder has no cases, and where there are some."""
    for folder in _folders(root):
        if count := sum(map(len, _found(folder, labels).values())):
            return f"no cases here, but {count} in {folder.name}; set root={folder}"
    if not any(root.iterdir()):
        return "the folder is empty; copy the cases into it"
    if (root / DATALIST).is_file():
        return f"{DATALIST} has no list `training` or `validation`; add the entries, or name the scans in {MANIFEST}"
    if (root / "imagesTr").is_dir():
        return f"imagesTr without {DATALIST}, which names channels and cases; copy it from the data set"
    return f"no cases found; known are {', '.join(LAYOUTS)}; name scans of another layout in {MANIFEST}"


def _flat(folder: Path, labels: str, grade: Grade | None, scanner: str | None = None) -> Case | None:
    """A case of BraTS 2018 to 2021, if the folder holds one."""
    images = _images(folder, f"{folder.name}_", _NAMES_2020)
    # Case 355 of BraTS 2020 was published with the mask W39_1998.09.19_Segm.nii.
    misnamed = next((Scan(path) for path in sorted(folder.glob("*_Segm.nii*"))), None)
    mask = _nifti(folder, f"{folder.name}_seg") or misnamed
    return Case(folder.name, "000", images, mask, grade, labels, scanner=scanner) if images or mask else None


def _weeks(patient: Path, labels: str) -> Iterator[Case]:
    """The visits of a patient of LUMIERE, in order of time."""
    named = [(re.fullmatch(r"week-(\d+)(?:-(\d+))?", week.name), week) for week in _folders(patient)]
    for _, _, week in sorted((int(match[1]), int(match[2] or 0), week) for match, week in named if match):
        if labels == "hd_glio":
            registered = week / "HD-GLIO-AUTO-segmentation" / "registered"
            names = {modality: f"{name}_r2s_bet_reg" for modality, name in _NAMES_LUMIERE.items()}
            images, mask = _images(registered, "", names), _nifti(registered, "segmentation")
        else:
            atlas = week / "DeepBraTumIA-segmentation" / "atlas"
            names = {modality: f"{name.lower()}_skull_strip" for modality, name in _NAMES_LUMIERE.items()}
            images, mask = _images(atlas / "skull_strip", "", names), _nifti(atlas / "segmentation", "seg_mask")
        images = images or _images(week, "", _NAMES_LUMIERE)
        if images or mask:
            yield Case(patient.name, week.name, images, mask, None, labels)


def _folders(root: Path) -> Iterator[Path]:
    """Folders in root by name; hidden ones are half-written."""
    paths = sorted(root.iterdir()) if root.is_dir() else []
    return (path for path in paths if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, prefix: str, names: dict[str, str]) -> dict[str, Scan]:
    """The modalities that are there; `names` gives each one's name in the layout."""
    return {modality: scan for modality, name in names.items() if (scan := _nifti(folder, prefix + name))}


def _nifti(folder: Path, name: str) -> Scan | None:
    return next((Scan(path) for end in (".nii.gz", ".nii") if (path := folder / (name + end)).is_file()), None)


def _grades_2020(root: Path) -> dict[str, Grade]:
    """Grade by BraTS 2020 id, from the columns Grade and BraTS_2020_subject_ID of name_mapping.csv."""
    path, grades = root / "name_mapping.csv", dict[str, Grade]()
    words = {word: as_grade(word) for word in get_args(Grade)}
    for _, row in read_table(path) if path.is_file() else ():
        name, grade = row.get("BraTS_2020_subject_ID"), words.get(row.get("Grade", "").upper())
        if name and grade and grades.setdefault(name, grade) != grade:
            raise DataError("unreadable", f"{path}: {name} is both HGG and LGG; leave the right line")
    return grades


def _grades_ucsf(places: list[Path]) -> dict[str, Grade]:
    """Grade by patient, from the columns ID and WHO CNS Grade of the newest UCSF-PDGM-metadata*.csv."""
    tables = sorted((path for place in places for path in place.glob("UCSF-PDGM-metadata*.csv")), key=lambda p: p.name)
    grades: dict[str, Grade] = {}
    for _, row in read_table(tables[-1]) if tables else ():
        if missing := {"ID", "WHO CNS Grade"} - row.keys():
            raise DataError("bad_table", f"{tables[-1]}: no column {min(missing)}; copy it again from its source")
        grade = as_grade(row["WHO CNS Grade"])
        if grade and ("_FU" not in row["ID"] or _ucsf_id(row["ID"]) not in grades):
            grades[_ucsf_id(row["ID"])] = grade
    return grades


def _ucsf_id(name: str) -> str:
    """The patient of a folder (UCSF-PDGM-0004) as of the table (UCSF-PDGM-004)."""
    return re.sub(r"^UCSF-PDGM-0*(\d+).*", r"\1", name)
