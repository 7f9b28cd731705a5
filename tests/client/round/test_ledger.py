"""The hospital's ledger: what was charged stays charged, whoever is killed, and what was changed is seen."""

import math
import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ledger_lines import COUNT, DELTA, ROUND, contents, epsilon_of, together, write

import gliofed.client.round.ledger
from gliofed.client.round.ledger import Charge, hold, read_ledger
from gliofed.client.round.policy import DeclinedError
from gliofed.shared.accounting import rdp_epsilon
from gliofed.shared.files import append_line

# Python 3.12 warns of a fork beside threads; these children do nothing but write two files.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def in_another_process(work: Callable[[], object]) -> int:
    """Fork, do the work there, and return the child's status: 0, 1 after an exception, or -9 where it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(point: str) -> None:
    """Let the process that calls this die when it writes its charge."""

    def before(path: Path, line: str) -> None:
        kill()

    def middle(path: Path, line: str) -> None:
        with path.open("ab") as file:
            file.write(line.encode()[: len(line) // 2])
        kill()

    def between(path: Path, line: str) -> None:  # the line is there, head.json is the one before
        append_line(path, line)
        kill()

    if point != "never":
        gliofed.client.round.ledger.append_line = {"before": before, "middle": middle, "between": between}[point]


def survive(folder: Path, charges: list[Charge], points: tuple[str, ...]) -> Iterator[tuple[float, list[Charge]]]:
    """Try each charge in processes of their own until one ends; yield epsilon, and what has ended, after each."""
    rng, ended = random.Random(0), []
    for charge in charges:
        status = -1
        while status != 0:
            point = rng.choice(points)

            def attempt(charge: Charge = charge, point: str = point) -> None:
                killed_at(point)
                write(folder, charge)

            status = in_another_process(attempt)
            assert status == (0 if point == "never" else -signal.SIGKILL)
            if status == 0:
                ended.append(charge)
            yield epsilon_of(folder), ended


CHARGES = [COUNT, *(replace(ROUND, round=number, sigma=4.0 if number % 3 else 2.5) for number in range(1, 8))]


@pytest.mark.slow
def test_killed_processes_never_lower_epsilon(folder: Path) -> None:
    """Whenever a process dies, the ledger has each round that ended, and only ever rises."""
    write(folder, replace(ROUND, round=0))
    last, seen = 0.0, 0
    for epsilon, ended in survive(folder, CHARGES, ("never", "before", "middle", "between")):
        assert epsilon >= last
        assert epsilon >= together([replace(ROUND, round=0), *ended])
        last, seen = epsilon, seen + 1
    ledger = read_ledger(folder)
    assert ledger is not None and seen > len(CHARGES)
    assert len(ledger.charges) > 1 + len(CHARGES)  # "between" was drawn: charged twice, which is the safe side
    undisturbed = folder.with_name("undisturbed")
    with hold(undisturbed, DELTA) as other:
        for charge in ledger.charges:
            other.charge(charge, None)
    assert last == other.epsilon() == together(ledger.charges)
    one_by_one = rdp_epsilon([(charge.sigma, charge.rate, charge.steps) for charge in ledger.charges], DELTA)
    assert last == pytest.approx(one_by_one, rel=1e-9)


@pytest.mark.slow
def test_killed_before_the_line_costs_nothing(folder: Path) -> None:
    """Then the charges are, to the bit of epsilon, those of a run that nothing happened to."""
    with hold(folder, DELTA):
        pass
    epsilons = [epsilon for epsilon, _ in survive(folder, CHARGES, ("never", "before"))]
    assert len(epsilons) > len(CHARGES)
    undisturbed = folder.with_name("undisturbed")
    write(undisturbed, *CHARGES)
    assert epsilons[-1] == epsilon_of(undisturbed)


def test_a_sampled_round_is_the_accountants(folder: Path) -> None:
    """Rounds of one run are one mechanism with all their steps, as in the plan of the noise."""
    sampled = replace(ROUND, sigma=1.1, rate=0.25, steps=5)
    write(folder, sampled, replace(sampled, round=2))
    assert epsilon_of(folder) == rdp_epsilon([(1.1, 0.25, 10)], DELTA)


def test_killed_while_the_ledger_is_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was charged yet: the next process can open it."""

    def die_at_the_head() -> None:
        gliofed.client.round.ledger.write_json = lambda *_: kill()
        write(folder, ROUND)

    assert in_another_process(die_at_the_head) == -signal.SIGKILL
    write(folder, ROUND)


def test_what_would_pass_the_ceiling_is_refused(folder: Path) -> None:
    """Nothing is written then, and a smaller charge still fits."""
    write(folder, ROUND)
    ceiling = together([ROUND, replace(ROUND, steps=2)])
    before = contents(folder)
    with hold(folder, DELTA) as ledger:
        with pytest.raises(DeclinedError, match=rf"round 2 would bring .* policy\.max_epsilon={ceiling:g}") as refused:
            ledger.charge(replace(ROUND, round=2), ceiling)
        assert refused.value.code == "budget"
        assert contents(folder) == before and len(ledger.charges) == 1
        ledger.charge(replace(ROUND, round=2, steps=2), ceiling)
    assert epsilon_of(folder) == ceiling


def test_an_epsilon_of_nan_passes_no_ceiling(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every comparison with it is false: one that asks for too much would let it pass."""
    write(folder, ROUND)
    before = contents(folder)
    monkeypatch.setattr(gliofed.client.round.ledger, "rdp_epsilon", lambda spent, delta: math.nan)
    with hold(folder, DELTA) as ledger:
        with pytest.raises(DeclinedError, match="would bring epsilon to nan") as refused:
            ledger.charge(replace(ROUND, round=2), 1e6)
        assert refused.value.code == "budget" and len(ledger.charges) == 1
    assert contents(folder) == before


def test_one_holder_at_a_time(folder: Path) -> None:
    def other() -> None:
        with pytest.raises(DeclinedError, match="another run holds") as refused, hold(folder, DELTA):
            pass
        assert refused.value.code == "ledger_busy"

    with hold(folder, DELTA):
        other()  # a thread of the same process, as sites of a simulation are
        assert in_another_process(other) == 0
    write(folder, ROUND)


@pytest.mark.parametrize("point", ["before", "middle", "between"])
def test_the_lock_of_a_killed_process_is_free(folder: Path, point: str) -> None:
    with hold(folder, DELTA):
        pass

    def die() -> None:
        killed_at(point)
        write(folder, ROUND)

    assert in_another_process(die) == -signal.SIGKILL
    write(folder, ROUND)
    ledger = read_ledger(folder)
    assert ledger is not None and len(ledger.charges) == (2 if point == "between" else 1)


def test_test_mode_cannot_keep_a_ceiling(folder: Path) -> None:
    """Anybody can compute its noise: no epsilon of the ledger holds, and no run after it is within a budget."""
    write(folder, ROUND)
    with hold(folder, DELTA) as ledger:
        assert ledger.private
        with pytest.raises(DeclinedError, match="test mode") as refused:
            ledger.charge(replace(ROUND, private=False), 1e6)
        assert refused.value.code == "budget" and ledger.private
    write(folder, replace(ROUND, private=False))
    with hold(folder, DELTA) as ledger:
        assert not ledger.private
        with pytest.raises(DeclinedError, match="test mode") as refused:
            ledger.charge(ROUND, 1e6)
        assert refused.value.code == "budget"
        ledger.charge(ROUND, None)


def test_a_number_of_patients_is_drawn_once_for_a_cohort(folder: Path) -> None:
    """Two draws for one cohort would tell more than one; another cohort needs another."""
    write(folder, replace(COUNT, cohort="a"), ROUND, replace(COUNT, cohort="b", noisy=3))
    ledger = read_ledger(folder)
    assert ledger is not None
    assert [ledger.noisy_count("other", "", cohort) for cohort in ("a", "b", "c")] == [12, 3, None]
    assert ledger.noisy_count(COUNT.run_id, "another", "c") is None
    assert ledger.noisy_count(COUNT.run_id, COUNT.reading, "c") == 12  # the run's own, whoever is there by now


def test_delta_is_that_of_the_first_charge(folder: Path) -> None:
    write(folder, ROUND)
    with hold(folder, DELTA / 2) as ledger:
        assert ledger.delta == DELTA


def test_no_ledger(folder: Path) -> None:
    assert read_ledger(folder) is None


def test_a_budget_is_a_line_of_its_own_once(folder: Path) -> None:
    """Asked for again, or for more, nothing is written; each of epsilon and delta keeps its least."""
    with hold(folder, DELTA) as ledger:
        assert ledger.budget("r") is None
        assert ledger.keep_budget("r", 4.0, None) == (4.0, DELTA)
        assert ledger.keep_budget("r", 2.0, 0.5) == (2.0, DELTA)  # a larger delta than the study's is not heeded
        assert ledger.keep_budget("r", 8.0, 1e-4) == (2.0, 1e-4)
        before = contents(folder)
        assert ledger.keep_budget("r", 1000.0, None) == (2.0, 1e-4)
        assert contents(folder) == before
        ledger.charge(replace(ROUND, run_id="other"), None)  # that run asked for nothing
    found = read_ledger(folder)
    assert found is not None and found.budget("r") == (2.0, 1e-4) and found.budget("other") is None
    assert len(found.lines) == 4 and len(found.charges) == 1


def test_a_budget_that_a_killed_process_half_wrote_is_asked_for_again(folder: Path) -> None:
    """It dies before its first charge: whatever is there of the line, the next process keeps the least."""
    for point, left in (("middle", None), ("between", (3.0, DELTA))):

        def die(point: str = point) -> None:
            killed_at(point)
            with hold(folder, DELTA) as ledger:
                ledger.keep_budget("r", 3.0, None)

        assert in_another_process(die) == -signal.SIGKILL
        found = read_ledger(folder)
        assert found is not None and found.budget("r") == left
    with hold(folder, DELTA) as ledger:
        assert ledger.keep_budget("r", 9.0, None) == (3.0, DELTA)
