"""Cases that are read by one process or several: the same is found, and nothing is left behind."""

import hashlib
import os
import pickle
import signal
from collections.abc import Iterator
from functools import partial
from operator import call

import pytest

from gliofed.client.doctor import examine as examine_module
from gliofed.client.doctor.examine import do_each, examine
from gliofed.shared.data.cases import Case
from gliofed.shared.data.layouts import find_cases
from gliofed.shared.site_config import CheckConfig
from gliofed.shared.tasks import TASKS
from gliofed.simulation.phantom import PhantomConfig, write_phantoms

RULES = CheckConfig()


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(PhantomConfig(patients=3, visits=1, resolution=8.0), root, 0)
    return find_cases(root, "brats2020")


@pytest.mark.slow
def test_processes_change_nothing(cases: list[Case]) -> None:
    heard = []
    together = examine(cases, RULES, 2, lambda done, of: heard.append((done, of)))
    assert examine(cases, RULES, 1) == together
    assert heard == [(1, 3), (2, 3), (3, 3)]


def test_whatever_stops_a_check_its_processes_end_first(cases: list[Case], monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would still write when the lock that a withdrawal waits for is given back."""
    ended = []

    def endless(*_: object) -> Iterator[tuple[int, None]]:
        try:
            yield 0, None
        finally:
            ended.append(True)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(examine_module, "do_each", endless)
    with pytest.raises(KeyboardInterrupt) as held:  # which keeps the frames, and so what they hold
        examine(cases, RULES, 2, interrupt)
    assert ended and held


@pytest.mark.parametrize("task", TASKS)
def test_what_is_learnt_can_be_sent_to_another_process(task: str) -> None:
    """As a check does with workers=2 and more."""
    assert pickle.loads(pickle.dumps(TASKS[task].label)) == TASKS[task].label


def test_every_file_is_hashed(cases: list[Case]) -> None:
    for case, inspection in zip(cases, examine(cases, RULES, 1), strict=True):
        files = inspection.facts.files
        assert {file.path for file in files} == {scan.path for scan in [*case.images.values(), case.mask]}
        for file in files:
            assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
            assert (file.size, file.mtime_ns) == (file.path.stat().st_size, file.path.stat().st_mtime_ns)


def test_a_process_that_dies_takes_only_its_job_along() -> None:
    """As the kernel kills what takes too much memory; the others' results must come."""
    jobs = [partial(abs, -1), partial(os._exit, 9), partial(abs, -3)]
    assert dict(do_each(call, jobs, 2)) == {0: 1, 1: None, 2: 3}


def test_processes_of_a_check_do_not_get_the_terminals_ctrl_c() -> None:
    """It goes to the whole group; each of them would print a traceback, and the command ends them anyway."""
    masks = dict(do_each(partial(signal.pthread_sigmask, signal.SIG_BLOCK), [(), ()], 2))
    assert masks == {0: {signal.SIGINT}, 1: {signal.SIGINT}}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
