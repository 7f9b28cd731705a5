"""Tables: what hospitals write into CSV, and the cases that `cases.csv` names."""

import csv
import os
import re
from collections import Counter
from datetime import date
from math import isfinite
from pathlib import Path

from gliofed.shared.data.cases import Case, Found, Grade, Side
from gliofed.shared.data.folders import Folder
from gliofed.shared.data.names import MODALITIES, modality_name
from gliofed.shared.data.volume import DataError, Scan
from gliofed.shared.tasks import TASKS, Label
from gliofed.shared.wording import quantity

MANIFEST = "cases.csv"
COLUMNS = ("patient", "visit", "date", "mask", "grade", "site", "scanner", "split")
"""Of a manifest, beside those that a task is labelled with; any other column is a modality and holds files."""

_GRADES: dict[str, Grade] = {
    **dict.fromkeys(("HGG", "3", "4", "III", "IV"), "HGG"),
    **dict.fromkeys(("LGG", "1", "2", "I", "II"), "LGG"),
}
_SIDES: dict[str, Side | None] = {
    "": None,
    **dict.fromkeys(("training", "train"), "training"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    "test": "test",
}

Rows = list[tuple[int, dict[str, str]]]
"""Rows of a table by column, with their numbers as a spreadsheet shows them."""


def manifest(root: Folder, labels: str) -> Found:
    """Cases of `cases.csv`: a row a visit, with the columns `COLUMNS` and one a modality; patient is needed.

    Files are relative to `root` or absolute. A patient's visits are in order of dates, else of their names.
    Raises DataError: bad_table (names row and column), unreadable.
    """
    path = root.path / MANIFEST
    if not os.path.lexists(path):
        return Found([], set())
    rows = [(number, {column.lower(): value for column, value in row.items()}) for number, row in read_table(path)]
    if not rows:
        raise bad_table(path, "has no rows below the columns' names; add one a visit, or remove the file")
    modalities = _modality_columns(path, rows)
    cases: dict[tuple[str, str], tuple[str, Case]] = {}
    dated: dict[str, bool] = {}
    for number, row in rows:
        day = _day(path, number, row)
        case = _case(path, labels, number, row, modalities, day)
        if (case.patient, case.visit) in cases:
            raise bad_table(path, f"row {number}: {case.patient} visit {case.visit} again; name each visit once")
        if dated.setdefault(case.patient, bool(day)) != bool(day):
            raise bad_table(
                path, f"row {number}, column date: {case.patient} has dated visits and others; date all or none"
            )
        cases[case.patient, case.visit] = day, case
    in_time = sorted(cases.values(), key=lambda found: (found[0], natural(found[1].visit)))
    return Found([case for _, case in in_time], set())


def read_table(path: Path) -> Rows:
    """Read a CSV, strip what is blank around values, and drop empty rows, and columns without name and values.

    Raises DataError: unreadable (not UTF-8, no CSV), bad_table (empty, other separators, rows of another length).
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[value.strip() for value in line] for line in csv.reader(file, strict=True)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError("unreadable", f"{path}: no CSV in UTF-8 ({error}); save it as such, or remove it") from None
    except OSError as error:
        raise DataError("unreadable", f"{path}: {error.strerror}; look at the file and its rights") from None
    filled = [(number, line) for number, line in enumerate(lines, start=1) if any(line)]
    if not filled:
        raise bad_table(path, "is empty; write the columns' names and a row a case, or remove the file")
    (_, header), rows = filled[0], filled[1:]
    if len(header) == 1 and (mark := next((mark for mark in ";\t|" if mark in header[0]), None)):
        raise bad_table(path, f"columns are separated by {mark!r}; save it with commas")
    counts = Counter(name.lower() for name in header if name)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise bad_table(path, f"column {twice[0]}: is there {counts[twice[0]]} times; leave one")
    for number, line in rows:
        if len(line) != len(header):
            has = f"{quantity(len(line), 'value')} for {quantity(len(header), 'column')}"
            raise bad_table(path, f"row {number}: has {has}; mind commas in names")
        if stray := [value for name, value in zip(header, line, strict=True) if value and not name]:
            raise bad_table(
                path, f"row {number}: {stray[0]!r} is in a column without a name; name or remove the column"
            )
    return [(number, {name: value for name, value in zip(header, line, strict=True) if name}) for number, line in rows]


def as_grade(word: str) -> Grade | None:
    """HGG or LGG, from these words or from the WHO grade: 3 and 4 are HGG, 1 and 2 LGG.

    >>> [as_grade(word) for word in ("hgg", "2", "IV", "4.0", "unknown")]
    ['HGG', 'LGG', 'HGG', 'HGG', None]
    """
    return _GRADES.get(word.strip().upper().removesuffix(".0"))


def _case(path: Path, labels: str, number: int, row: dict[str, str], modalities: dict[str, str], day: str) -> Case:
    """The case of a manifest's row."""
    patient, word, side = (row.get(column, "") for column in ("patient", "grade", "split"))
    if not patient:
        raise bad_table(path, f"row {number}, column patient: is empty or missing; every row names its patient")
    if word and not as_grade(word):
        raise bad_table(path, f"row {number}, column grade: {word!r} is not a grade; use HGG, LGG or WHO grade 1 to 4")
    if side.lower() not in _SIDES:
        raise bad_table(
            path, f"row {number}, column split: {side!r} is not a part; use training, validation, test or nothing"
        )
    values = {column: row[column] for column in _labels() if row.get(column)}
    for column, value in values.items():
        if not isfinite((label := _labels()[column]).number(value)):
            use = " or ".join(label.classes) or "a number"
            raise bad_table(path, f"row {number}, column {column}: {value!r} is not a value; use {use}")
    files = {
        column: Scan(named_file(path, f"row {number}, column {column}", row[column]))
        for column in [*modalities, "mask"]
        if row.get(column)
    }
    return Case(
        patient,
        row.get("visit") or day or "000",
        {modality: files[column] for column, modality in modalities.items() if column in files},
        files.get("mask"),
        as_grade(word),
        labels,
        _SIDES[side.lower()],
        row.get("scanner") or row.get("site") or None,
        values=values,
    )


def _labels() -> dict[str, Label]:
    """Further columns, by name: what tasks are labelled with."""
    labels = [task.label for task in TASKS.values() if task.label is not None]
    return {label.column: label for label in labels if label.column not in COLUMNS}


def _day(path: Path, number: int, row: dict[str, str]) -> str:
    """A row's date as YYYY-MM-DD, which sorts in time; empty where it has none."""
    try:
        return date.fromisoformat(row["date"]).isoformat() if row.get("date") else ""
    except ValueError:
        raise bad_table(
            path, f"row {number}, column date: {row['date']!r} is no date; write it as 2024-01-31"
        ) from None


def _modality_columns(path: Path, rows: Rows) -> dict[str, str]:
    """Columns of a manifest that hold images -> modalities."""
    found: dict[str, str] = {}
    others = (*COLUMNS, *_labels())
    for column in rows[0][1]:
        if column in others:
            continue
        name, values = modality_name(column), [(number, row[column]) for number, row in rows if row[column]]
        if name in found.values():
            raise bad_table(path, f"column {column}: {name} is in another column already; leave one")
        if name not in MODALITIES.values() and not any(_is_file(path.parent / value) for _, value in values):
            example = f"row {values[0][0]} has {values[0][1]!r}" if values else "it is empty"
            raise bad_table(
                path, f"column {column}: holds no files ({example}) and is not one of {', '.join(others)}; remove it"
            )
        found[column] = name
    if not found:
        raise bad_table(path, "has no column of images; add one a modality, such as t1, t1ce, t2, flair")
    return found


def named_file(path: Path, where: str, value: object) -> Path:
    """Return the file that a table names, relative to its folder or absolute. Raises DataError, bad_table, for none."""
    if not isinstance(value, str):
        raise bad_table(path, f"{where}: {str(value)[:60]} is no path; give one file")
    if not _is_file(path.parent / value):
        raise bad_table(path, f"{where}: no file {value!r} under {path.parent}; correct the path, or leave it empty")
    return path.parent / value


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # pathlib's raises where a text is too long for a name


def natural(visit: str) -> list[str | tuple[int, str]]:
    """Sort visit 2 before visit 10.

    >>> sorted(["10", "2"], key=natural)
    ['2', '10']
    """
    parts = enumerate(re.split(r"(\d+)", visit))
    # Numbers as length and digits: Python makes no int of thousands of them.
    return [(len(part.lstrip("0")), part.lstrip("0")) if place % 2 else part for place, part in parts]


def bad_table(path: Path, sentence: str) -> DataError:
    """Name the table and what is wrong in it."""
    return DataError("bad_table", f"{path}: {sentence}")
