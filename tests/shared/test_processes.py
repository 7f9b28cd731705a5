"""Programs are started again when they end, and end with all that they started, also after their supervisor's death."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from waiting import alive, until

import gliofed.shared.processes
from gliofed.shared.processes import Program, asked_to_end, no_proxy_here

SLEEP = ("sh", "-c", "sleep 60 & echo $! > child; echo ready > ready; wait")
"""A program with a child of its own."""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Program]]:
    monkeypatch.chdir(tmp_path)
    made: list[Program] = []

    def make(*command: str, pauses: tuple[float, ...] = (0.0,)) -> Program:
        made.append(Program("it", command, tmp_path, os.environ, pauses))
        return made[-1]

    yield make
    for each in made:
        each.end()


def test_a_program_that_ends_is_started_again_after_growing_pauses(program: Callable[..., Program]) -> None:
    """A pause too short would fill the log; one that is never reset would leave a site away for long."""
    it = program("sh", "-c", "exit 3", pauses=(0.01, 0.02, 60.0))
    said: list[str] = []
    until(lambda: said.extend(it.supervise()) or len(said) == 3, "three ends")
    assert [sentence.split(";")[1].split(",")[0] for sentence in said] == [f" again in {p} s" for p in (0.01, 0.02, 60)]
    assert said[0].startswith("it ended (status 3)")
    assert it.supervise() == []
    assert it.process is None


def test_a_killed_program_takes_its_children_along(program: Callable[..., Program], tmp_path: Path) -> None:
    """The SuperLink's children hold its run's files, nginx' hold its port."""
    it = program(*SLEEP)
    it.supervise()
    until((tmp_path / "ready").exists, "it runs")
    child = int((tmp_path / "child").read_text())
    assert it.process is not None
    os.kill(it.process.pid, signal.SIGKILL)
    until(it.supervise, "its end is said")
    assert not alive(child)


def test_what_left_the_group_is_ended_as_well(program: Callable[..., Program], tmp_path: Path) -> None:
    """Flower's SuperExec has a session of its own, and would go on serving a run for some time."""
    it = program("sh", "-c", "setsid sleep 60 & echo $! > child; echo ready > ready; exit 1")
    it.supervise()
    until((tmp_path / "ready").exists, "it runs")
    child = int((tmp_path / "child").read_text())
    until(it.supervise, "its end is said")
    assert not alive(child)


def test_end_ends_all(program: Callable[..., Program], tmp_path: Path) -> None:
    it = program(*SLEEP)
    it.supervise()
    until((tmp_path / "ready").exists, "it runs")
    it.end()
    assert not alive(int((tmp_path / "child").read_text()))
    assert it.process is None


def test_a_program_that_does_not_listen_is_killed(
    program: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gliofed.shared.processes, "PATIENCE", 0.1)
    it = program("sh", "-c", "trap '' TERM; echo > ready; while true; do sleep 0.05; done")
    it.supervise()
    until((tmp_path / "ready").exists, "it runs")
    it.end()
    assert it.process is None


def test_who_is_born_while_others_are_asked_to_end_is_asked_too(
    program: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else all wait for PATIENCE, and it's killed without a chance to save what it has."""
    monkeypatch.setattr(gliofed.shared.processes, "PATIENCE", 30)
    kill, kinds = os.kill, set[int]()
    monkeypatch.setattr(os, "kill", lambda pid, kind: (kinds.add(kind), kill(pid, kind)))
    it = program("sh", "-c", "trap 'sleep 60 & exit' TERM; echo > ready; while true; do sleep 0.05; done")
    it.supervise()
    until((tmp_path / "ready").exists, "it runs")
    it.end()
    assert kinds == {signal.SIGTERM}


ORPHAN = """
import os, sys
from pathlib import Path
from gliofed.shared.processes import Program
Program("it", sys.argv[1:], Path.cwd(), os.environ).supervise()
os._exit(0)  # as if killed: nothing is ended
"""


def test_what_a_killed_supervisor_left_is_ended(program: Callable[..., Program], tmp_path: Path) -> None:
    """Else two SuperLinks would write one database, and the port would never be free."""
    root = Path(gliofed.shared.processes.__file__).parent.parent
    subprocess.run([sys.executable, "-c", ORPHAN, *SLEEP], check=True, env={**os.environ, "PYTHONPATH": str(root)})
    until((tmp_path / "ready").exists, "it runs")
    left = json.loads((tmp_path / "it.process.json").read_text())["pid"]
    assert alive(left)
    program(*SLEEP).end_older()
    assert not alive(left)
    assert not alive(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("change", [{"started": "1"}, {"boot": "another"}])
def test_another_process_of_the_same_number_is_left_alone(
    program: Callable[..., Program], tmp_path: Path, change: dict[str, str]
) -> None:
    it = program(*SLEEP)
    it.supervise()
    note = json.loads((tmp_path / "it.process.json").read_text())
    other = subprocess.Popen(SLEEP, start_new_session=True)
    started = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19]
    it.end()
    for known in (
        note | {"pid": other.pid, "started": started} | change,
        note | {"pid": other.pid, "started": started},
    ):
        (tmp_path / "it.process.json").write_text(json.dumps(known))
        program(*SLEEP).end_older()
        assert alive(other.pid) == (set(change.items()) <= set(known.items()))
    other.wait()


def test_a_note_that_was_cut_off_is_none(program: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "it.process.json").write_text('{"pid": 1')
    program("true").end_older()


def test_a_long_log_becomes_the_old_one(
    program: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It grows for months; and the program keeps its file open."""
    monkeypatch.setattr(gliofed.shared.processes, "LONGEST_LOG", 10)
    own = tmp_path / "own.log"
    words = "exec 3>>own.log; echo 0123456789 | tee /dev/fd/3; until [ -e more ]; do sleep 0.01; done"
    it = program("sh", "-c", f"{words}; echo after | tee /dev/fd/3; sleep 60")
    it.other_logs = [own]
    until(
        lambda: it.supervise() or all((tmp_path / f"{name}.old.log").exists() for name in ("it", "own")), "other logs"
    )
    assert (tmp_path / "it.old.log").read_text() == (tmp_path / "own.old.log").read_text() == "0123456789\n"
    (tmp_path / "more").touch()
    until(lambda: it.log.read_text() == own.read_text() == "after\n", "it writes on")


def test_a_full_disk_keeps_no_program_from_running(
    program: Callable[..., Program], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its note nor the copy of its log can be written: it runs, and the log gives room."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gliofed.shared.processes, "write_json", full)
    monkeypatch.setattr(shutil, "copyfile", full)
    monkeypatch.setattr(gliofed.shared.processes, "LONGEST_LOG", 10)
    it = program("sh", "-c", "echo 0123456789; echo > ready; sleep 60")
    it.supervise()
    until((tmp_path / "ready").exists, "it runs")
    assert it.supervise() == [] and it.process is not None and it.log.stat().st_size == 0


@pytest.mark.parametrize(("before", "ends"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_closed_terminal_ends_it_but_under_nohup(before: signal.Handlers, ends: bool) -> None:
    """What was started has a session of its own, so that it would stay."""
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    kept = [signal.getsignal(kind) for kind in kinds]
    try:
        signal.signal(signal.SIGHUP, before)
        stop = asked_to_end()
        assert callable(signal.getsignal(signal.SIGHUP)) is ends  # else raising it would end the tests
        signal.raise_signal(signal.SIGHUP)
        assert stop.is_set() is ends
    finally:
        for kind, handler in zip(kinds, kept, strict=True):
            signal.signal(kind, handler)


def test_programs_call_each_other_past_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's clients take the environment's, where a request to 127.0.0.1 would end."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example.org:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intranet.example.org")
    for name, value in no_proxy_here().items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        direct = {
            host: client._transport_for_url(httpx.URL(f"https://{host}:1")) is client._transport
            for host in ("127.0.0.1", "localhost", "intranet.example.org", "fl.example.org")
        }
    assert direct == {"127.0.0.1": True, "localhost": True, "intranet.example.org": True, "fl.example.org": False}
