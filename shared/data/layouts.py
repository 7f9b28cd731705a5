"""Layouts of data sets -> cases. The layout is found; what the masks' values mean is declared."""

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from gliofed.shared.data.cases import Case, Found
from gliofed.shared.data.datalist import DATALIST
from gliofed.shared.data.folders import Folder, list_folder
from gliofed.shared.data.leftovers import Stray, not_in_table, not_understood, not_used
from gliofed.shared.data.releases import LAYOUTS
from gliofed.shared.data.tables import MANIFEST
from gliofed.shared.data.volume import DataError

TABLES = (
    MANIFEST,
    DATALIST,
    "name_mapping.csv",
    "UCSF-PDGM-metadata*.csv",
    "UCSF-PDGM-v*/UCSF-PDGM-metadata*.csv",
)
"""Where, below a root, grades, sides and names of files stand that are in no scan; as patterns."""


@dataclass(frozen=True)
class Inventory:
    """All image files under a root: each is in a case, or is named."""

    cases: list[Case]
    """By patient and time."""
    not_understood: list[Stray]
    """Folders and files that no case has, though a patient's scans may be among them."""
    listed: bool
    """Whether a table names the cases' files."""
    not_used: Counter[str]
    """Pattern of names -> files that the layout is known to have and gliofed does not read."""


def find_cases(root: Path, labels: str) -> list[Case]:
    """The cases of `take_inventory`."""
    return take_inventory(root, labels).cases


def take_inventory(root: Path, labels: str) -> Inventory:
    """Find all cases under `root`, or the one case whose folder it is; the layout is found out. No scan is opened.

    A table in `root` goes before names.
    Raises DataError: no_cases, mixed_layouts, duplicate, bad_table and unreadable (a table, or the folder).
    """
    if not root.is_dir():
        raise DataError("no_cases", f"root={root}: no such folder; give the folder that holds the cases")
    tree = list_folder(root)
    if tree.fault:
        raise DataError("unreadable", f"root={root}: {tree.fault}")
    found = _found(tree, labels)
    if not found and (alone := _by(_parent_of(tree), labels, tables=False)):
        tree, found = _parent_of(tree), alone
    if len(found) > 1:
        examples = (f"{name} (as {each.cases[0].patient})" for name, each in found.items())
        raise DataError(
            "mixed_layouts",
            f"root={root}: holds cases of {' and '.join(examples)}; give each its own folder and scheme, or rename",
        )
    if not found:
        raise DataError("no_cases", f"root={root}: {_nothing(tree, labels)}")
    ((layout, each),) = found.items()
    cases = sorted(each.cases, key=lambda case: case.patient)  # stable: a patient's visits stay in order of time
    read = {scan.path for case in cases for scan in (*case.images.values(), case.mask) if scan}
    read |= {path for case in cases for paths in case.twice.values() for path in paths}
    listed = LAYOUTS[layout].form is None
    if listed:
        strays = not_in_table(tree, layout, read, each.known)
    else:
        strays = not_understood(tree, layout, each, read, lambda folder: _alone(folder, labels))
    named = {path for stray in strays for path in stray.files}
    return Inventory(cases, strays, listed, not_used(tree, read | named, each.known))


def _found(root: Folder, labels: str) -> dict[str, Found]:
    """The layouts that have cases in a folder; only those of tables, where there are any."""
    return _by(root, labels, tables=True) or _by(root, labels, tables=False)


def _by(root: Folder, labels: str, tables: bool) -> dict[str, Found]:
    layouts = {name: layout for name, layout in LAYOUTS.items() if (layout.form is None) == tables}
    return {name: found for name, layout in layouts.items() if (found := layout.find(root, labels)).cases}


def _alone(folder: Folder, labels: str) -> list[Case]:
    return [case for found in _by(_parent_of(folder), labels, tables=False).values() for case in found.cases]


def _parent_of(folder: Folder) -> Folder:
    """Its parent with nothing else in it: a layout is a folder of cases, and beside one case may lie anything."""
    path = Path(os.path.abspath(folder.path))
    return Folder(path.parent, folders=(Folder(path, folder.files, folder.folders),))


def _nothing(root: Folder, labels: str) -> str:
    """Say why a folder has no cases, and where there are some."""
    for folder in root.folders:
        if count := sum(len(found.cases) for found in _found(folder, labels).values()):
            return f"no cases here, but {count} in {folder.name}; give {folder.path}"
    if not any(root.path.iterdir()):
        return "the folder is empty; copy the cases into it"
    if root.child("imagesTr").files:
        return f"imagesTr without {DATALIST}, which names channels and cases; copy it from the data set"
    place = _parent_of(root) if root.images else root
    strays = not_understood(place, None, Found([], set()), set(), lambda folder: [])
    first = f"; {strays[0]}" if strays else ""
    return f"no cases found; known are {', '.join(LAYOUTS)}; name scans of another layout in {MANIFEST}{first}"
