"""Public data sets -> cases, by the names of their folders and files: BraTS, UCSF-PDGM, LUMIERE."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from gliofed.shared.data.cases import Case, Found, Grade
from gliofed.shared.data.datalist import DATALIST, datalist
from gliofed.shared.data.folders import Folder
from gliofed.shared.data.names import MASK, SEPARATORS
from gliofed.shared.data.tables import MANIFEST, as_grade, manifest, read_table
from gliofed.shared.data.volume import DataError, Scan

Files = dict[str, list[Path]]
"""Of a case, by modality or MASK."""

_LUMIERE = {"t1": "T1", "t1ce": "CT1", "t2": "T2", "flair": "FLAIR"}


def brats2018(root: Folder, labels: str) -> Found:
    """`HGG/ID/ID_{flair,t1,t1ce,t2,seg}.nii[.gz]` and `LGG/...`, one visit a patient: BraTS 2018 and 2019.

    The folder is the grade; the institution in the id (CBICA, TCIA01, 2013) counts as the scanner.
    Raises DataError, duplicate, where a patient is in both folders.
    """
    found: dict[str, tuple[Folder, Case]] = {}
    for grade in get_args(Grade):
        for folder, files in _flat(root.child(grade)):
            match = re.match(r"brats\d\d_([^_]+)_", folder.name, re.IGNORECASE)
            case = _case(folder.name, "000", files, labels, grade, match[1] if match else None)
            if found.setdefault(case.patient, (folder, case))[1] is not case:
                raise DataError("duplicate", f"{folder.path}: {case.patient} is in HGG and LGG; leave the right one")
    return _found(found.values())


def brats2020(root: Folder, labels: str) -> Found:
    """Flat `ID/ID_{flair,t1,t1ce,t2,seg}.nii[.gz]`, one visit a patient, as BraTS 2020 and 2021 come.

    Grades come from `name_mapping.csv`, where there is one.
    """
    grades = _grades_2020(root)
    return _found(
        (folder, _case(folder.name, "000", files, labels, grades.get(folder.name)))
        for folder, files in _flat(root)
        if not _of_2023(folder, files) and not _of_ucsf(folder)
    )


def brats2023(root: Folder, labels: str) -> Found:
    """`NAME-VVV/NAME-VVV-{t1n,t1c,t2w,t2f,seg}.nii[.gz]`: patient NAME at visit VVV; BraTS 2023 and 2024.

    A name without -VVV is a patient's only visit. They tell no grades, which come from a `name_mapping.csv` as BraTS
    2020 has it, where somebody put one.
    """
    grades, found = _grades_2020(root), list[tuple[Folder, Case]]()
    for folder, files in _flat(root):
        if _of_2023(folder, files):
            match = re.fullmatch(r"(.*\d.*)-(\d{3})", folder.name)  # else GLIO-001 is a patient
            patient, visit = match.groups() if match else (folder.name, "000")
            found.append((folder, _case(patient, visit, files, labels, grades.get(patient))))
    # In time; of two folders of one visit the one that says which.
    return _found(sorted(found, key=lambda each: (each[1].visit, each[0].name == each[1].patient)))


def ucsf_pdgm(root: Folder, labels: str) -> Found:
    """`UCSF-PDGM-NNNN[_FUddd]_nifti/*_{FLAIR,T1,T1c,T2,tumor_segmentation}.nii[.gz]`, here or in `UCSF-PDGM-v*/`.

    FUddd is a visit ddd days after the first. The grade is the WHO grade in `UCSF-PDGM-metadata*.csv`; a follow-up
    without a line of its own there has the patient's.
    """
    places = [root, *(folder for folder in root.folders if folder.name.startswith("UCSF-PDGM-v"))]
    grades, found = _grades_ucsf(places), list[tuple[Folder, Case]]()
    folders = [folder for place in places for folder in place.folders]
    names = {folder.name.removesuffix("_nifti").lower() for folder in folders}
    for folder in folders:
        if match := _of_ucsf(folder):
            # A follow-up's files may have its whole name or the patient's.
            own = _named(folder, folder.name.removesuffix("_nifti"), names)
            if files := own or _named(folder, match[1], names):
                grade = grades.get(_ucsf_id(folder.name), grades.get(_ucsf_id(match[1])))
                found.append((folder, _case(match[1], match[2] or "000", files, labels, grade)))
    return _found(sorted(found, key=lambda each: int(each[1].visit)))  # by name, follow-ups come first


def lumiere(root: Folder, labels: str) -> Found:
    """`[Imaging/]Patient-NNN/week-WWW[-N]/`, visits in order of weeks, then N.

    With labels=hd_glio images and mask are those in `HD-GLIO-AUTO-segmentation/registered`, else those in
    `DeepBraTumIA-segmentation/atlas`: each tool brought a week's scans to one grid, on which its mask lies. Where the
    tool's images are missing, they are `{T1,CT1,T2,FLAIR}.nii.gz` of the week itself, whose grids may differ.
    """
    base = imaging if (imaging := root.child("Imaging")).folders else root
    patients = [folder for folder in base.folders if re.fullmatch(r"Patient-\d+", folder.name)]
    return _found(week for patient in patients for week in _weeks(patient, labels))


@dataclass(frozen=True)
class Layout:
    """How a data set lies in its folder."""

    find: Callable[[Folder, str], Found]
    """(root, labels) -> what it finds, no cases if the folder is another's."""
    form: str | None = None
    """What a folder of it looks like; None: a table in the root names the files, and goes before all names."""


LAYOUTS = {
    MANIFEST: Layout(manifest),
    DATALIST: Layout(datalist),
    "BraTS 2018-2019": Layout(brats2018, "HGG/ID/ID_{t1,t1ce,t2,flair,seg}.nii.gz"),
    "BraTS 2020-2021": Layout(brats2020, "ID/ID_{t1,t1ce,t2,flair,seg}.nii.gz"),
    "BraTS 2023-2024": Layout(brats2023, "ID-VVV/ID-VVV-{t1n,t1c,t2w,t2f,seg}.nii.gz"),
    "UCSF-PDGM": Layout(ucsf_pdgm, "UCSF-PDGM-NNNN_nifti/UCSF-PDGM-NNNN_{T1,T1c,T2,FLAIR,tumor_segmentation}.nii.gz"),
    "LUMIERE": Layout(lumiere, "Patient-NNN/week-WWW/{T1,CT1,T2,FLAIR}.nii.gz"),
}
"""Every layout by the name that users know. A new one is a function here, or in a file beside, and an entry."""


def _weeks(patient: Folder, labels: str) -> Iterator[tuple[Folder, Case]]:
    """The visits of a patient of LUMIERE, in order of time."""
    named = [(re.fullmatch(r"week-(\d+)(?:-(\d+))?", week.name), week) for week in patient.folders]
    in_time = [(int(match[1]), int(match[2] or 0), week) for match, week in named if match]
    for _, _, week in sorted(in_time, key=lambda each: (*each[:2], each[2].name)):
        if labels == "hd_glio":
            images = masks = week.child("HD-GLIO-AUTO-segmentation").child("registered")
            names = {modality: f"{name}_r2s_bet_reg" for modality, name in _LUMIERE.items()} | {MASK: "segmentation"}
        else:
            atlas = week.child("DeepBraTumIA-segmentation").child("atlas")
            images, masks = atlas.child("skull_strip"), atlas.child("segmentation")
            names = {modality: f"{name}_skull_strip" for modality, name in _LUMIERE.items()} | {MASK: "seg_mask"}
        files = {
            what: paths for what, name in names.items() if (paths := (masks if what == MASK else images).nifti(name))
        }
        if not files.keys() - {MASK}:
            files |= {modality: paths for modality, name in _LUMIERE.items() if (paths := week.nifti(name))}
        if files:
            yield week, _case(patient.name, week.name, files, labels)


def _flat(root: Folder) -> Iterator[tuple[Folder, Files]]:
    """The folders whose files carry their names, as all of BraTS come."""
    names = {folder.name.lower() for folder in root.folders}
    for folder in root.folders:
        files = _named(folder, folder.name, names)
        # Case 355 of BraTS 2020 was published with the mask W39_1998.09.19_Segm.nii.
        misnamed = [folder.path / name for name in folder.files if re.search(r"_Segm\.nii", name)]
        if misnamed and MASK not in files:
            files[MASK] = misnamed
        if files:
            yield folder, files


def _named(folder: Folder, name: str, others: Set[str]) -> Files:
    """The images and masks that `name` and their modality name: NAME_t1.nii.gz.

    Where there are none, those with one and the same addition to it, NAME_native_t1.nii.gz, unless this begins with one
    of the `others`: the names of the folders beside, in small letters.
    """
    by_prefix: dict[str, Files] = {}
    for file, parsed in folder.named.items():
        by_prefix.setdefault(parsed.prefix.lower(), {}).setdefault(parsed.what, []).append(folder.path / file)
    name = name.lower()
    added = [prefix for prefix in by_prefix if prefix.startswith(name) and prefix[len(name) :][:1] in SEPARATORS]
    if name in by_prefix or len(added) != 1:
        return by_prefix.get(name, {})
    ends = (end for end, mark in enumerate(f"{added[0]}_") if mark in SEPARATORS and end > len(name))
    return {} if others & {added[0][:end] for end in ends} else by_prefix[added[0]]


def _of_2023(folder: Folder, files: Files) -> bool:
    """Whether names are those of BraTS 2023: joined with dashes, or with a visit behind them."""
    own = [folder.named[path.name] for paths in files.values() for path in paths if path.name in folder.named]
    dashes = any(name.separator == "-" for name in own)
    return dashes or bool(re.fullmatch(r"BraTS-\w+-\d+-\d{3}", folder.name, re.IGNORECASE))


def _of_ucsf(folder: Folder) -> re.Match[str] | None:
    return re.fullmatch(r"(UCSF-PDGM-\d+)(?:_FU(\d+)d)?(?:_nifti)?", folder.name)


def _case(
    patient: str, visit: str, files: Files, labels: str, grade: Grade | None = None, scanner: str | None = None
) -> Case:
    """A case of these files."""
    single = {what: Scan(paths[0]) for what, paths in files.items() if len(paths) == 1}
    twice = {what: paths for what, paths in files.items() if len(paths) > 1}
    mask = single.pop(MASK, None)
    return Case(patient, visit, single, mask, grade, labels, scanner=scanner, twice=twice)


def _found(found: Iterable[tuple[Folder, Case]]) -> Found:
    """The cases and their folders; a folder of a visit that another one has already is not known."""
    visits: dict[tuple[str, str], tuple[Folder, Case]] = {}
    for folder, case in found:
        visits.setdefault((case.patient, case.visit), (folder, case))
    return Found([case for _, case in visits.values()], {folder.path for folder, _ in visits.values()})


def _grades_2020(root: Folder) -> dict[str, Grade]:
    """Grade by BraTS 2020 id, from the columns Grade and BraTS_2020_subject_ID of name_mapping.csv."""
    path, grades = root.path / "name_mapping.csv", dict[str, Grade]()
    grades_of = {word: as_grade(word) for word in get_args(Grade)}
    for _, row in read_table(path) if path.name in root.files else ():
        name, grade = row.get("BraTS_2020_subject_ID"), grades_of.get(row.get("Grade", "").upper())
        if name and grade and grades.setdefault(name, grade) != grade:
            raise DataError("unreadable", f"{path}: {name} is both HGG and LGG; leave the right line")
    return grades


def _grades_ucsf(places: list[Folder]) -> dict[str, Grade]:
    """Grade by line, a patient's or a follow-up's, from ID and WHO CNS Grade of the newest UCSF-PDGM-metadata*.csv."""
    tables = [place.path / name for place in places for name in fnmatch.filter(place.files, "UCSF-PDGM-metadata*.csv")]
    tables.sort(key=lambda path: path.name)
    grades: dict[str, Grade] = {}
    for _, row in read_table(tables[-1]) if tables else ():
        if missing := {"ID", "WHO CNS Grade"} - row.keys():
            raise DataError("bad_table", f"{tables[-1]}: no column {min(missing)}; copy it again from its source")
        grade = as_grade(row["WHO CNS Grade"])
        if grade and grades.setdefault(_ucsf_id(row["ID"]), grade) != grade:
            raise DataError("bad_table", f"{tables[-1]}: {row['ID']} is both HGG and LGG; leave the right line")
    return grades


def _ucsf_id(name: str) -> str:
    """Patient and follow-up of a folder (UCSF-PDGM-0004_FU016d_nifti) as of the table (UCSF-PDGM-004_FU016d)."""
    return re.sub(r"^UCSF-PDGM-0*(\d+)(_FU\d+d)?.*", r"\1\2", name)
