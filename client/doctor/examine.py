"""Reads a cohort: every case in its own process or in turn."""

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

from gliofed.client.doctor.findings import Facts, Fault
from gliofed.client.doctor.inspection import Inspection, inspect
from gliofed.shared.data.cases import Case
from gliofed.shared.processes import spared_ctrl_c
from gliofed.shared.site_config import CheckConfig

Job = TypeVar("Job")
Result = TypeVar("Result")


def examine(
    cases: Sequence[Case],
    rules: CheckConfig,
    workers: int,
    report: Callable[[int, int], None] | None = None,
    draw: bool = True,
) -> list[Inspection]:
    """Inspect every case, in the order of `cases` whatever the number of `workers`.

    One worker is this process; more are processes of their own, and one that dies takes only its case along.
    `report` hears (cases done, of all). `draw` asks for pictures.
    """
    seen: dict[int, Inspection] = {}
    with closing(do_each(partial(_look, rules=rules, draw=draw), cases, workers)) as inspections:
        for index, inspection in inspections:
            if inspection is None:
                message = (
                    f"{cases[index].patient} visit {cases[index].visit}: reading it took more memory than there is, or "
                    "its process died; look for a scan that is too large, or set workers=1"
                )
                inspection = Inspection(Facts(faults=[Fault((), "unreadable", message, None)]))
            seen[index] = inspection
            if report:
                report(len(seen), len(cases))
    return [seen[index] for index in range(len(cases))]


def do_each(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Generator[tuple[int, Result | None], None, None]:
    """Do each job, by one worker in this process and else in several; yield its index and its result as it is done.

    Where its process died the result is None. Its processes end when it is done, or closed.
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield from enumerate(map(work, jobs))
        return
    waiting = deque(range(len(jobs)))
    while waiting:
        # A dead process takes its pool along, and does not say whose fault it was: each suspect is tried by itself.
        for index in (yield from _until_one_dies(work, jobs, waiting, workers)):
            if (yield from _until_one_dies(work, jobs, deque([index]), 1)):
                yield index, None


def _until_one_dies(
    work: Callable[[Job], Result], jobs: Sequence[Job], waiting: deque[int], workers: int
) -> Generator[tuple[int, Result], None, list[int]]:
    """Work off `waiting`; where a process dies, stop and return the jobs that were under way."""
    busy: dict[Future[Any], int] = {}
    lost: list[int] = []
    # Spawned: a fork would copy the locks of threads that rich and nibabel may have.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        while (waiting and not lost) or busy:
            while waiting and not lost and len(busy) < workers:
                index = waiting.popleft()
                try:
                    with spared_ctrl_c():  # this process ends them, and each would leave a traceback
                        busy[pool.submit(work, jobs[index])] = index
                except BrokenProcessPool:
                    lost.append(index)
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                index = busy.pop(future)
                try:
                    yield index, future.result()
                except BrokenProcessPool:
                    lost.append(index)
    return sorted(lost)


def _look(case: Case, rules: CheckConfig, draw: bool) -> Inspection | None:
    """Inspect a case; one that is too large for the memory must not take the others' reports along."""
    try:
        return inspect(case, rules, draw)
    except MemoryError:
        return None
