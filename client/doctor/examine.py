"""Checks a cohort: every case in its own process or in turn, then all of them against each other."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeVar

from client.doctor.comparison import cohort_findings
from client.doctor.findings import FileState, Finding
from client.doctor.inspection import Inspection, Task, inspect
from shared.data.cases import Case
from shared.site_config import CheckConfig

Status = Literal["ok", "warning", "error"]
Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class CaseReport:
    """What was found in one visit of one patient."""

    patient: str
    visit: str
    status: Status
    """The gravest of the findings."""
    findings: list[Finding]
    files: list[FileState]
    """Every file that could be opened."""


def examine(
    cases: Sequence[Case],
    rules: CheckConfig,
    modalities: Sequence[str],
    task: Task,
    workers: int,
    report: Callable[[int, int], None] | None = None,
    validation: float = 0.0,
    split_seed: int = 0,
    draw: bool = True,
) -> list[CaseReport]:
    """Check every case, in the order of `cases` whatever the number of `workers`.

    One worker is this process; more are processes of their own, and one that dies takes only its case along.
    `report` hears (cases done, of all). `validation` and `split_seed` are a run's, to tell which duplicates would leak
    from training into validation. `draw` asks for pictures of the findings.
    """
    look = partial(_look, rules=rules, modalities=modalities, task=task, draw=draw)
    seen: dict[int, Inspection] = {}

    def done(index: int, inspection: Inspection | None) -> None:
        seen[index] = _died(cases[index]) if inspection is None else inspection
        if report:
            report(len(seen), len(cases))

    if min(workers, len(cases)) <= 1:
        for index, case in enumerate(cases):
            done(index, look(case))
    else:
        spread(look, cases, min(workers, len(cases)), done)
    ordered = [seen[index] for index in range(len(cases))]
    compared = cohort_findings(cases, ordered, rules, task, validation, split_seed)
    return [
        _report(case, [*inspection.findings, *more], inspection.files)
        for case, inspection, more in zip(cases, ordered, compared, strict=True)
    ]


def spread(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int, done: Callable[[int, Result | None], None]
) -> None:
    """Do each job in one of several processes; `done` hears its index and result, None where its process died."""
    waiting = deque(range(len(jobs)))
    while waiting:
        # A dead process takes its pool along, and does not say whose fault it was: each suspect is tried by itself.
        for index in _until_one_dies(work, jobs, waiting, workers, done):
            if _until_one_dies(work, jobs, deque([index]), 1, done):
                done(index, None)


def _until_one_dies(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    waiting: deque[int],
    workers: int,
    done: Callable[[int, Result | None], None],
) -> list[int]:
    """Work off `waiting`; where a process dies, stop and return the jobs that were under way."""
    busy: dict[Future[Any], int] = {}
    lost: list[int] = []
    # Spawned: a fork would copy the locks of threads that rich and nibabel may have.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        while (waiting and not lost) or busy:
            while waiting and not lost and len(busy) < workers:
                index = waiting.popleft()
                try:
                    busy[pool.submit(work, jobs[index])] = index
                except BrokenProcessPool:
                    lost.append(index)
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                index = busy.pop(future)
                try:
                    result = future.result()
                except BrokenProcessPool:
                    lost.append(index)
                else:
                    done(index, result)
    return sorted(lost)


def _look(case: Case, rules: CheckConfig, modalities: Sequence[str], task: Task, draw: bool) -> Inspection:
    """Inspect a case; one that is too large for the memory must not take the others' reports along."""
    try:
        return inspect(case, rules, modalities, task, draw)
    except MemoryError:
        return _died(case)


def _died(case: Case) -> Inspection:
    message = (
        f"{case.patient} visit {case.visit}: reading it took more memory than there is, or its process died; "
        "look for a scan that is too large, or set workers=1"
    )
    return Inspection([Finding(code="unreadable", message=message)], [])


def _report(case: Case, findings: list[Finding], files: list[FileState]) -> CaseReport:
    severities = {finding.severity for finding in findings}
    status: Status = "error" if "error" in severities else "warning" if severities else "ok"
    return CaseReport(case.patient, case.visit, status, findings, files)
