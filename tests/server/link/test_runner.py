"""How `start` takes runs to Flower and back, one at a time."""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_flower import END, FAILED, MEMBERS, ROUND, runner, write

import gliofed.shared.code
from gliofed.server.link.members import Member
from gliofed.server.link.runs import Run, announce, announced
from gliofed.shared.parse import ConfigError


def test_runs_take_turns_in_the_order_in_which_they_are_wanted(make: Callable[[str], Run], study: Path) -> None:
    later, first = make("a"), make("b")
    later.want("run", datetime.now(UTC) + timedelta(seconds=1))
    it, flower, _ = runner(study)
    it.supervise(MEMBERS)
    it.supervise(MEMBERS)
    assert [announced(study, config["submission"]) for config in flower.started] == [first]
    assert json.loads((first.folder / "nodes.json").read_text()) == {"7": "a"}
    assert (first.state(), later.state()) == (("running", None), ("waiting", None))
    write(first, {"event": "start"}, END)
    flower.going.clear()
    assert it.supervise(MEMBERS) == ["run b: done", "run a: submitted"]
    assert first.state() == ("done", None)


def test_flower_is_told_neither_the_folder_nor_the_name_of_a_run(make: Callable[[str], Run], study: Path) -> None:
    """It shows every hospital what a run is started with."""
    make("first-in-human")
    it, flower, _ = runner(study)
    it.supervise(MEMBERS)
    ((key, told),) = flower.started[0].items()
    assert key == "submission" and re.fullmatch("[0-9a-f]{32}", told)
    assert f'{key} = ""' in gliofed.shared.code.PYPROJECT  # Flower takes no other key


def test_a_server_whose_run_was_submitted_again_does_not_find_it(make: Callable[[str], Run], study: Path) -> None:
    """Two of them would write into one folder."""
    run = make("one")
    first, second = announce(run), announce(run)
    assert announced(study, second) == run
    with pytest.raises(ConfigError, match="does not name this submission"):
        announced(study, first)
    (study / "runs" / "submitted.json").write_text("[half")
    with pytest.raises(ConfigError, match="does not name this submission"):
        announced(study, second)


def test_a_site_that_is_admitted_meanwhile_is_known_to_the_run(make: Callable[[str], Run], study: Path) -> None:
    run, (it, _, _) = make("one"), runner(study)
    it.supervise(MEMBERS)
    it.supervise({**MEMBERS, "b": Member(node=9, online=True, seen=None)})
    assert json.loads((run.folder / "nodes.json").read_text()) == {"7": "a", "9": "b"}


def test_the_agreed_numbers_of_patients_are_the_runs_too(make: Callable[[str], Run], study: Path) -> None:
    """A number that is agreed anew holds from the next round on."""
    run, (it, _, _) = make("one"), runner(study)
    it.supervise(
        {"a": Member(node=7, online=True, seen=None, patients=40), "b": Member(node=8, online=True, seen=None)}
    )
    assert json.loads((run.folder / "agreed.json").read_text()) == {"a": 40}
    it.supervise({"a": Member(node=7, online=True, seen=None, patients=50)})
    assert json.loads(run.files.agreed.read_text()) == {"a": 50}


def test_a_run_keeps_its_code_whatever_is_provisioned(make: Callable[[str], Run], study: Path) -> None:
    """Hospitals approved what it began with; other code would train another model, or none."""
    make("one")
    it, flower, clock = runner(study)
    it.supervise(MEMBERS)
    (study / "code.fab").write_bytes(b"newer")
    for _ in range(2):  # its server ends, and so does the SuperLink
        it.forget()
        it.supervise(MEMBERS)
        clock.now += 100
        it.supervise(MEMBERS)
    assert flower.codes == [b"code"] * 3


def test_a_runs_page_is_drawn_when_its_history_goes_on(make: Callable[[str], Run], study: Path) -> None:
    run, (it, _, _) = make("one"), runner(study)
    it.supervise(MEMBERS)
    assert not run.files.page.exists()
    for number in (1, 2):
        write(
            run,
            *(
                {"event": "round", "round": n, "seconds": 1.0, "sites": {}, "global": None}
                for n in range(1, number + 1)
            ),
        )
        os.utime(run.files.history, (number, 2**31 + number))  # a disk's clock may be coarse
        it.supervise(MEMBERS)
        assert f"round {number}" in run.files.page.read_text()
    run.files.page.write_text("old")
    it.supervise(MEMBERS)
    assert run.files.page.read_text() == "old", "nothing happened, so nothing is drawn"


def test_a_run_that_is_stopped_can_go_on(make: Callable[[str], Run], study: Path) -> None:
    run, (it, flower, _) = make("one"), runner(study)
    it.supervise(MEMBERS)
    run.want("stop")
    assert run.state() == ("running", None)  # until it has ended
    it.supervise(MEMBERS)
    assert it.supervise(MEMBERS) == ["run one: stopped"]
    assert flower.going == {}
    assert run.state() == ("stopped", None)
    assert it.supervise(MEMBERS) == []
    run.want("run")
    assert it.supervise(MEMBERS) == ["run one: submitted"]


def test_a_failed_run_is_tried_again_only_when_it_is_wanted(make: Callable[[str], Run], study: Path) -> None:
    """For want of sites, say; the old end is still in its history."""
    run, (it, flower, _) = make("one"), runner(study)
    it.supervise(MEMBERS)
    write(run, {"event": "start"}, FAILED)
    flower.going.clear()
    it.supervise(MEMBERS)
    assert run.state() == ("failed", FAILED["reason"])
    assert len(flower.started) == 1
    run.want("run")
    it.supervise(MEMBERS)
    assert run.state() == ("running", None)
    write(run, {"event": "resume"}, FAILED)
    flower.going.clear()
    it.supervise(MEMBERS)
    assert run.state() == ("failed", FAILED["reason"])


def test_a_run_that_ended_stays_ended_whatever_is_wanted(make: Callable[[str], Run], study: Path) -> None:
    run, (it, flower, _) = make("one"), runner(study)
    write(run, {"event": "start"}, END)
    run.want("run")
    it.supervise(MEMBERS)
    assert flower.started == []
    assert run.state() == ("done", None)


def test_a_run_whose_budget_is_spent_has_ended_with_a_reason(make: Callable[[str], Run], study: Path) -> None:
    """It is not done, and no word can let it go on."""
    run, (it, flower, _) = make("one"), runner(study)
    it.supervise(MEMBERS)
    write(run, {"event": "start"}, ROUND, {"event": "end", "status": "incomplete", "reason": "round 2: spent"})
    flower.going.clear()
    assert it.supervise(MEMBERS) == ["run one: incomplete: round 2: spent"]
    run.want("run")
    it.supervise(MEMBERS)
    assert len(flower.started) == 1
    assert run.state() == ("incomplete", "round 2: spent")


def test_what_a_superlink_that_is_new_remembers_is_stopped(make: Callable[[str], Run], study: Path) -> None:
    """Flower waits a minute before it gives a dead server up; and the next one would find the folder's log held."""
    make("one")
    it, flower, clock = runner(study)
    it.supervise(MEMBERS)
    it.forget()
    assert flower.going == {}
    it.supervise(MEMBERS)
    clock.now += 100
    assert it.supervise(MEMBERS) == ["run one: submitted"]


def test_a_run_that_nobody_noted_is_stopped(make: Callable[[str], Run], study: Path) -> None:
    """Else its server would hold the run's log, and the one that is noted would fail ten times."""
    run, (it, flower, _) = make("one"), runner(study)
    flower.going[99] = "running"  # as where the answer to a submission was lost
    assert it.supervise(MEMBERS) == []
    assert flower.going == {}
    assert it.supervise(MEMBERS) == ["run one: submitted"]
    assert run.submission().flower in flower.going


def test_how_long_a_run_waits_for_its_server_is_known(make: Callable[[str], Run], study: Path) -> None:
    """What starts the servers may have died, and nobody starts it again but with the SuperLink."""
    make("one")
    it, flower, clock = runner(study)
    flower.word = "pending"
    it.supervise(MEMBERS)
    assert it.pending() == 0
    it.supervise(MEMBERS)
    clock.now += 50
    it.supervise(MEMBERS)
    assert it.pending() == 50
    flower.going[1] = "running"
    it.supervise(MEMBERS)
    assert it.pending() == 0
