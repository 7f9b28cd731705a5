"""That the loop around a request does what it did, whatever is lost, late or probed."""

import json
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import pytest
from clock import Clock
from scripted_mail import LETTERS, LIMIT, RETRY, Wire, ask, digest, drawn

import gliofed.server.round.mail
from gliofed.server.round.answers import Absent
from gliofed.server.round.mail import MOST_SENDS, Mail, Unanswered
from gliofed.shared.config import RunConfig
from gliofed.shared.messages import Reply

RECORDED = json.loads((Path(__file__).parent / "recorded_mail.json").read_text())
"""What the loop did before it had states, at 033c8bf: whole for schedules with a name, hashed for those by chance."""


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wire], Mail]:
    monkeypatch.setattr(gliofed.server.round.mail, "SeparatePulls", lambda wire: wire.pull)  # which replaces Flower's
    named = lambda node: "?ab"[node]  # noqa: E731
    return lambda wire: Mail(wire, wire, LIMIT, RETRY, named, wire.present, wire.admitted, wire)  # type: ignore[arg-type]


Make = Callable[[Wire], Mail]


@pytest.mark.parametrize("name", RECORDED["named"])
def test_a_schedule_goes_as_it_did(name: str, make: Make, run_config: Callable[..., RunConfig]) -> None:
    """Each message, wait, line of the log and answer, with its time."""
    wire = Wire(RECORDED["named"][name]["script"], Clock())
    list(ask(wire, run_config(), make))
    assert wire.done == RECORDED["named"][name]["done"]


def test_schedules_by_chance_go_as_they_did(make: Make, run_config: Callable[..., RunConfig]) -> None:
    config = run_config()
    for block, expected in enumerate(RECORDED["drawn"]):
        done = []
        for seed in range(20 * block, 20 * block + 20):
            wire = Wire(drawn(seed), Clock())
            list(ask(wire, config, make))
            done += wire.done
        assert digest(done) == expected, f"one of the schedules {20 * block} to {20 * block + 19}"


def scripts() -> Iterator[list[str]]:
    """All of three things that happen to one node after it was silent, before the other one answers."""
    for letters in product(LETTERS.keys() - {"f", "x"}, repeat=3):  # which end it at once
        yield ["1w", *(f"1{letter}" for letter in letters), "2a"]


def test_each_question_ends_once_and_no_answer_counts_twice(make: Make, run_config: Callable[..., RunConfig]) -> None:
    config = run_config()
    for script in scripts():
        wire = Wire(script, Clock())
        answers = list(ask(wire, config, make))
        assert sorted(node for node, _ in answers) == [1, 2], script
        assert all(isinstance(answer, Reply | Absent | Unanswered) for _, answer in answers)
        sent = [line for line in wire.done if line.startswith("train>1 m")]
        assert len(sent) <= MOST_SENDS + sum(step[1] == "c" for step in script), script
