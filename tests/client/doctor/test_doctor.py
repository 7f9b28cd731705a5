"""A cohort with one planted defect of each kind: each is found, and nowhere else."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from planted import PLANTS, copy_of, of

from gliofed.client.doctor import examine as examine_module
from gliofed.client.doctor.examine import examine
from gliofed.client.doctor.findings import ERRORS, WARNINGS
from gliofed.client.doctor.inspection import Inspection, inspect
from gliofed.client.doctor.judgement import CaseReport, judge
from gliofed.shared.data.cases import Case, split
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import TASKS
from gliofed.simulation.phantom import PhantomConfig, write_phantoms

MODALITIES = ("flair", "t1", "t1ce", "t2")
RULES = CheckConfig(tiny_tumour=1.0)
"""A voxel of 8 mm alone has 0.5 cm3."""
CLEAN = 8


def check(cases: list[Case], task: str = "segmentation", rules: CheckConfig = RULES, **split: Any) -> list[CaseReport]:
    return judge(cases, examine(cases, rules, 1), rules, MODALITIES, TASKS[task], **split)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(PhantomConfig(patients=CLEAN + len(PLANTS) + 1, resolution=8.0), root, 0)
    return root


@dataclass(frozen=True)
class Planted:
    """Cases of which some have a defect."""

    cases: list[Case]
    inspected: list[Inspection]
    reports: list[CaseReport]
    where: dict[str, str]
    """Patient -> code that was planted; the rest is clean."""


@pytest.fixture(scope="module")
def planted(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    root = tmp_path_factory.mktemp("planted") / "cases"
    shutil.copytree(phantoms, root)
    # Cases with much enhancing tumour last: swapped modalities and wrong labels show there.
    folders = sorted((path for path in root.iterdir() if path.is_dir()), key=enhancing)
    spoilt = folders[CLEAN:-1]
    original, copy = sorted((folders[0], folders[-1]))  # the later name is the copy
    showing = ("label_values", "label_scheme", "modalities_swapped")
    codes = [code for code in PLANTS if code not in showing] + [code for code in PLANTS if code in showing]
    for code, folder in zip(codes, spoilt, strict=True):
        PLANTS[code](folder)
    copy_of(original)(copy)
    where = {folder.name: code for code, folder in zip(codes, spoilt, strict=True)} | {copy.name: "duplicate"}
    cases = find_cases(root, "brats2020")
    inspected = examine(cases, RULES, 1)
    return Planted(cases, inspected, judge(cases, inspected, RULES, MODALITIES, TASKS["segmentation"]), where)


def enhancing(folder: Path) -> int:
    return int((np.asarray(nib.load(of(folder, "seg")).dataobj) == 4).sum())


def codes_of(report: CaseReport) -> set[str]:
    return {finding.code for finding in report.findings}


@pytest.mark.parametrize("code", [*PLANTS, "duplicate"])
def test_a_planted_defect_is_found_as_what_it_is(code: str, planted: Planted) -> None:
    """And the case has no other finding, so the codes tell the faults apart."""
    (report,) = (report for report in planted.reports if planted.where.get(report.patient) == code)
    assert codes_of(report) == {code}
    assert report.status == ("error" if code in ERRORS else "warning")
    for finding in report.findings:
        assert finding.severity == report.status
        assert finding.file is None or finding.file in finding.message or code == "duplicate"


def test_clean_cases_raise_nothing(planted: Planted) -> None:
    clean = [report for report in planted.reports if report.patient not in planted.where]
    assert len(clean) == CLEAN
    assert [report.findings for report in clean] == [[]] * CLEAN
    assert {report.status for report in clean} == {"ok"}


@pytest.mark.parametrize("task", ["segmentation", "grading"])
@pytest.mark.parametrize("modalities", [("t1",), ("t2", "t1ce"), ("flair", "t1", "t1ce", "t2")])
def test_a_run_is_told_what_reading_only_its_scans_would_tell(
    planted: Planted, task: str, modalities: tuple[str, ...]
) -> None:
    """All scans are read once, and judged for each run; the oracle reads the scans of this run alone."""
    asked = [
        replace(
            case,
            images={name: case.images[name] for name in modalities if name in case.images},
            mask=case.mask if task == "segmentation" else None,
        )
        for case in planted.cases
    ]
    told, expected = (
        judge(some, inspected, RULES, modalities, TASKS[task], validation=0.5)
        for some, inspected in ((planted.cases, planted.inspected), (asked, examine(asked, RULES, 1, draw=False)))
    )
    for report, oracle in zip(told, expected, strict=True):
        assert [(each.code, each.file) for each in report.findings if each.severity == "error"] == [
            (each.code, each.file) for each in oracle.findings if each.severity == "error"
        ]
    assert {each.code for report in told for each in report.findings if each.severity == "error"}


NO_PLACE = {
    "unreadable", "truncated", "bad_crc", "empty_file", "wrong_format", "not_3d", "size",
    "missing_modality", "missing_mask", "no_grade", "two_grades", "two_files",
}  # fmt: skip


def test_what_has_a_place_has_a_picture(planted: Planted) -> None:
    findings = [finding for report in planted.reports for finding in report.findings]
    for finding in findings:
        assert (finding.picture[:4] == b"\x89PNG") == (finding.code not in NO_PLACE), finding.code


def test_every_code_is_planted() -> None:
    assert {
        *PLANTS,
        "duplicate",
        "split_leak",
        "no_grade",
        "two_grades",
        "no_label",
        "two_labels",
        "not_understood",
    } == {*ERRORS, *WARNINGS}


@pytest.fixture(scope="module")
def few(phantoms: Path) -> list[Case]:
    return find_cases(phantoms, "brats2020")[:3]


def test_a_patient_declared_on_both_sides_leaks(few: list[Case]) -> None:
    cases = [
        replace(few[0], patient="A", visit="000", side="training"),
        replace(few[1], patient="A", visit="001", side="validation"),
        replace(few[2], side="training"),
    ]
    reports = check(cases)
    assert [codes_of(report) for report in reports] == [{"split_leak"}, {"split_leak"}, set()]


def test_a_duplicate_on_the_other_side_of_the_split_leaks(few: list[Case]) -> None:
    """Under two names a scan would be trained on and validated with; the hash of the names decides."""
    names = [f"P{number}" for number in range(40)]
    train, validate, _ = split(names, 0.5, 0)
    for other, leak in ((validate[0], {"split_leak"}), (train[1], set[str]())):
        cases = [replace(few[0], patient=train[0]), replace(few[0], patient=other), few[1]]
        reports = check(cases, validation=0.5)
        assert [codes_of(report) for report in reports] == [set(), {"duplicate"} | leak, set()]


def test_a_duplicate_that_is_tested_leaks(few: list[Case]) -> None:
    cases = [replace(few[0], side="training"), replace(few[0], patient="copy", side="test"), few[1]]
    assert [codes_of(report) for report in check(cases)] == [set(), {"duplicate", "split_leak"}, set()]


def test_of_two_copies_the_one_that_can_be_used_is_kept(few: list[Case]) -> None:
    cases = [replace(few[0], mask=None), replace(few[0], patient="copy")]
    reports = check(cases)
    assert [codes_of(report) for report in reports] == [{"missing_mask", "duplicate"}, set()]
    reports = check([replace(few[0], grade=None), replace(few[0], patient="copy")], "grading")
    assert [codes_of(report) for report in reports] == [{"no_grade", "duplicate"}, set()]


def test_units_of_another_scanner_are_no_outlier(phantoms: Path) -> None:
    """MR units are arbitrary: half of the folder in other units is two scanners, one case alone is odd."""
    cases = find_cases(phantoms, "brats2020")[:9]
    inspected = examine(cases, RULES, 1, draw=False)

    def outliers(t2: float, number: int, brain: float = 1.0) -> list[str]:
        """Who is told of where the first `number` have T2 in `t2` times the units and of `brain` times the volume."""
        changed = []
        for place, each in enumerate(inspected):
            image = each.facts.images["t2"]
            if place < number:
                image = replace(image, spread=image.spread * t2, brain=image.brain * brain)
            changed.append(replace(each, facts=replace(each.facts, images={**each.facts.images, "t2": image})))
        reports = judge(cases, changed, RULES, MODALITIES, TASKS["segmentation"])
        return [report.patient for report in reports if "intensity_outlier" in codes_of(report)]

    assert outliers(3.0, 1) == []  # another scanner, or another gain
    assert outliers(12.0, 4) == []
    assert outliers(12.0, 1) == outliers(0.08, 1) == outliers(1.0, 1, brain=0.4) == [cases[0].patient]


def test_a_swap_is_told_to_whoever_reads_one_of_the_two(phantoms: Path) -> None:
    """Also to a run that grades, or reads T1ce alone; a run of T2 alone has nothing to mend."""
    (case,) = find_cases(phantoms, "brats2020")[:1]
    swapped = replace(case, images={**case.images, "t1ce": case.images["flair"], "flair": case.images["t1ce"]})
    inspected = [inspect(swapped, RULES, draw=False)]
    for modalities in (MODALITIES, ("t1ce",)):
        for task in ("segmentation", "grading"):
            (report,) = judge([swapped], inspected, RULES, modalities, TASKS[task])
            assert codes_of(report) == {"modalities_swapped"}
    without = replace(case, images={name: case.images[name] for name in ("t1", "t2")})
    (report,) = judge([without], [inspect(without, RULES, draw=False)], RULES, ("t2",), TASKS["grading"])
    assert codes_of(report) == set() and report.unchecked == {"modalities_swapped": "no flair, t1ce on the case's grid"}


def test_grading_asks_for_grades_and_not_for_masks(few: list[Case], tmp_path: Path) -> None:
    broken = tmp_path / "seg.nii.gz"
    broken.write_bytes(b"broken")
    one_image = {"t1": few[2].images["t1"]}
    cases = [
        replace(few[0], mask=None),
        replace(few[1], mask=type(few[1].images["t1"])(broken), grade=None),
        replace(few[2], images=one_image),
    ]
    reports = check(cases, "grading")
    # The grader is told what is missing, and goes on with the rest.
    assert [codes_of(report) for report in reports] == [set(), {"no_grade"}, {"missing_modality"}]
    assert [report.status for report in reports] == ["ok", "error", "warning"]
    inspected = examine(cases, RULES, 1, draw=False)  # a run that segments may come later
    assert broken in [file.path for each in inspected for file in each.facts.files]


def test_a_case_may_lack_some_images_where_some_suffice(few: list[Case]) -> None:
    """Never all of them; what is looked at in the others is no more than a check of these alone would find."""
    lacking = [replace(few[0], images={"t1": few[0].images["t1"]}), replace(few[1], images={}), few[2]]
    inspected = examine(lacking, RULES, 1, draw=False)
    for task in TASKS:
        for some, statuses in ((True, ["warning", "error", "ok"]), (False, ["error", "error", "ok"])):
            reports = judge(lacking, inspected, RULES, MODALITIES, TASKS[task], some=some)
            assert [report.status for report in reports] == statuses
            assert [report.lacks for report in reports] == [[*MODALITIES[:1], *MODALITIES[2:]], [*MODALITIES], []]
            assert codes_of(reports[0]) == {"missing_modality"}


def test_no_visit_is_graded_as_another_is(few: list[Case]) -> None:
    """The first that was written counted for all; a tumour may progress, and a line may be wrong."""
    visits = [replace(case, patient="P", visit=str(visit)) for visit, case in enumerate(few)]
    inspected = examine(visits, RULES, 1, draw=False)
    for grades, codes in (
        (("HGG", "LGG", None), [{"two_grades"}] * 3),
        (("HGG", "HGG", None), [set(), set(), {"no_grade"}]),
        ((None, None, None), [{"no_grade"}] * 3),
    ):
        cases = [replace(case, grade=grade) for case, grade in zip(visits, grades, strict=True)]
        for task, expected in (("grading", codes), ("segmentation", [set()] * 3)):
            reports = judge(cases, inspected, RULES, MODALITIES, TASKS[task])
            assert [codes_of(report) for report in reports] == expected
    told = judge(
        [replace(visits[0], grade="LGG"), replace(visits[1], grade="HGG")],
        inspected[:2],
        RULES,
        MODALITIES,
        TASKS["grading"],
    )
    assert "P: has the grades HGG (visit 1) and LGG (visit 0); give" in told[0].findings[0].message


@pytest.mark.parametrize(("resolution", "visits", "scheme"), [(8.0, 2, "brats2023"), (4.0, 1, "brats2020")])
def test_phantoms_are_clean_under_the_defaults(resolution: float, visits: int, scheme: str, tmp_path: Path) -> None:
    write_phantoms(PhantomConfig(patients=1, visits=visits, resolution=resolution), tmp_path, 1)
    reports = check(find_cases(tmp_path, scheme), rules=CheckConfig())
    assert [report.findings for report in reports] == [[]] * visits


def test_a_scan_too_large_for_the_memory_takes_only_its_case_along(
    few: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = examine_module.inspect

    def full(case: Case, *rest: Any) -> Any:
        if case == few[0]:
            raise MemoryError
        return inspect(case, *rest)

    monkeypatch.setattr(examine_module, "inspect", full)
    reports = check(few)
    assert [[finding.code for finding in report.findings] for report in reports[:2]] == [["unreadable"], []]
