"""Layouts of data sets -> cases; the split by patient."""

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from shared.data.volume import DataError, Scan

Grade = Literal["HGG", "LGG"]


@dataclass(frozen=True)
class Case:
    """One visit of one patient, as scans."""

    patient: str
    visit: str
    """Sorts in time within a patient."""
    images: dict[str, Scan]
    """Scans by canonical modality (t1, t1ce, t2, flair); one that is missing is absent."""
    mask: Scan | None
    grade: Grade | None
    labels: str
    """Label scheme of the mask: a key of `shared.data.labels.LABELS`."""


def brats2020(root: Path, labels: str) -> list[Case]:
    """Flat `ID/ID_{flair,t1,t1ce,t2,seg}.nii[.gz]`, one visit a patient, as BraTS 2020 and 2021 come.

    Grades come from `name_mapping.csv`, where there is one.
    """
    grades = _grades(root / "name_mapping.csv")
    cases = []
    for folder in _folders(root):
        images = _images(folder, f"{folder.name}_", {name: name for name in ("t1", "t1ce", "t2", "flair")})
        # Case 355 of BraTS 2020 was published with the mask W39_1998.09.19_Segm.nii.
        misnamed = next((Scan(path) for path in sorted(folder.glob("*_Segm.nii*"))), None)
        mask = _nifti(folder, f"{folder.name}_seg") or misnamed
        if images or mask:
            cases.append(Case(folder.name, "000", images, mask, grades.get(folder.name), labels))
    return cases


def brats2023(root: Path, labels: str) -> list[Case]:
    """`NAME-VVV/NAME-VVV-{t1n,t1c,t2w,t2f,seg}.nii[.gz]`: patient NAME at visit VVV.

    BraTS 2023 tells no grades; they come from a `name_mapping.csv` as BraTS 2020 has it, where somebody put one.
    """
    names, grades = {"t1": "t1n", "t1ce": "t1c", "t2": "t2w", "flair": "t2f"}, _grades(root / "name_mapping.csv")
    cases = []
    for folder in _folders(root):
        match = re.fullmatch(r"(.+)-(\d{3})", folder.name)
        images, mask = _images(folder, f"{folder.name}-", names), _nifti(folder, f"{folder.name}-seg")
        if match and (images or mask):
            cases.append(Case(match[1], match[2], images, mask, grades.get(match[1]), labels))
    return cases


LAYOUTS: dict[str, Callable[[Path, str], list[Case]]] = {"brats2020": brats2020, "brats2023": brats2023}
"""A new layout is a function here: (root, labels) -> cases, none if the folder has another layout."""


def find_cases(root: Path, labels: str) -> list[Case]:
    """All cases under `root`, by patient and visit; the layout is found out.

    Raises DataError: no_cases, mixed_layouts.
    """
    if not root.is_dir():
        raise DataError("no_cases", f"root={root}: no such folder; give the folder that holds the cases")
    found = {name: cases for name, layout in LAYOUTS.items() if (cases := layout(root, labels))}
    if len(found) > 1:
        raise DataError(
            "mixed_layouts", f"root={root}: holds cases of {' and '.join(found)}; give each its own folder and scheme"
        )
    if not found:
        raise DataError("no_cases", f"root={root}: {_nothing(root, labels)}")
    (cases,) = found.values()
    return sorted(cases, key=lambda case: (case.patient, case.visit))


def split(patients: Sequence[str], validation: float, seed: int) -> tuple[list[str], list[str]]:
    """Training and validation patients, each sorted.

    A patient's side depends on seed and name alone, so it stays when others come; but where all would validate, the one
    nearest to training trains.

    >>> split(["a", "b", "c"], validation=0.5, seed=3)
    (['b', 'c'], ['a'])
    """
    place = {
        name: int(sha256(f"{seed}:{name}".encode(errors="surrogateescape")).hexdigest(), 16) / 2**256
        for name in sorted(set(patients))
    }
    train = [name for name in place if place[name] >= validation] or sorted(place, key=place.__getitem__)[-1:]
    return train, [name for name in place if name not in set(train)]


def _nothing(root: Path, labels: str) -> str:
    """Say why a folder has no cases, and where there are some."""
    for folder in _folders(root):
        count = sum(len(layout(folder, labels)) for layout in LAYOUTS.values())
        if count:
            return f"no cases here, but {count} in {folder.name}; set root={folder}"
    if not any(root.iterdir()):
        return "the folder is empty; copy the cases into it"
    return f"no cases found; the layouts known are {', '.join(LAYOUTS)}, one folder a case"


def _folders(root: Path) -> Iterator[Path]:
    """Folders in root by name; hidden ones are half-written."""
    return (path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, prefix: str, names: dict[str, str]) -> dict[str, Scan]:
    """The modalities that are there; `names` gives each one's name in the layout."""
    return {modality: scan for modality, name in names.items() if (scan := _nifti(folder, prefix + name))}


def _nifti(folder: Path, name: str) -> Scan | None:
    return next((Scan(path) for end in (".nii.gz", ".nii") if (path := folder / (name + end)).is_file()), None)


def _grades(path: Path) -> dict[str, Grade]:
    """Grade by BraTS 2020 id, from the columns Grade and BraTS_2020_subject_ID of its name_mapping.csv."""
    if not path.is_file():
        return {}
    known: dict[str, Grade] = {"HGG": "HGG", "LGG": "LGG"}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row.get("BraTS_2020_subject_ID"), row.get("Grade")) for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("unreadable", f"{path}: no CSV in UTF-8 ({error}); save it as such, or remove it") from None
    grades: dict[str, Grade] = {}
    for name, word in rows:
        grade = known.get((word or "").strip().upper())
        if name and grade and grades.setdefault(name, grade) != grade:
            raise DataError("unreadable", f"{path}: {name} is both HGG and LGG; leave the right line")
    return grades
