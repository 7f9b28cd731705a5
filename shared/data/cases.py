"""What a case is, and the split by patient."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from operator import not_
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, get_args

from pydantic import Field

from gliofed.shared.data.volume import DataError, Scan
from gliofed.shared.tasks import Label

Grade = Literal["HGG", "LGG"]

Side = Literal["training", "validation", "test"]


@dataclass(frozen=True)
class Case:
    """One visit of one patient, as scans. The cases of a patient come in order of time."""

    patient: str
    visit: str
    """As the data set names it; a patient's first visit is 000 where it has no name."""
    images: dict[str, Scan]
    """Scans by canonical modality (t1, t1ce, t2, flair); one that is missing is absent."""
    mask: Scan | None
    grade: Grade | None
    labels: str
    """Label scheme of the mask: a key of `gliofed.shared.data.labels.LABELS`."""
    side: Side | None = None
    """Where the data set itself puts the patient; None: a hash of the id decides."""
    scanner: str | None = None
    """Scanner or institution, where the data set tells it."""
    twice: dict[str, list[Path]] = field(default_factory=dict)
    """Files by modality or MASK where there are several for one: none of them is in `images` or `mask`."""
    values: Annotated[dict[str, str], Field(exclude_if=not_)] = field(default_factory=dict)
    """By column of `cases.csv`: what tasks are labelled with, but for the grade. Where empty, no manifest has it."""

    def value(self, label: Label) -> str | None:
        """What the visit is labelled with, where that is known."""
        return self.grade if label.column == "grade" else self.values.get(label.column)


@dataclass(frozen=True)
class Found:
    """What a layout finds under a root."""

    cases: list[Case]
    """A patient's in order of time."""
    known: set[Path]
    """Folders whose further files the layout has and gliofed does not use, such as a case's, and single such files."""


def value_of(visits: Sequence[Case], label: Label) -> str | None:
    """The value of a patient, as the visits have it that have one. Raises DataError where they differ."""
    values = {value: case.visit for case in reversed(visits) if (value := case.value(label))}
    if len(values) > 1:
        differ = " and ".join(f"{value} (visit {visit})" for value, visit in sorted(values.items()))
        cure = "give all visits the one that is to be learned, or leave the patient out"
        raise DataError(label.differs, f"{visits[0].patient}: has the {label.column}s {differ}; {cure}")
    return next(iter(values), None)


def used(cases: Sequence[Case], test: float | None) -> list[Case]:
    """The cases that a run uses, which tests a fraction of `test`: where it is None nobody who is only to be tested.

    A patient who is declared for another side as well stays, and is a finding.
    """
    others = {case.patient for case in cases if case.side != "test"}
    return [case for case in cases if test is not None or case.patient in others]


class Parts(NamedTuple):
    """Patients by what they are for, each list sorted; nobody is in two."""

    training: list[str]
    validation: list[str]
    test: list[str]


def split(
    patients: Sequence[str],
    validation: float,
    seed: int,
    declared: Mapping[str, Side] | None = None,
    test: float | None = None,
) -> Parts:
    """Part patients; `validation` and `test` are fractions, and without the latter only who is declared is tested.

    A patient is on the side that is declared. The side of any other depends on seed and name alone, so it stays when
    others come; but where nobody would train, the one of them who is nearest to training does. Nobody trains only where
    all are declared otherwise. Test patients come out of those who would train: who validates stays the same.

    >>> split(["a", "b", "c"], validation=0.5, seed=3)
    Parts(training=['b', 'c'], validation=['a'], test=[])
    >>> split(["a", "b", "c"], validation=0.5, seed=3, test=0.2)
    Parts(training=['c'], validation=['a'], test=['b'])
    >>> split(["a", "b", "c"], validation=0.5, seed=3, declared={"b": "validation"})
    Parts(training=['c'], validation=['a', 'b'], test=[])
    """
    sides, names = declared or {}, sorted(set(patients))
    place = {
        name: int(sha256(f"{seed}:{name}".encode(errors="surrogateescape")).hexdigest(), 16) / 2**256
        for name in names
        if name not in sides
    }

    def side(name: str) -> Side:
        if name in sides:
            return sides[name]
        return "validation" if place[name] < validation else "test" if place[name] < validation + tested else "training"

    tested = test or 0.0
    side_of = {name: side(name) for name in names}
    if place and "training" not in side_of.values():
        side_of[max(place, key=place.__getitem__)] = "training"
    of_side = {each: [name for name in names if side_of[name] == each] for each in get_args(Side)}
    return Parts(**of_side)
