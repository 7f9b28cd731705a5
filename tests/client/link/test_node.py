"""What start does with a SuperNode that ends, hangs or is refused; here programs that only sleep stand for it."""

import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import gliofed.client.link.node
import gliofed.client.link.preflight
from gliofed.client.hospital_folder import HospitalFolder
from gliofed.client.link.node import STILL_HELD, UNKNOWN_KEY, UNSIGNED, Node
from gliofed.client.link.reach import Findings
from gliofed.client.link.site_file import read_site
from gliofed.client.round.audit import note
from gliofed.shared.files import write_json
from gliofed.shared.kit import Kit
from gliofed.shared.processes import Program, start_of

ROOT = Path(__file__).parents[3]
KIT = Kit(federation="study", site="a", address="127.0.0.1:1", ca_sha256="a" * 64, code_sha256="b" * 64, made="now")
Tell = Callable[..., list[str]]
Later = Callable[[float], None]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    there = Findings(warnings=["server: nothing answers; still trying"])
    monkeypatch.setattr(gliofed.client.link.node, "reach", lambda address, ca: there)
    (tmp_path / "site.yaml").write_text("name: a\nroot: .\nlabels: msd\n")
    program = Program("supernode", ["sleep", "60"], tmp_path / "flower", os.environ, pauses=(60,))
    made = Node(tmp_path, KIT, program, longest=60.0)
    made.supervise()
    yield made
    program.end()


@pytest.fixture
def tell(node: Node) -> Tell:
    """What is said when the SuperNode has told this of itself: of another moment, or of the same as before."""
    moments = [0]

    def told(state: str = "idle", new: bool = True, **also: Any) -> list[str]:
        assert node.program.process is not None
        moments[0] += new
        then = f"2001-01-01T00:00:{moments[0]:02d}+00:00"  # a clock that is wrong tells as much
        pid = node.program.process.pid
        says = {"pid": pid, "started": start_of(pid), "state": state, "kind": None, "round": None, "since": then}
        says |= {"contact": then, "pulled": then, "problem": None, "refused": None, **also}
        write_json(node.folder / "state.json", says)
        return node.supervise()

    return told


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """So many seconds go by."""
    gone = [0.0]
    monkeypatch.setattr(gliofed.client.link.node, "monotonic", lambda: time.monotonic() + gone[0])

    def go(seconds: float) -> None:
        gone[0] += seconds

    return go


def kill(node: Node) -> None:
    assert node.program.process is not None
    node.program.process.kill()
    node.program.process.wait()


def test_what_it_does_is_said_once(tell: Tell) -> None:
    assert tell("connecting", contact=None) == ["connecting"]
    assert tell() == ["connected, waiting for requests"]
    assert tell() == []
    assert tell("working", kind="train", round="3") == ["training round 3"]
    (refused,) = tell("working", kind="train", round="3", refused="c" * 64)
    assert "c" * 64 in refused and "approve" in refused
    assert tell("working", kind="train", round="3", refused="c" * 64) == []


@pytest.mark.parametrize(
    ("problem", "ago", "sentence"),
    [
        ("HTTP 412 code 2004", 100.0, UNKNOWN_KEY),
        # Flower says the same of a key whose earlier connection it still holds, as after a kill.
        ("HTTP 412 code 2004", 30.0, STILL_HELD),
        # And of an expelled one, after it took no signature of it.
        ("HTTP 401 code 2001", 30.0, UNSIGNED),
        ("ConnectError: refused", 30.0, "server: nothing answers; still trying"),
    ],
)
def test_why_it_ended(node: Node, tell: Tell, later: Later, problem: str, ago: float, sentence: str) -> None:
    """Said once, and noted for status."""
    tell()
    later(ago)
    # As the SuperNode does just before it ends.
    says = json.loads((node.folder / "state.json").read_text())
    write_json(node.folder / "state.json", says | {"problem": problem})
    kill(node)
    ended, why = node.supervise()
    assert "killed by SIGKILL" in ended and why == sentence
    assert json.loads(HospitalFolder(node.folder).problem.read_text())["sentence"] == sentence
    assert node.supervise() == []
    assert "or this hospital was expelled" in STILL_HELD


@pytest.mark.parametrize(("ago", "sentence"), [(20, STILL_HELD), (3600, UNKNOWN_KEY)])
def test_a_start_that_was_killed_is_no_unknown_key(tmp_path: Path, node: Node, ago: int, sentence: str) -> None:
    """The next one read that the aggregator does not know the key, while it held the killed one's connection."""
    contact = (datetime.now(UTC) - timedelta(seconds=ago)).isoformat(timespec="seconds")
    write_json(node.folder / "state.json", {"pid": 1, "contact": contact})
    assert Node(node.folder, KIT, node.program)._explain("HTTP 412 code 2004") == [sentence]


def test_one_that_could_not_say_anything(node: Node) -> None:
    """A broken installation ends before there is a state: then the end of its log is all there is."""
    node.program.log.write_text("Traceback\nflwr 1.0.0: approval of code is known to hold with another\n")
    kill(node)
    assert node.supervise()[1] == "it said: flwr 1.0.0: approval of code is known to hold with another"


def test_a_problem_that_is_over_is_said_again_when_it_comes_back(tell: Tell) -> None:
    tell()
    assert tell(problem="ConnectError: refused") == ["server: nothing answers; still trying"]
    assert tell(problem="ConnectError: refused") == [] and tell() == []
    assert tell(problem="ConnectError: refused") == ["server: nothing answers; still trying"]


def test_silence(node: Node, tell: Tell, later: Later) -> None:
    """A node may be offline at the server while its process stays, so the process alone proves nothing."""
    assert node.program.process is not None
    first = node.program.process.pid
    tell()
    later(gliofed.client.link.node.QUIET - 10)
    assert tell(new=False) == []
    training = {"kind": "train", "round": "1"}
    tell("working", **training)
    later(gliofed.client.link.node.QUIET + 10)
    assert tell("working", new=False, **training) == []  # a training is not lost to a silent network
    assert node.program.process.pid == first
    tell()
    later(gliofed.client.link.node.QUIET + 10)
    assert "no answer from the aggregator for 120 s" in tell(new=False)[-1]
    node.supervise()
    assert node.program.process is not None and node.program.process.pid != first
    assert tell(new=False) == []  # of before this start


@pytest.mark.parametrize("state", [{"pulled": None}, {"contact": None}])
def test_half_a_silence(tell: Tell, later: Later, state: dict[str, None]) -> None:
    """Heartbeats go on where the pulls have ended, and the other way round."""
    tell(**state)
    later(gliofed.client.link.node.QUIET + 10)
    assert "no answer" in tell(**state)[-1]


def test_a_request_without_end(node: Node, tell: Tell, later: Later) -> None:
    """The work ends itself at its limit; should all of that fail, the SuperNode is started again."""
    assert tell("working", kind="train", round="1") == ["training round 1"]
    later(node.longest + gliofed.client.link.node.MORE - 10)
    assert tell("working", new=False, kind="train", round="1") == []
    later(20)
    assert "ran longer than every limit" in tell("working", new=False, kind="train", round="1")[-1]


def test_a_limit_that_is_changed_holds_from_the_next_request_on(node: Node, tell: Tell) -> None:
    (node.folder / "site.yaml").write_text("name: a\nroot: .\nlabels: msd\npolicy: {max_minutes: 10}\n")
    tell("working", kind="train", round="1")
    assert node.longest == 600
    (node.folder / "site.yaml").write_text("{")  # until it is mended, requests are answered with a code alone
    assert "not YAML" in tell("working", kind="train", round="2")[-1]
    assert node.longest == 600 and tell("working", kind="train", round="3") == ["training round 3"]


def test_what_was_not_done_is_said_in_words(node: Node, tell: Tell) -> None:
    """A request that the policy declines leaves no other trace on the screen; one of before this start is old."""
    site = read_site(node.folder)

    def answer(code: str) -> None:
        note(site, {"event": "receipt", "kind": "train", "round": 3, "status": "declined", "code": code})

    answer("hours")
    assert tell() == ["connected, waiting for requests"]
    tell("working", kind="train", round="3")
    answer("policy")
    why = f"train of round 3 declined: the site's policy does not allow it; the detail is in {site.work}/site.log"
    assert tell() == ["connected, waiting for requests", why]
    assert tell() == []


def test_a_disk_that_fills_is_said_before_it_is_full(node: Node, tell: Tell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process of a request ends on a full disk without a word of why."""
    full = [False]
    work = Path(read_site(node.folder).work)

    def usage(place: Path) -> SimpleNamespace:
        return SimpleNamespace(free=1e8 if full[0] and place == work else 1e12)

    monkeypatch.setattr(gliofed.client.link.preflight.shutil, "disk_usage", usage)
    tell()
    full[0] = True
    assert tell(new=False) == [f"{work}: less than 1 GB is free; make room, since requests may fail"]
    assert tell() == []
    full[0] = False
    assert tell() == [f"{node.folder}: there is room again"]


def test_one_that_does_not_start(node: Node, later: Later) -> None:
    later(gliofed.client.link.node.QUIET + 1)
    assert "did not start" in node.supervise()[0]
