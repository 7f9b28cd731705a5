"""What is known of the test patients of a simulation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from gliofed.client.reference.scoring import Opened
from gliofed.shared.comparison import Subject
from gliofed.simulation.profiles import profile

CM3 = 1000.0
"""mm3."""


def describe(opened: Sequence[Opened], scanners: Mapping[str, str], root: Path, store: Path) -> list[Subject]:
    """The test patients, site by site; `scanners` are those of sites whose files do not tell.

    Masks below `root` are read for the volumes, which are kept in `store`, as those for a partition are.
    """
    tested = []
    for each in opened:
        names = [patient.name for patient in each.cohort.test]
        cases = [case for case in each.cases if case.patient in set(names)]
        facts = {one.name: one for one in profile(cases, "by_size", root, store, lambda done, total: None)}
        told = {case.patient: case.scanner for case in cases[::-1] if case.scanner is not None}
        for name in names:
            volume = facts[name].volume
            tested.append(
                Subject(
                    site=each.site.name,
                    patient=name,
                    scanner=told.get(name, scanners.get(each.site.name)),
                    grade=facts[name].grade,
                    volume=None if volume is None else volume / CM3,
                )
            )
    return tested
