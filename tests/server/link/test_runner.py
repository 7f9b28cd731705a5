"""How `start` takes runs to Flower and back, one at a time."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import gliofed.server.link.runner
import gliofed.server.link.runs
import gliofed.shared.code
from gliofed.server.deployed import _agreed
from gliofed.server.link.members import Member
from gliofed.server.link.runner import MOST_TRIES, PAUSES, Runner
from gliofed.server.link.runs import Run, announce, announced
from gliofed.server.round.history import Event, History
from gliofed.shared.files import write_json
from gliofed.shared.parse import ConfigError

MEMBERS = {"a": Member(node=7, online=True, seen=None, patients=40)}
END = {"event": "end", "status": "done"}
FAILED = {"event": "end", "status": "failed", "reason": "round 1: 0 updates counted"}
ROUND = {"event": "round", "round": 1, "sites": {}, "global": None}


@dataclass
class Flower:
    """A SuperLink that remembers what it was asked for."""

    going: dict[int, str] = field(default_factory=dict)
    started: list[dict[str, str]] = field(default_factory=list)
    codes: list[bytes] = field(default_factory=list)
    word: str = "running"

    def unfinished(self) -> dict[int, str]:
        return dict(self.going)

    def start_run(self, code: bytes, config: dict[str, str]) -> int:
        self.codes.append(code)
        self.started.append(config)
        self.going[len(self.started)] = self.word
        return len(self.started)

    def stop_run(self, run: int) -> None:
        del self.going[run]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def runner(study: Path) -> tuple[Runner, Flower, Clock]:
    flower, clock = Flower(), Clock()
    return Runner(study, flower, clock), flower, clock  # type: ignore[arg-type]


def write(run: Run, *events: Event) -> None:
    for event in events:
        History(run.folder / "history.jsonl").append(event)


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
    assert _agreed(run.folder / "agreed.json") == {"a": 50}


def test_a_run_whose_server_died_is_submitted_again_after_growing_pauses(
    make: Callable[[str], Run], study: Path
) -> None:
    run, (it, flower, clock) = make("one"), runner(study)
    for pause in PAUSES[:3]:
        it.supervise(MEMBERS)
        submitted = len(flower.started)
        flower.going.clear()
        said = it.supervise(MEMBERS)
        # It has no log of its own, for it ended before it could say a word.
        assert said == [f"run one: its server ended, see {study}/link/superlink.log; again in {pause} s"]
        clock.now += pause - 0.1
        it.supervise(MEMBERS)
        assert len(flower.started) == submitted
        assert run.state() == ("waiting", None)
        clock.now += 0.2
    it.supervise(MEMBERS)
    assert len(flower.started) == 4


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


@pytest.mark.parametrize("lost", ["altered", "missing"])
def test_a_run_whose_code_is_lost_takes_no_other_and_lets_the_next_one_pass(
    make: Callable[[str], Run], study: Path, lost: str
) -> None:
    first, second = make("a"), make("b")
    if lost == "missing":
        (first.folder / "code.fab").unlink()
    else:
        (first.folder / "code.fab").write_bytes(b"other")
    it, flower, _ = runner(study)
    assert it.supervise(MEMBERS) == ["run b: submitted"]
    (trouble,) = it.troubles
    assert f"{first.folder}/code.fab" in trouble and "restore it from a copy" in trouble
    assert (first.state()[0], second.state()[0], flower.codes) == ("waiting", "running", [b"code"])


def test_a_run_of_an_older_version_which_kept_no_code_is_not_run(make: Callable[[str], Run], study: Path) -> None:
    run, (it, flower, _) = make("one"), runner(study)
    (run.folder / "code.fab").unlink()
    saved = json.loads((run.folder / "run.json").read_text())
    del saved["code_sha256"]
    (run.folder / "run.json").write_text(json.dumps(saved))
    it.supervise(MEMBERS)
    (trouble,) = it.troubles
    assert f"{run.folder}/run.json: of an older version" in trouble and "gliofed-server stop one" in trouble
    assert flower.codes == []


def test_a_run_is_given_up_after_ten_submissions_without_a_new_round(make: Callable[[str], Run], study: Path) -> None:
    """A round is progress, and the count begins anew."""
    run, (it, flower, clock) = make("one"), runner(study)
    for number in range(40):
        if number == 10:
            write(run, {"event": "start"}, ROUND)
        it.supervise(MEMBERS)
        flower.going.clear()
        clock.now += 100
    state, reason = run.state()
    assert len(flower.started) == 5 + MOST_TRIES
    assert state == "failed"
    assert reason is not None
    assert "gliofed-server run federation=" in reason and "resume=one" in reason
    run.want("run")
    it.supervise(MEMBERS)
    assert run.state() == ("running", None)


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


def test_no_server_starts_that_cannot_be_noted(
    make: Callable[[str], Run], study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("one")
    it, flower, _ = runner(study)
    with monkeypatch.context() as full:
        full.setattr(gliofed.server.link.runs, "write_json", disk_full)
        for _ in range(2):
            with pytest.raises(OSError, match="No space left"):
                it.supervise(MEMBERS)
    assert flower.started == []
    assert it.supervise(MEMBERS) == ["run one: submitted"]


def disk_full(path: Path, value: object) -> None:
    raise OSError(28, "No space left on device", str(path))


def test_a_full_disk_uses_no_tries_up(make: Callable[[str], Run], study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight minutes of it were ten tries, and the run had failed."""
    run, (it, flower, clock) = make("one"), runner(study)
    with monkeypatch.context() as full:
        full.setattr(gliofed.server.link.runner, "SPARE", 2**80)
        for _ in range(2 * MOST_TRIES):
            assert it.supervise(MEMBERS) == []
            clock.now += 100
        assert len(it.troubles) == 1 and "GiB is free" in it.troubles[0]
    assert (flower.started, run.state()) == ([], ("waiting", None))
    assert it.supervise(MEMBERS) == ["run one: submitted"]
    assert it.troubles == []


def test_code_that_flower_has_unpacked_before_is_not_trusted(make: Callable[[str], Run], study: Path) -> None:
    """Flower takes what is there for the whole, also what a full disk or a kill has left."""
    half = study / "link" / "flower" / "apps" / "gliofed.gliofed.1.0.0.00000000"
    half.mkdir(parents=True)
    make("one")
    it, _, _ = runner(study)
    it.supervise(MEMBERS)
    assert not half.exists()


@pytest.mark.parametrize("file", ["wanted.json", "submission.json", "wanted.json, away"])
def test_a_run_whose_file_cannot_be_read_is_not_stopped(make: Callable[[str], Run], study: Path, file: str) -> None:
    """Flower's run is nobody's then, as far as can be told; it was stopped while somebody restored the file."""
    run, other = make("one"), make("two")
    it, flower, _ = runner(study)
    it.supervise(MEMBERS)
    path = run.folder / file.removesuffix(", away")
    whole, going = path.read_text(), flower.unfinished()
    if file.endswith("away"):
        path.unlink()
    else:
        path.write_text("{half\n")
    it.supervise(MEMBERS)
    path.write_text(whole)
    it.supervise(MEMBERS)
    assert flower.going == going
    assert (run.state(), other.state()) == (("running", None), ("waiting", None))


@pytest.mark.parametrize("file", ["wanted.json", "submission.json", "history.jsonl", "nodes.json", "agreed.json"])
def test_a_damaged_file_stops_its_own_run_alone(make: Callable[[str], Run], study: Path, file: str) -> None:
    damaged, whole = make("a"), make("b")
    it, flower, _ = runner(study)
    it.supervise(MEMBERS)
    (damaged.folder / file).write_text("{half\n")
    said = it.supervise(MEMBERS)
    if file in ("nodes.json", "agreed.json"):  # `start` knows what belongs there
        assert json.loads((damaged.folder / file).read_text()) == ({"7": "a"} if file == "nodes.json" else {"a": 40})
        return
    assert len(it.troubles) == 1 and f"a/{file}" in it.troubles[0]
    flower.going.clear()  # the server of the damaged one ends over it
    said += it.supervise(MEMBERS) + it.supervise(MEMBERS)
    assert said.count("run b: submitted") == 1
    assert whole.state() == ("running", None)


def test_a_damaged_checkpoint_uses_no_tries_up(make: Callable[[str], Run], study: Path) -> None:
    """Ten servers ended over it, which took minutes; the next run has its turn, and a person reads the cure."""
    damaged, whole = make("a"), make("b")
    write_json(damaged.folder / "checkpoints/round-0001/state.json", {})
    it, _, _ = runner(study)
    assert it.supervise(MEMBERS) == ["run b: submitted"]
    assert "round-0001: damaged" in it.troubles[0] and "remove this folder" in it.troubles[0]
    assert (damaged.submission().tries, whole.state()) == (0, ("running", None))
    shutil.rmtree(damaged.folder / "checkpoints")
    it.supervise(MEMBERS)
    assert it.troubles == []


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
